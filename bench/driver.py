"""Connections driven as a sender drives them, with nothing else around: for conversation.py.

    python bench/driver.py PORT data|bdat CONNECTIONS COUNT

Each greenlet holds one Session and gives it the same finished letter, over and over; no queue, no
lane, no composing, no settling. When all are connected the clock of the process's CPU begins to
count. Its last line is what was used, as JSON.
"""

import geomail.__main__  # noqa: F401, I001 - patches, before all else

import gc
import json
import resource
import sys
import time
from dataclasses import replace

import gevent

from geomail import config
from geomail.delivery.session.transport import Session, Terms
from geomail.letter import Letter
from geomail.smtp.events import ContentWanted, Finished, Lost, Ready, Transaction
from stand import SENDER, message

LETTER = Letter(SENDER, ("demo+4711@example.com",), message(1024), False, False)


def main(port: int, mode: str, connections: int, count: int) -> None:
    """Connect, deliver, tell."""
    sessions = [connected(port, mode) for _ in range(connections)]
    deliver = deliver_by_chunks if mode == "bdat" else deliver_by_data
    gc.collect()
    gc.freeze()
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    shares = [(count + number) // connections for number in range(connections)]
    busy = [gevent.spawn(deliver, *pair) for pair in zip(sessions, shares, strict=True)]
    gevent.joinall(busy, raise_error=True)
    after = resource.getrusage(resource.RUSAGE_SELF)
    told = {
        "mails": count,
        "seconds": time.monotonic() - began,
        "user_s": after.ru_utime - before.ru_utime,
        "system_s": after.ru_stime - before.ru_stime,
    }
    for session in sessions:
        session.close()
    print(json.dumps(told))


def connected(port: int, mode: str) -> Session:
    """Return a session that is ready; with `bdat` for messages in chunks."""
    chunking = "on" if mode == "bdat" else "off"
    settings = config.load({"--relay": [f"smtp://127.0.0.1:{port}"]}, {}, places=())
    relay = replace(settings.relays["default"])
    session = Session(Terms(relay.members[0], relay, settings), chunking=chunking)
    lost = session.open()
    if lost is not None:
        raise SystemExit(str(lost))
    if mode == "bdat" and not session.client.chunks:
        raise SystemExit("the host announces no CHUNKING")
    return session


def deliver_by_data(session: Session, count: int) -> None:
    """Deliver with DATA: the content of one message and the envelope of the next at a time."""
    client, begun, finished = session.client, 0, 0
    wanted: Transaction | None = None
    while finished < count:
        if wanted is not None:
            client.content(wanted)
        if begun < count:
            client.begin(LETTER, None)
            begun += 1
        wanted = None
        for event in session.exchange():
            if type(event) is ContentWanted:
                wanted = event.transaction
            else:
                finished += is_delivered(event)


def deliver_by_chunks(session: Session, count: int) -> None:
    """Deliver with BDAT: as many at a time as the conversation allows."""
    client, begun, finished = session.client, 0, 0
    while finished < count:
        while begun < count and client.may_begin:
            client.begin(LETTER, None)
            begun += 1
        for event in session.turn():
            finished += is_delivered(event)


def is_delivered(event: object) -> bool:
    """Tell whether a mail has arrived; anything else than that is the end of the bench."""
    if isinstance(event, Ready):
        return False
    if isinstance(event, Finished):
        final = event.transaction.final
        if final is not None and final.is_positive:
            return True
        raise SystemExit(f"not delivered: {final}")
    raise SystemExit(str(event) if isinstance(event, Lost) else f"unexpected: {event!r}")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
