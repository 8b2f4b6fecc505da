"""redis-py and smtplib: RPOP of ten, compose, send; a thread and a kept connection each.

PORT CONNECTIONS REDIS_PORT, and behind them `gevent` for greenlets instead of threads, and
`EmailMessage` for mails composed as Python's documentation says (mails.py).
"""

import sys

if "gevent" in sys.argv[4:]:
    from gevent import monkey

    monkey.patch_all()

import json
import signal
import smtplib
import threading
import time

import mails
import redis


def main(port: int, connections: int, redis_port: int) -> None:
    """Send what is on the list until SIGTERM, and tell how many that were."""
    link = redis.Redis(port=redis_port, max_connections=connections)
    send = mails.way(sys.argv[4:])
    sent, is_over = [0] * connections, threading.Event()
    trouble: list[Exception] = []
    signal.signal(signal.SIGTERM, lambda *_: is_over.set())

    def deliver(number: int) -> None:
        with smtplib.SMTP("127.0.0.1", port, local_hostname="bench.example.com") as client:
            while not is_over.is_set():
                for payload in link.rpop(mails.LIST, mails.AT_ONCE) or ():
                    send(client, payload)
                    sent[number] += 1

    def run(number: int) -> None:
        try:
            deliver(number)
        except (OSError, smtplib.SMTPException, redis.RedisError) as error:
            trouble.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(connections)]
    for thread in threads:
        thread.start()
    while not is_over.is_set() and not trouble:
        time.sleep(0.05)
    is_over.set()
    for thread in threads:
        thread.join()
    if trouble:
        raise SystemExit(repr(trouble[0]))
    print(json.dumps({"all": sum(sent)}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
