"""geomail's sink in a process of its own, for benches: python bench/sink_host.py [CERT [TLS]]

Says its port on standard output, and how many mails it has taken after each line that comes in;
it ends when its standard input does. CERT is a PEM file with key and chain; TLS is `starttls`, or
`implicit`.
"""

import geomail.__main__  # noqa: F401, I001 - patches, before all else

import gc
import ssl
import sys

from gevent.fileobject import FileObject

from geomail.sink import Sink


def main(cert: str | None = None, tls: str = "starttls") -> None:
    """Take mails, and tell how many."""
    context = None
    if cert is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert)
    gc.freeze()
    with Sink(tls=context, implicit_tls=tls == "implicit") as sink:
        print(sink.address[1], flush=True)
        for _line in FileObject(sys.stdin.buffer, "rb"):
            print(sink.count, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
