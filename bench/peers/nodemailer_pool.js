// nodemailer's pool, one finished message over and over: twice as many mails are handed to it as it
// has connections, so that each finds the next one waiting. PORT CONNECTIONS WARM_S TIMED_S.
'use strict';

const fs = require('fs');
const transport = require('./nodemailer_transport');

const [port, connections, warmS, timedS] = process.argv.slice(2).map(Number);
const raw = fs.readFileSync(0);
const envelope = { from: 'bench@example.com', to: ['demo@example.com'] };
const pool = transport.pool(port, connections);
const wait = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

let sent = 0;
let isOver = false;

async function feed() {
    while (!isOver) {
        await pool.sendMail({ envelope, raw });
        sent += 1;
    }
}

async function measure() {
    while (sent < connections) await wait(0.01);
    await wait(warmS);
    const before = sent;
    const cpuBefore = process.cpuUsage();
    const began = process.hrtime.bigint();
    await wait(timedS);
    const seconds = Number(process.hrtime.bigint() - began) / 1e9;
    const cpu = process.cpuUsage(cpuBefore);
    const mails = sent - before;
    isOver = true;
    return { mails, seconds, cpu_s: (cpu.user + cpu.system) / 1e6 };
}

async function main() {
    const feeders = Array.from({ length: 2 * connections }, feed);
    const measured = measure();
    await Promise.race([measured, Promise.all(feeders)]);
    const told = await measured;
    await Promise.all(feeders);
    pool.close();
    console.log(JSON.stringify({ ...told, all: sent }));
}

main().catch((error) => {
    console.error(String(error));
    process.exit(1);
});
