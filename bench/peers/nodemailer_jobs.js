// ioredis and nodemailer's pool: RPOP of ten, compose, send. Twice as many loops as connections, so
// that each connection finds the next mail waiting. PORT CONNECTIONS REDIS_PORT.
'use strict';

const Redis = require('ioredis');
const { pool } = require('./nodemailer_transport');

const [port, connections, redisPort] = process.argv.slice(2).map(Number);
const link = new Redis(redisPort, '127.0.0.1');
const transport = pool(port, connections);
let sent = 0;
let isOver = false;
process.on('SIGTERM', () => {
    isOver = true;
});

async function deliver(payload) {
    const job = JSON.parse(payload);
    const [[address, name]] = Object.entries(job.to);
    const to = { name, address };
    await transport.sendMail({ from: 'bench@example.com', to, subject: job.subject, text: job.body });
    sent += 1;
}

async function feed() {
    while (!isOver) {
        for (const payload of (await link.rpop('bench:mails', 10)) || []) {
            await deliver(payload);
        }
    }
}

async function main() {
    await Promise.all(Array.from({ length: 2 * connections }, feed));
    transport.close();
    await link.quit();
    console.log(JSON.stringify({ all: sent }));
}

main().catch((error) => {
    console.error(String(error));
    process.exit(1);
});
