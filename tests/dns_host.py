"""A DNS server on loopback, UDP and TCP, that answers from a table and misbehaves by name.

A zone is a list of lines as in a zone file: `example.org 300 MX 10 mx.example.org`. CNAMEs are
followed in the answer, as a recursive server does. What is asked for is written down.

Names that begin so are answered in another way, whatever the table says:
    dead.       not at all                  slow.       after 0.3 s
    servfail.   SERVFAIL                    refused.    REFUSED
    cut.        by UDP: cut short           hollow.     cut short by TCP too
    number.     first with another number   other.      first about another name
    forged.     first from another port     noise.      with bytes that are no message
    shut.       cut short by UDP, and TCP hangs up
    lame.       with the name of a server that might know
"""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import gevent
from gevent.server import DatagramServer, StreamServer

_SOA = "ns.invalid. hostmaster.invalid. 1 3600 600 86400 {minimum}"


class DnsHost:
    """The server; `asked` lists the questions that came, `by_tcp` those that came by TCP."""

    def __init__(self, zone: Sequence[str] = (), *, negative_ttl_s: int = 60) -> None:
        self.asked: list[str] = []
        self.by_tcp: list[str] = []
        self.at_once = self.most_at_once = 0
        self._negative_ttl_s = negative_ttl_s
        self._is_healed = False
        self._records: dict[tuple[dns.name.Name, dns.rdatatype.RdataType], dns.rrset.RRset] = {}
        for line in zone:
            self.add(line)
        by_udp, by_tcp = _one_port()
        self.address: tuple[str, int] = by_udp.getsockname()
        self._udp = DatagramServer(by_udp, self._on_datagram)  # type: ignore[arg-type]
        self._tcp = StreamServer(by_tcp, self._on_connection)
        self._udp.start()
        self._tcp.start()

    def add(self, line: str) -> None:
        """Add one record."""
        name, ttl, kind, data = line.split(None, 3)
        owner = dns.name.from_text(name)
        new = dns.rrset.from_text(owner, int(ttl), "IN", kind, data)
        held = self._records.setdefault((owner, new.rdtype), new)
        for record in new:
            held.add(record)

    def heal(self) -> None:
        """Misbehave no more."""
        self._is_healed = True

    def stop(self) -> None:
        """Answer no more."""
        self._udp.stop()
        self._tcp.stop()

    def _on_datagram(self, data: bytes, whence: tuple[str, int]) -> None:
        gevent.spawn(self._answer_datagram, data, whence)

    def _answer_datagram(self, data: bytes, whence: tuple[str, int]) -> None:
        for wire, is_from_here in self._answers(data, is_tcp=False):
            if is_from_here:
                self._udp.sendto(wire, whence)
            else:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as elsewhere:
                    elsewhere.sendto(wire, whence)

    def _on_connection(self, connection: socket.socket, _whence: object) -> None:
        with connection, connection.makefile("rb") as stream:
            while header := stream.read(2):
                data = stream.read(int.from_bytes(header, "big"))
                answers = list(self._answers(data, is_tcp=True))
                if not answers:
                    return
                for wire, _ in answers:
                    connection.sendall(len(wire).to_bytes(2, "big") + wire)

    def _answers(self, data: bytes, *, is_tcp: bool) -> Iterator[tuple[bytes, bool]]:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True)
        self.asked.append(f"{dns.rdatatype.to_text(question.rdtype)} {name}")
        if is_tcp:
            self.by_tcp.append(self.asked[-1])
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            yield from self._in_its_way(name.partition(".")[0], query, is_tcp=is_tcp)
        finally:
            self.at_once -= 1

    def _in_its_way(
        self, way: str, query: dns.message.Message, *, is_tcp: bool
    ) -> Iterator[tuple[bytes, bool]]:
        answer = self._answer(query)
        if self._is_healed:
            way = ""
        if way == "dead" or (way == "shut" and is_tcp):
            return
        if way in ("servfail", "refused"):
            answer = dns.message.make_response(query)
            answer.set_rcode(dns.rcode.from_text(way))
        elif way == "slow":
            gevent.sleep(0.3)
        elif way == "number":
            yield self._lie(query, id=query.id ^ 1), True
        elif way == "other":
            yield self._lie(query, name="elsewhere.example"), True
        elif way == "forged":
            yield self._lie(query), False
        elif way == "noise":
            yield b"\x00 no message", True
            yield b"", True
        elif way == "hollow" or (way in ("cut", "shut") and not is_tcp):
            answer = dns.message.make_response(query)
            answer.flags |= dns.flags.TC
        elif way == "lame":
            answer = dns.message.make_response(query)
            answer.authority.append(dns.rrset.from_text("example.", 60, "IN", "NS", "ns.example."))
        yield answer.to_wire(max_size=65535), True

    def _lie(self, query: dns.message.Message, *, id: int | None = None, name: str = "") -> bytes:  # noqa: A002
        asked = query.question[0]
        owner = dns.name.from_text(name) if name else asked.name
        lie = dns.message.make_response(
            dns.message.make_query(owner, asked.rdtype, id=query.id if id is None else id)
        )
        data = {"MX": "1 lie.example.", "A": "127.0.0.66"}.get(dns.rdatatype.to_text(asked.rdtype))
        if data is not None:
            lie.answer.append(dns.rrset.from_text(owner, 300, "IN", asked.rdtype, data))
        return lie.to_wire()

    def _answer(self, query: dns.message.Message) -> dns.message.Message:
        answer = dns.message.make_response(query)
        name, kind = query.question[0].name, query.question[0].rdtype
        for _ in range(20):
            alias = self._records.get((name, dns.rdatatype.CNAME))
            if alias is None:
                break
            answer.answer.append(alias)
            name = alias[0].target
        found = self._records.get((name, kind))
        if found is not None:
            answer.answer.append(found)
            return answer
        if not any(owner == name for owner, _ in self._records):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        soa = _SOA.format(minimum=self._negative_ttl_s)
        answer.authority.append(dns.rrset.from_text(".", 86400, "IN", "SOA", soa))
        return answer


def _one_port() -> tuple[socket.socket, socket.socket]:
    """Return sockets for UDP and TCP that have the same port."""
    while True:
        by_udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        by_tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        by_tcp.bind(("127.0.0.1", 0))
        try:
            by_udp.bind(by_tcp.getsockname())
        except OSError:  # somebody else's
            by_udp.close()
            by_tcp.close()
        else:
            by_tcp.listen()
            return by_udp, by_tcp


@contextmanager
def dns_host(*zone: str, negative_ttl_s: int = 60) -> Iterator[DnsHost]:
    """Run a server with these records."""
    host = DnsHost(zone, negative_ttl_s=negative_ttl_s)
    try:
        yield host
    finally:
        host.stop()
