"""The SMTP door: a program's mail setting pointed at geomail, and its mails are jobs.

    250 2.0.0 Ok: queued as 5b1c….7.0      it is in Redis, under this id
    451 4.3.0                              Redis is away
    452 4.3.1                              too many wait (`high_water`), said at MAIL
    450 4.7.1                              this address brings too many (`door_rate`), the same
    553, 554                               it could never be sent: the reason

`listen_smtps` is the same with TLS from the first byte on (RFC 8314), a door of its own.

Who may send: with `door_logins` who logs in, else clients of this machine; others are told so by
the greeting. In clear a stranger's password is not asked for: from another machine PLAIN and LOGIN
need TLS (`door_cert`), SCRAM-SHA-256 and CRAM-MD5 do not.

What comes in one segment is pushed together, whatever the client waits for, and what many
connections bring at a time goes to Redis in one push (geomail.intake.gate). The content travels
byte for byte (geomail.intake.submission).

Promised: nothing is answered with 250 before Redis has it. A connection costs at most one mail of
`door_max_mb`, all together what the gate has room for; one that brings neither a command nor 4 KB
in `door_idle_s`, too many commands without a mail, wrong passwords (geomail.intake.guesses) or
another protocol is ended, HTTP before anything of it is run.
Not promised: that what was answered 451 is not in Redis; the client sends it again, as after a lost
connection.
"""

import socket
import time
from dataclasses import replace
from functools import partial
from ssl import SSLContext

import gevent

from geomail import log
from geomail.config import Settings
from geomail.errors import PayloadError
from geomail.intake import submission
from geomail.intake.conversation import BLOCK, Conversation
from geomail.intake.gate import Gate, Refused
from geomail.intake.guest import Guest
from geomail.intake.listening import is_loopback
from geomail.intake.logins import USUAL, WITHOUT_SENDING_IT, Logins
from geomail.intake.reception import Reception
from geomail.intake.submission import Origin, Refusal
from geomail.job.addresses import MAX_RECIPIENTS, check_address
from geomail.smtp.answers import TOO_LARGE, Answer
from geomail.smtp.phases import Phase
from geomail.smtp.policy import Policy
from geomail.smtp.server import Event, Mail, Server

_CLIENT_HELLO = b"\x16\x03"  # of TLS
# A browser can be made to send a page's form here, with commands in it.
_HTTP = (b"GET ", b"POST ", b"PUT ", b"HEAD ", b"OPTIONS ", b"CONNECT ", b"PRI ")
_AT_REST = frozenset((Phase.REFUSED, Phase.NEW, Phase.CLEAR, Phase.STRANGER, Phase.READY))
_MB = 1024 * 1024
_ENVELOPE = 64 * 1024  # of a payload, beside the content
_SOME = 4096  # octets that show that a client is busy
_TOGETHER = 500  # mails in one push
_FAILED_LOGIN_S = 1.0
_ROOM_S = 60.0  # clients wait for minutes (RFC 5321 4.5.3.2)
_DELAYED_S = 10.0  # as long a client that is too fast is delayed, before it is told

_AWAY = Answer(451, "4.3.0", "The queue can't be reached, try again later")
_HIGH = Answer(452, "4.3.1", "Too many mails are waiting, try again later")
_TOO_FAST = Answer(450, "4.7.1", "Too many mails a second from this address, try again later")
_NO_ROOM = Answer(421, "4.3.1", "Too much is on its way in from all clients, try again later")
_TOO_SLOW = Answer(421, "4.4.2", "Idle for too long")
_LEAVING = Answer(421, "4.3.2", "Going down, try again later")
_STRANGER = Answer(
    554, "5.7.1", "Only clients on this machine may send here (else set door_logins)"
)
_CLEAR_FIRST = Answer(554, "5.7.0", "This port begins in clear, and offers STARTTLS if any TLS")
_NO_HTTP = Answer(554, "5.7.0", "SMTP is spoken here, not HTTP")
_TLS_FIRST = Answer(554, "5.7.0", "This port speaks TLS, from the first byte on")
_GUESSER = Answer(421, "4.7.0", "Too many failed logins from this address, try again later")
_FULL = Answer(421, "4.7.0", "Too many connections, try again later")


class SmtpDoor:
    """Takes mails from SMTP clients, and puts them on the queue."""

    name = "smtp"
    begins_with_tls = False

    def __init__(self, gate: Gate, settings: Settings, tls: SSLContext | None) -> None:
        """Make it ready. Raises ConfigError for logins that can't be read."""
        self.gate = gate
        self.tls = tls
        self.host = settings.helo or socket.gethostname()
        self.idle_s = settings.door_idle_s
        self.max_payload = settings.door_max_mb * _MB
        self._logins = Logins(settings.door_logins) if settings.door_logins else None
        self.demands_login = self._logins is not None
        self._policy = self._usual_policy()
        self.reception = Reception(
            self._converse,
            most=settings.door_connections,
            farewell=_FULL.wire,
            tls=tls if self.begins_with_tls else None,
            in_clear=_TLS_FIRST.wire,
        )

    def start(self, listener: socket.socket) -> None:
        """Accept connections until `stop`."""
        self.reception.start(listener)

    def stop(self, grace_s: float) -> None:
        """Accept no more, answer what is in hand, and leave."""
        self.reception.stop(grace_s)

    def policy_for(self, address: str) -> Policy:
        """Return what a client from `address` ("" for a local socket) may do."""
        policy = replace(
            self._policy,
            check_sender=partial(self._check_sender, address),
            accounts=self._logins.accounts() if self._logins else None,
        )
        if not address or is_loopback(address):
            return policy
        if not policy.accounts:
            return replace(policy, greeting=_STRANGER)
        return replace(policy, in_clear=WITHOUT_SENDING_IT)

    def _usual_policy(self) -> Policy:
        return Policy(
            hostname=self.host,
            starttls=self.tls is not None and not self.begins_with_tls,
            require_auth=self._logins is not None,
            auth_in_clear=True,
            mechanisms=USUAL,
            max_size=(self.max_payload - _ENVELOPE) * 3 // 4,
            max_recipients=MAX_RECIPIENTS,
            max_commands=3 * MAX_RECIPIENTS,
            max_unknown=10,
            max_logins=3,
            check_recipient=_check_recipient,
        )

    def _check_sender(self, client: str, address: str) -> Answer | None:
        if self.gate.pressure == "high":
            return _HIGH
        if self.gate.rates.debt_s(client, time.monotonic()) > _DELAYED_S:
            return _TOO_FAST
        return _objection(address, "5.1.7") if address else None

    def _converse(self, guest: Guest) -> None:
        client = _Client(self, guest)
        try:
            client.run()
        finally:
            client.forget()


class SmtpsDoor(SmtpDoor):
    """The same with TLS from the first byte on (RFC 8314 3.3)."""

    name = "smtps"
    begins_with_tls = True


class _Client(Conversation):
    """What one client says, and the mails that have come and are not on the queue yet."""

    __slots__ = (
        "_address",
        "_came",
        "_delay_s",
        "_door",
        "_failed_logins",
        "_guest",
        "_share",
        "_since",
        "_taken",
    )

    def __init__(self, door: SmtpDoor, guest: Guest) -> None:
        server = Server(door.policy_for(guest.host), is_encrypted=door.begins_with_tls)
        super().__init__(guest.sock, server, door.tls)
        guest.sock.settimeout(door.idle_s)
        self._door = door
        self._guest = guest
        self._address = guest.host
        self._share = door.gate.room.share()
        self._delay_s = 0.0
        self._taken: list[bytes | Answer] = []
        self._failed_logins = 0
        self._came = 0
        self._since = time.monotonic()

    def run(self) -> None:
        """Serve the client until one of the two has had enough, or time is up. Raises OSError."""
        try:
            super().run()
        except TimeoutError:
            self._server.close(_TOO_SLOW)
        if self._door.reception.is_leaving and not self._server.is_closed:
            self._server.close(_LEAVING)
        self._write()
        if self._server.is_cut:
            self._guest.see_out()

    def forget(self) -> None:
        """Forget what had come."""
        self._share.hold(0)

    def _read(self) -> bytes:
        is_begun = self._server.phase not in _AT_REST
        return self._guest.read(BLOCK, self._door.idle_s, is_begun=is_begun)

    def _hear(self, data: bytes) -> None:
        if not self._guest.is_known and (refusal := self._refusal(data)):
            self._server.close(refusal)
            return
        super()._hear(data)
        self._came += len(data)
        if self._came >= _SOME:
            self._note_life()
        elif time.monotonic() - self._since > self._door.idle_s:
            raise TimeoutError
        kept = self._server.kept
        if kept != self._share.bytes:
            self._keep(kept)
        gevent.sleep(0)  # a fast client must not keep the others waiting

    def _refusal(self, data: bytes) -> Answer | None:
        """Return what ends a client that says this, before anything of it is run."""
        door, server = self._door, self._server
        if data.startswith(_CLIENT_HELLO) and server.phase is Phase.NEW and not server.is_encrypted:
            door.reception.note_tls(self._address)
            return _CLEAR_FIRST
        if server.phase is Phase.NEW and data.startswith(_HTTP):
            return _NO_HTTP
        if door.demands_login and door.gate.guesses.wait_s(self._address, time.monotonic()):
            return _GUESSER
        return None

    def _note_life(self) -> None:
        self._came = 0
        self._since = time.monotonic()

    def _keep(self, octets: int) -> None:
        """Hold what has come of a mail; wait for room, for a while."""
        if self._share.hold(octets):
            return
        if not self._share.hold(octets, patience_s=_ROOM_S):
            self._server.close(_NO_ROOM)
            self._share.hold(0)
            self._write()
        self._note_life()

    def _start_tls(self) -> None:
        if self._tls:
            self._guest.encrypt(self._tls, self._door.idle_s)
            self._sock = self._guest.sock

    # Mails

    def _take(self, mail: Mail) -> list[Event]:
        job = self._job_of(mail)
        self._taken.append(job)
        if isinstance(job, bytes):
            rates, now = self._door.gate.rates, time.monotonic()
            self._delay_s = rates.spend(self._address, 1, now)
        return self._server.postpone()

    def _job_of(self, mail: Mail) -> bytes | Answer:
        door = self._door
        origin = self._origin(mail)
        try:
            door.gate.check(submission.outline(mail))
            job = submission.payload(mail, origin, host=door.host, now_s=int(time.time()))
            if len(job) > door.max_payload:
                return TOO_LARGE
        except Refusal as refusal:
            return Answer(554, refusal.enhanced, str(refusal))
        except PayloadError as error:
            return Answer(554, "5.6.0", _ascii(error))
        return job

    def _origin(self, mail: Mail) -> Origin:
        server = self._server
        protocol = submission.protocol(
            is_extended=server.is_extended,
            is_utf8=mail.smtputf8,
            is_encrypted=server.is_encrypted,
            has_login=server.login is not None,
        )
        return Origin(server.helo, self._address or "127.0.0.1", protocol)

    def _write(self) -> bool:
        if self._taken:
            self._push()
        if self._server.failed_logins > self._failed_logins:
            self._note_wrong_password()
        if self._server.login is not None and not self._guest.is_known:
            self._guest.is_known = True
            self._door.gate.guesses.was_right(self._address, time.monotonic())
        has_written = super()._write()
        if has_written:
            self._note_life()
        return has_written

    def _push(self) -> None:
        taken, self._taken = self._taken, []
        # They will soon be gone, room or not.
        self._share.hold(sum(len(each) for each in taken if isinstance(each, bytes)))
        if self._delay_s:
            self._door.reception.leaving.wait(self._delay_s)
            self._delay_s = 0.0
        replies: list[Answer] = []
        for start in range(0, len(taken), _TOGETHER):
            replies += self._pushed(taken[start : start + _TOGETHER])
        self._server.give_postponed(replies)

    def _pushed(self, taken: list[bytes | Answer]) -> list[Answer]:
        """Push some mails; return what is answered to each."""
        jobs = [each for each in taken if isinstance(each, bytes)]
        try:
            ids = iter(self._door.gate.submit(jobs))
        except Refused:
            return [each if isinstance(each, Answer) else _AWAY for each in taken]
        if jobs:
            self._guest.is_known = True
        return [each if isinstance(each, Answer) else _queued(next(ids)) for each in taken]

    def _note_wrong_password(self) -> None:
        """Say so, for whoever watches the log, and be slow: nobody shall try many."""
        wrong = self._server.failed_logins - self._failed_logins
        for _ in range(wrong):
            self._door.gate.guesses.was_wrong(self._address, time.monotonic())
        self._failed_logins = self._server.failed_logins
        times = self._failed_logins
        log.warning("login_failed", door=self._door.name, host=self._address, times=times)
        self._door.reception.leaving.wait(_FAILED_LOGIN_S)


def _queued(job_id: str) -> Answer:
    return Answer(250, "2.0.0", f"Ok: queued as {job_id}")


def _check_recipient(address: str) -> Answer | None:
    return _objection(address, "5.1.3")


def _objection(address: str, enhanced: str) -> Answer | None:
    try:
        check_address(address, "address")
    except PayloadError as error:
        return Answer(553, enhanced, _ascii(error))
    return None


def _ascii(error: Exception) -> str:
    return str(error).encode("ascii", "backslashreplace").decode()
