"""python-slimta's static relay: its pool of kept connections, fed by twice as many greenlets.

PORT CONNECTIONS WARM_S TIMED_S; no queue of its own, one envelope over and over.
"""

from gevent import monkey

monkey.patch_all()

import json
import sys
import time

import gevent
import gevent.event
from slimta.envelope import Envelope
from slimta.relay.smtp.static import StaticSmtpRelay


def main(port: int, connections: int, warm_s: float, timed_s: float) -> None:
    """Keep all connections busy, and tell what was done in the timed part."""
    envelope = Envelope("bench@example.com", ["demo@example.com"])
    envelope.parse(sys.stdin.buffer.read())
    relay = StaticSmtpRelay(
        "127.0.0.1",
        port,
        pool_size=connections,
        idle_timeout=30.0,
        ehlo_as="bench.example.com",
    )
    sent, is_over = [0], gevent.event.Event()

    def feed() -> None:
        while not is_over.is_set():
            relay.attempt(envelope, 0)
            sent[0] += 1

    feeders = [gevent.spawn(feed) for _ in range(2 * connections)]
    while sent[0] < connections and not any(feeder.ready() for feeder in feeders):
        time.sleep(0.01)
    time.sleep(warm_s)
    before, began, cpu_s = sent[0], time.monotonic(), time.process_time()
    time.sleep(timed_s)
    mails, seconds = sent[0] - before, time.monotonic() - began
    cpu_s = time.process_time() - cpu_s
    is_over.set()
    gevent.joinall(feeders, raise_error=True)
    print(json.dumps({"mails": mails, "seconds": seconds, "cpu_s": cpu_s, "all": sent[0]}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))
