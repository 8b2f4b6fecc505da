"""The listening half of the sink: its door, its options, its count.

A mail is counted, handed on and recorded before it is answered. A greenlet serves each connection
(geomail.sink.conversation), and nothing that happens on one reaches another.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from ssl import SSLContext
from typing import Self

from gevent import socket
from gevent.pool import Pool
from gevent.server import StreamServer

from geomail import log
from geomail.errors import ConfigError
from geomail.intake.logins import accounts_of
from geomail.sink import faults
from geomail.sink.conversation import Misbehaving
from geomail.sink.faults import Fault
from geomail.sink.record import Record
from geomail.smtp.answers import Answer
from geomail.smtp.policy import Policy
from geomail.smtp.server import Mail

OnMail = Callable[[str, tuple[str, ...], bytes], object]


class Sink:
    """An SMTP server on `listen` that takes mails until `stop`.

    `on_mail(mail_from, recipients, content)` is called for each mail taken. `policy` says what is
    announced and demanded; `tls` offers STARTTLS, or with `implicit_tls` begins with it; `logins`
    (user: password) and `tokens` (user: OAuth 2 bearer token) offer AUTH. `fault` happens to every
    mail, as if a recipient asked for it. `max_connections`: further ones get a 421. `delay_s` comes
    before every write. After `mails_per_connection` mails the connection ends, silently or with a
    421 when it `says_421`. `record`: a file that gets a line for each mail, `<unix time>
    <Message-ID> <first recipient>`, at most 0.2 s later.
    """

    def __init__(
        self,
        listen: tuple[str, int] = ("127.0.0.1", 0),
        *,
        on_mail: OnMail | None = None,
        policy: Policy | None = None,
        tls: SSLContext | None = None,
        implicit_tls: bool = False,
        logins: Mapping[str, str] | None = None,
        tokens: Mapping[str, str] | None = None,
        fault: Fault | None = None,
        max_connections: int | None = None,
        delay_s: float = 0.0,
        mails_per_connection: int | None = None,
        says_421: bool = False,
        record: str | None = None,
    ) -> None:
        self.count = 0
        self.connections = 0
        self.connections_ever = 0
        self.tls = tls
        self.implicit_tls = implicit_tls
        self.fault = fault
        self.max_connections = max_connections
        self.delay_s = delay_s
        self.mails_per_connection = mails_per_connection
        self.says_421 = says_421
        self.policy = self._armed(policy or Policy(), logins, tokens)
        self._on_mail = on_mail
        self._record = Record(record) if record else None
        self._tries: Counter[str] = Counter()
        self._server: StreamServer | None = None
        self.address = listen

    @property
    def is_full(self) -> bool:
        """Tell whether one of the connections is one too many."""
        return self.max_connections is not None and self.connections > self.max_connections

    def start(self) -> Self:
        """Listen; `address` holds the real port then. Raises ConfigError when that can't be."""
        listener = _listener(self.address)
        self.address = listener.getsockname()[:2]
        self._server = StreamServer(listener, self._converse, spawn=Pool())
        self._server.start()
        return self

    def stop(self) -> None:
        """Close the door and all connections, write what is to be recorded."""
        if self._server:
            self._server.stop(timeout=0)
        if self._record:
            self._record.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def take(self, mail: Mail) -> None:
        """Count a mail, hand it to on_mail, note it in the record."""
        self.count += 1
        if self._on_mail:
            self._on_mail(mail.mail_from, mail.recipients, mail.content)
        if self._record:
            self._record.add(mail)

    def refusal(self, fault: Fault, address: str) -> Answer | None:
        """Return what is answered at MAIL or RCPT, None for yes."""
        return faults.refusal(fault, address, self._tries)

    def _armed(
        self,
        policy: Policy,
        logins: Mapping[str, str] | None,
        tokens: Mapping[str, str] | None,
    ) -> Policy:
        if logins is not None or tokens is not None:
            policy = replace(policy, accounts=accounts_of(logins, tokens))
        offers_tls = self.tls is not None and not self.implicit_tls
        return replace(policy, starttls=policy.starttls or offers_tls)

    def _converse(self, sock: socket.socket, _peer: object) -> None:
        self.connections += 1
        self.connections_ever += 1
        conversation = Misbehaving(self, sock)
        try:
            conversation.run()
        except OSError as error:
            log.debug("sink_lost", error=error)
        finally:
            self.connections -= 1
            conversation.close()


def _listener(address: tuple[str, int]) -> socket.socket:
    host, port = address
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise ConfigError(f"can't listen on {host}:{port}: {error.strerror}") from None
    return listener
