"""The sink of the demo, run as a process of its own: `python -m geomail.demo.catcher RECORD LAST`.

Standard input and output are one socket to the demo. The first line written is the port; then one
line for each mail to `single+N@…`, in the moment in which it was taken, for the demo sends the next
one only then. RECORD gets a line for each mail (geomail.sink), LAST the content of the last single
one. It ends when the demo hangs up, however the demo came to its end.
"""

import signal
import sys
from pathlib import Path

from gevent import socket

from geomail.sink import Sink

SINGLE = "single"


def main(record: str, last: str) -> None:
    """Take mails until the other end of standard input is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    demo = socket.socket(fileno=0)
    content = b""

    def note(_mail_from: str, recipients: tuple[str, ...], mail: bytes) -> None:
        nonlocal content
        if recipients[0].startswith(SINGLE):
            content = mail
            demo.sendall(recipients[0].encode() + b"\n")

    with Sink(on_mail=note, record=record) as sink:
        demo.sendall(b"%d\n" % sink.address[1])
        while demo.recv(100):
            pass
    Path(last).write_bytes(content)


if __name__ == "__main__":
    main(*sys.argv[1:])
