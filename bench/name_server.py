"""A name server for the benches: a thread that answers from a table, by UDP.

It knows nothing but `domain -> hosts` and `host -> IPv4 address`, and says so about all else: a
domain of the table has those MX records, all of preference 10, and no address.
"""

import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

_TTL_S = 300
_SOA = "ns.invalid. hostmaster.invalid. 1 3600 600 86400 60"


class _Answers:
    """What is known, and the answer to one question."""

    def __init__(self, sites: Mapping[str, Sequence[str]], addresses: Mapping[str, str]) -> None:
        self._sites = sites
        self._addresses = addresses

    def to(self, question: bytes) -> bytes:
        """Return the answer to a question off the wire."""
        query = dns.message.from_wire(question)
        answer = dns.message.make_response(query)
        asked = query.question[0]
        name = asked.name.to_text(omit_final_dot=True).lower()
        records = self._records(name, asked.rdtype)
        if records:
            answer.answer.append(dns.rrset.from_text(asked.name, _TTL_S, "IN", *records))
        else:
            if name not in self._sites and name not in self._addresses:
                answer.set_rcode(dns.rcode.NXDOMAIN)
            answer.authority.append(dns.rrset.from_text(".", 86400, "IN", "SOA", _SOA))
        return answer.to_wire()

    def _records(self, name: str, kind: dns.rdatatype.RdataType) -> list[str]:
        """Return a kind and its records, or nothing."""
        if kind == dns.rdatatype.MX and name in self._sites:
            return ["MX", *(f"10 {host}." for host in self._sites[name])]
        if kind == dns.rdatatype.A and name in self._addresses:
            return ["A", self._addresses[name]]
        return []


@contextmanager
def name_server(sites: Mapping[str, Sequence[str]], addresses: Mapping[str, str]) -> Iterator[str]:
    """Run one with these hosts of domains and addresses of hosts, and give its HOST:PORT."""
    answers = _Answers(sites, addresses)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        own = sock.getsockname()
        thread = threading.Thread(target=_serve, args=(sock, answers), daemon=True)
        thread.start()
        try:
            yield f"{own[0]}:{own[1]}"
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"", own)
            thread.join()


def _serve(sock: socket.socket, answers: _Answers) -> None:
    while True:
        question, whence = sock.recvfrom(4096)
        if not question:
            return
        sock.sendto(answers.to(question), whence)
