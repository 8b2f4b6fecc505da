"""A web server for URL tasks and callbacks: it notes what was asked, and answers as it is told."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import gevent
import msgspec
from gevent import pywsgi


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return msgspec.json.decode(self.body)


@dataclass
class Web:
    """What a server has seen; `answers`: by path, the status, the delay and headers to answer with.

    Of several in a list each is given once, the last one for ever.
    """

    port: int = 0
    seen: list[Asked] = field(default_factory=list)
    answers: dict[str, list[tuple[str, float, list[tuple[str, str]]]]] = field(default_factory=dict)
    under_way: int = 0
    most: int = 0  # that were under way together

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def answer(self, path: str, *statuses: str, delay_s: float = 0.0, **headers: str) -> None:
        """Answer `path` so from now on."""
        pairs = [(name.replace("_", "-"), value) for name, value in headers.items()]
        self.answers[path] = [(status, delay_s, pairs) for status in statuses or ("200 OK",)]

    def times(self, path: str) -> int:
        """Return how often a path was asked for."""
        return Counter(asked.path for asked in self.seen)[path]

    def __call__(self, environ: dict[str, Any], start: Any) -> list[bytes]:
        """Answer one request (WSGI)."""
        path = environ["PATH_INFO"]
        headers = {
            name[5:].replace("_", "-").lower(): value
            for name, value in environ.items()
            if name.startswith("HTTP_")
        }
        headers["content-type"] = environ.get("CONTENT_TYPE") or ""
        query = parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
        body = environ["wsgi.input"].read()
        self.seen.append(Asked(environ["REQUEST_METHOD"], path, query, headers, body))
        waiting = self.answers.get(path) or [("200 OK", 0.0, [])]
        status, delay_s, pairs = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            gevent.sleep(delay_s)
        finally:
            self.under_way -= 1
        start(status, [*pairs, ("Content-Type", "text/plain")])
        return [b"so be it\n"]


@contextmanager
def web_host(port: int = 0) -> Iterator[Web]:
    """Run a server on a port of this machine; 0: on a free one."""
    web = Web()
    server = pywsgi.WSGIServer(("127.0.0.1", port), web, log=None, error_log=None)
    server.start()
    web.port = int(server.server_port or 0)
    try:
        yield web
    finally:
        server.stop(timeout=0.1)
