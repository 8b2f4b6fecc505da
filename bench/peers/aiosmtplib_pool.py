"""aiosmtplib: a client is for one message at a time, so a task and a kept connection each."""

import asyncio
import json
import sys
import time

import aiosmtplib


async def main(port: int, connections: int, warm_s: float, timed_s: float) -> None:
    """Keep all connections busy, and tell what was done in the timed part."""
    content = sys.stdin.buffer.read()
    sent, is_over = [0] * connections, asyncio.Event()

    async def deliver(number: int) -> None:
        client = aiosmtplib.SMTP(
            hostname="127.0.0.1", port=port, start_tls=False, local_hostname="bench.example.com"
        )
        async with client:
            while not is_over.is_set():
                await client.sendmail("bench@example.com", ["demo@example.com"], content)
                sent[number] += 1

    tasks = [asyncio.create_task(deliver(number)) for number in range(connections)]
    while not all(sent):
        await asyncio.sleep(0.01)
        for task in tasks:
            if task.done():
                task.result()  # raises what went wrong
    await asyncio.sleep(warm_s)
    before, began, cpu_s = sum(sent), time.monotonic(), time.process_time()
    await asyncio.sleep(timed_s)
    mails, seconds = sum(sent) - before, time.monotonic() - began
    cpu_s = time.process_time() - cpu_s
    is_over.set()
    await asyncio.gather(*tasks)
    print(json.dumps({"mails": mails, "seconds": seconds, "cpu_s": cpu_s, "all": sum(sent)}))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
