"""Names: looked up once, and the connection goes to what was looked at; real name servers."""

import os
import time
from collections.abc import Iterator

import dns.message
import gevent
import pytest
from dns_host import DnsHost, dns_host
from web_host import at_home, leads_to, says, web_host

from geomail.carriers import names as room
from geomail.carriers.names import Names
from geomail.delivery.dns.site import Answer, Said
from geomail.delivery.outcome import Blame, Fate
from geomail.job.kinds import HttpTask


@pytest.fixture
def named() -> Iterator[DnsHost]:
    """Run a name server: `here` may be gone to, `inside` may not."""
    with dns_host(
        "here.example 0 A 127.0.0.1",
        "inside.example 0 A 127.0.0.2",
        "mixed.example 0 A 127.0.0.1",
        "mixed.example 0 A 127.0.0.2",
        "six.example 0 A 127.0.0.1",
        "six.example 0 AAAA ::ffff:127.0.0.2",
        "four.example 0 A 127.0.0.2",
        "four.example 0 AAAA ::ffff:127.0.0.1",
        "alias.example 0 CNAME inside.example.",
        "hosts.example 0 MX 1 here.example.",
    ) as host:
        yield host


_ALLOWED: dict[str, object] = {"url_networks": ("127.0.0.1/32",)}


@pytest.mark.parametrize("name", ["inside", "mixed", "six", "four", "alias", "INSIDE"])
def test_every_address_has_to_be_allowed(named: DnsHost, name: str) -> None:
    with (
        web_host() as here,
        web_host(address="127.0.0.2") as inside,
        at_home(nameservers=(named.address,), **_ALLOWED) as requests,
    ):
        for host in (here, inside):
            task = HttpTask(host.url(host=f"{name}.example"))
            assert requests.reason_against(task) is None
            outcome = requests.fetch(task, job_id="1").outcome
            assert outcome.fate is Fate.NEVER
            assert outcome.text.startswith(f"{name.lower()}.example leads to ")
    assert here.accepts == inside.accepts == 0


def test_redirect_to_a_name_inside_is_refused(named: DnsHost) -> None:
    with (
        web_host(address="127.0.0.2") as inside,
        web_host(leads_to(inside.url(host="inside.example"))) as here,
        at_home(nameservers=(named.address,), **_ALLOWED) as requests,
    ):
        outcome = requests.fetch(HttpTask(here.url(host="here.example")), job_id="1").outcome
    assert outcome.fate is Fate.NEVER
    assert "127.0.0.2" in outcome.text
    assert (here.accepts, inside.accepts) == (1, 0)


class _Rebinding(DnsHost):
    """Answers each question for an address with the other one of two."""

    def _answer(self, query: dns.message.Message) -> dns.message.Message:
        self._records.clear()
        self.add(f"turns.example 0 A 127.0.0.{1 + len(self.asked) // 2 % 2}")
        return super()._answer(query)


def test_rebinding_leads_nowhere() -> None:
    """What was looked at is what is connected to, though the name means another place already."""
    server = _Rebinding()
    closes = says(200, b"", "Connection: close")
    try:
        with (
            web_host(closes) as here,
            web_host(closes, address="127.0.0.2") as inside,
            at_home(nameservers=(server.address,), **_ALLOWED) as requests,
        ):
            tasks = [HttpTask(host.url(host="turns.example")) for host in (here, inside)]
            fates = [
                requests.fetch(task, job_id="1").outcome.fate for task in tasks for _ in range(4)
            ]
    finally:
        server.stop()
    assert fates == [Fate.DELIVERED, Fate.NEVER] * 2 + [Fate.LATER, Fate.NEVER] * 2
    assert (here.accepts, inside.accepts) == (2, 0)


def test_kept_connection_asks_nobody(named: DnsHost) -> None:
    with web_host() as here, at_home(nameservers=(named.address,), **_ALLOWED) as requests:
        for _ in range(5):
            answer = requests.fetch(HttpTask(here.url(host="here.example")), job_id="1")
            assert answer.outcome.fate is Fate.DELIVERED
    assert named.asked == ["A here.example", "AAAA here.example"]
    assert here.accepts == 1
    assert here.asked[0].header("Host") == f"here.example:{here.port}"


@pytest.mark.parametrize("name", ["servfail.example", "nowhere.example", "hosts.example"])
def test_name_without_an_address_is_asked_again_later(named: DnsHost, name: str) -> None:
    with at_home(nameservers=(named.address,)) as requests:
        outcome = requests.fetch(HttpTask(f"http://{name}/"), job_id="1").outcome
    assert (outcome.fate, outcome.blame) == (Fate.LATER, Blame.HOST)
    assert outcome.text.startswith(f"{name}: its address was not found: ")


def test_silent_server_costs_the_deadline(named: DnsHost) -> None:
    with at_home(nameservers=(named.address,), url_connect_s=0.3) as requests:
        began = time.monotonic()
        outcome = requests.fetch(HttpTask("http://dead.example/"), job_id="1").outcome
        assert time.monotonic() - began < 5
    assert outcome.text == "dead.example:80: no address within 0.3 s"
    assert (outcome.fate, outcome.blame) == (Fate.LATER, Blame.HOST)


@pytest.mark.parametrize("is_system", [True, False])
def test_one_question_is_asked_for_many(named: DnsHost, is_system: bool) -> None:
    names, name = (Names(), "localhost") if is_system else (Names([named.address]), "here.example")
    lookups = [gevent.spawn(names.addresses, name) for _ in range(50)]
    found = [lookup.get(timeout=20) for lookup in lookups]
    assert all(each is found[0] for each in found)
    assert found[0].said is Said.RECORDS
    assert "127.0.0.1" in found[0].records
    assert names.addresses(name) is not found[0]
    assert len(named.asked) == (0 if is_system else 4)


def test_slow_lookups_keep_no_thread_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's own threads, which the look-ups of relays use, are free meanwhile."""
    held, let_go = os.pipe()
    monkeypatch.setattr(
        room, "_look_up", lambda _host: Answer(Said.NOTHING, (str(os.read(held, 1)),))
    )
    names = Names()
    waiting = [gevent.spawn(names.addresses, f"{n}.example") for n in range(60)]
    gevent.sleep(0)
    with gevent.Timeout(20):
        assert gevent.get_hub().threadpool.apply(int, ("7",)) == 7
    assert not any(lookup.ready() for lookup in waiting)
    os.write(let_go, bytes(60))
    assert len(gevent.joinall(waiting, timeout=20)) == 60
    os.close(held)
    os.close(let_go)


def test_a_flood_of_dead_names_is_in_no_known_names_way(monkeypatch: pytest.MonkeyPatch) -> None:
    held, let_go = os.pipe()

    def look_up(host: str) -> Answer[str]:
        is_dead = host.startswith("dead")
        return Answer(Said.RECORDS, (str(os.read(held, 1)) if is_dead else "127.0.0.1",))

    monkeypatch.setattr(room, "_look_up", look_up)
    names = Names()
    assert names.addresses("here.example").records == ("127.0.0.1",)
    waiting = [gevent.spawn(names.addresses, f"dead{n}.example") for n in range(40)]
    gevent.sleep(0)
    with gevent.Timeout(20):
        for _ in range(3):
            assert names.addresses("here.example").records == ("127.0.0.1",)
    asked = gevent.with_timeout(0.2, names.addresses, "new.example", timeout_value=None)
    assert asked is None, "it had a thread"
    os.write(let_go, bytes(40))
    assert len(gevent.joinall(waiting, timeout=20)) == 40
    with gevent.Timeout(20):
        assert names.addresses("new.example").records == ("127.0.0.1",)
    os.close(held)
    os.close(let_go)


def test_a_name_that_falls_silent_is_known_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though nobody has waited for the end of the question."""
    held, let_go = os.pipe()
    answers: list[Answer[str]] = [Answer(Said.RECORDS, ("127.0.0.1",)), Answer(Said.FAILED)]

    def look_up(_host: str) -> Answer[str]:
        os.read(held, 1)
        return answers.pop(0)

    monkeypatch.setattr(room, "_look_up", look_up)
    names = Names()
    os.write(let_go, b"1")
    assert gevent.with_timeout(20, names.addresses, "dead.example").said is Said.RECORDS
    assert "dead.example" in names._known
    assert gevent.with_timeout(0.1, names.addresses, "dead.example", timeout_value=None) is None
    os.write(let_go, b"1")
    with gevent.Timeout(20):
        while "dead.example" in names._known:
            gevent.sleep(0.01)
    os.close(held)
    os.close(let_go)


def test_addresses_are_not_looked_up(named: DnsHost) -> None:
    with web_host() as host, at_home(nameservers=(named.address,)) as requests:
        assert requests.fetch(HttpTask(host.url()), job_id="1").outcome.fate is Fate.DELIVERED
        outcome = requests.fetch(HttpTask(host.url(host="[::1]")), job_id="1").outcome
    assert outcome.fate is Fate.LATER
    assert named.asked == []
