"""One HTTP request: what a task asks for, as bytes, and what becomes of it at a redirect.

    task                                    query               body
    GET, HEAD, DELETE, OPTIONS              the URL's + param   none
    POST, PUT, PATCH without `json`         the URL's           param, as a form
    `json`, whatever the method             the URL's + param   json

    redirect         then                              its body and headers
    301, 307, 308    the same method                   go again
    302, 303         GET (HEAD stays HEAD)             no body

A callback follows no 302 or 303: it would arrive without what it says. To another origin (scheme,
host, port) go of the task's own headers only those in _HARMLESS, so that no password travels on;
from https to http nothing goes.

Cookies are never kept, and no proxy is asked. What can't be in a header or a request line does not
get here: job/headers.py and target.py refuse it.
"""

from dataclasses import dataclass, replace

import h11
import msgspec

from geomail import __version__
from geomail.carriers.query import build_query, joined
from geomail.carriers.target import Target, target_of
from geomail.errors import PayloadError
from geomail.job.kinds import HttpTask

Headers = tuple[tuple[str, str], ...]

REDIRECTS = frozenset((301, 302, 303, 307, 308))
_WITH_BODY = frozenset(("POST", "PUT", "PATCH"))
_WITHOUT_IT = frozenset((302, 303))
# RFC 9110 section 9.2.2: to ask twice is as good as once.
_IDEMPOTENT = frozenset(("GET", "HEAD", "OPTIONS", "PUT", "DELETE"))
_HARMLESS = frozenset(
    (
        *("accept", "accept-language", "content-type", "user-agent"),
        *("webhook-id", "webhook-timestamp", "webhook-signature"),
    )
)
_FORM = "application/x-www-form-urlencoded"
_USER_AGENT = f"geomail/{__version__}"


@dataclass(frozen=True, slots=True)
class Request:
    """One request to one place; `body` is None where there is none."""

    method: str
    target: Target
    headers: Headers = ()
    body: bytes | None = None

    @property
    def is_idempotent(self) -> bool:
        """Tell whether it may be sent again where nobody knows if it has arrived."""
        return self.method in _IDEMPOTENT

    def written(self, http: h11.Connection) -> tuple[bytes, bytes]:
        """Return the bytes of its head and its body, for this connection; raises PayloadError."""
        try:
            head = http.send(
                h11.Request(method=self.method, target=self.target.path, headers=self._fields())
            )
            body = http.send(h11.Data(data=self.body)) if self.body else b""
            http.send(h11.EndOfMessage())
        except h11.LocalProtocolError as error:
            raise PayloadError("a header or the path has what HTTP has no form for") from error
        return head, body

    def _fields(self) -> list[tuple[bytes, bytes]]:
        named = {name.lower() for name, _ in self.headers}
        fields = [("Host", self.target.authority)]
        if "user-agent" not in named:
            fields.append(("User-Agent", _USER_AGENT))
        if "accept" not in named:
            fields.append(("Accept", "*/*"))
        fields += self.headers
        if self.body is not None:
            fields.append(("Content-Length", str(len(self.body))))
        return [(name.encode(), value.strip(" ").encode()) for name, value in fields]

    def redirected(self, status: int, location: str, *, is_callback: bool) -> "Request":
        """Return the request that a redirect asks for; raises PayloadError: it is not followed."""
        target = self.target.redirected(location)
        if target.scheme == "http" and self.target.scheme == "https":
            raise PayloadError("it leads from https to http")
        headers = self.headers
        if target.origin != self.target.origin:
            headers = tuple(each for each in headers if each[0].lower() in _HARMLESS)
        if status not in _WITHOUT_IT or (self.body is None and self.method in ("GET", "HEAD")):
            return replace(self, target=target, headers=headers)
        if is_callback:
            raise PayloadError(f"after {status} a callback would go without what it says")
        method = "HEAD" if self.method == "HEAD" else "GET"
        return Request(method, target, _without_type(headers))


def request_of(task: HttpTask) -> Request:
    """Return the request that a task asks for; raises PayloadError."""
    target = target_of(task.url)
    body, form = None, ""
    if task.json is not None:
        body, form = msgspec.json.encode(task.json), "application/json"
    elif task.method in _WITH_BODY:
        body, form = build_query(task.param).encode(), _FORM if task.param else ""
    if task.param and form != _FORM:
        path = joined(target.path, build_query(task.param))
        target = Target(target.scheme, target.host, target.port, path)
    headers = tuple(task.headers)
    if form and not any(name.lower() == "content-type" for name, _ in headers):
        headers += (("Content-Type", form),)
    return Request(task.method, target, headers, body)


def _without_type(headers: Headers) -> Headers:
    return tuple(each for each in headers if not each[0].lower().startswith("content-"))
