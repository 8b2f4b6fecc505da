"""redis.asyncio and aiosmtplib on uvloop: RPOP of ten, compose, send; a task and connection each.

PORT CONNECTIONS REDIS_PORT, and `EmailMessage` behind them for mails composed as its documentation
says (mails.py).
"""

import asyncio
import json
import signal
import sys

import aiosmtplib
import mails
import redis.asyncio
import uvloop


async def main(port: int, connections: int, redis_port: int) -> None:
    """Send what is on the list until SIGTERM, and tell how many that were."""
    link = redis.asyncio.Redis(port=redis_port, max_connections=connections)
    send = mails.way(sys.argv[4:])
    sent, is_over = [0] * connections, asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, is_over.set)

    async def deliver(number: int) -> None:
        client = aiosmtplib.SMTP(
            hostname="127.0.0.1", port=port, start_tls=False, local_hostname="bench.example.com"
        )
        async with client:
            while not is_over.is_set():
                for payload in await link.rpop(mails.LIST, mails.AT_ONCE) or ():
                    await send(client, payload)
                    sent[number] += 1

    await asyncio.gather(*(deliver(number) for number in range(connections)))
    await link.aclose()
    print(json.dumps({"all": sum(sent)}))


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
