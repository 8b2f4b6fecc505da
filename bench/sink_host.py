"""geomail's sink in a process of its own, for benches.

    python bench/sink_host.py [CERT starttls|implicit [TLSv1_2|TLSv1_3]]

Says its port on standard output, and how many mails it has taken after each line that comes in;
it ends when its standard input does. CERT is a PEM file with key and chain; a version is the only
one that is spoken.
"""

import geomail.__main__  # noqa: F401, I001 - patches, before all else

import gc
import ssl
import sys

from gevent.fileobject import FileObject

from geomail.sink import Sink


def main(cert: str = "", tls: str = "", version: str = "") -> None:
    """Take mails, and tell how many."""
    context = context_with(cert, version) if cert else None
    gc.freeze()
    with Sink(tls=context, implicit_tls=tls == "implicit") as sink:
        print(sink.address[1], flush=True)
        for _line in FileObject(sys.stdin.fileno(), "rb"):
            print(sink.count, flush=True)


def context_with(cert: str, version: str) -> ssl.SSLContext:
    """Return what TLS is spoken with; no `version` means what both sides like best."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert)
    if version:
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    return context


if __name__ == "__main__":
    main(*sys.argv[1:])
