"""Where a domain's mail goes, by tables: answers in, a site or the reason why there is none out."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geomail.delivery.dns.site import (
    Answer,
    Mx,
    Said,
    Site,
    Unroutable,
    leads_away,
    mail_domain,
    site_by_address,
    site_by_literal,
    site_by_mx,
    together,
    with_addresses,
)

NOTHING: Answer[str] = Answer(Said.NOTHING)
NO_NAME: Answer[str] = Answer(Said.NO_NAME)
FAILED: Answer[str] = Answer(Said.FAILED, (), 30.0, "SERVFAIL")
THERE: Answer[str] = Answer(Said.RECORDS, ("192.0.2.7",), 300.0)


def mx(*records: str) -> Answer[Mx]:
    split = (record.split() for record in records)
    return Answer(Said.RECORDS, tuple(Mx(int(each[0]), "".join(each[1:])) for each in split), 300.0)


@pytest.mark.parametrize(
    ("records", "name"),
    [
        (["10 mx.example.org"], "mx.example.org"),
        (["20 b.example", "10 a.example"], "a.example,b.example"),
        (["10 a.example", "20 b.example"], "a.example,b.example"),
        (["0 a.example", "65535 b.example"], "a.example,b.example"),
        (["10 b.example", "20 a.example"], "b.example,a.example"),
        (["10 b.example", "10 a.example"], "a.example+b.example"),
        (["10 a.example", "20 a.example", "20 b.example"], "a.example,b.example"),
        (["10 a.example", "10 a.example"], "a.example"),
        (["0 ", "10 a.example"], "a.example"),
        (["5 192.0.2.1", "10 a.example"], "a.example"),
        (["5 a\\.b.example", "7 -a.example", "10 _a.example"], "_a.example"),
    ],
)
def test_the_order_of_preference_is_the_site(records: list[str], name: str) -> None:
    found = site_by_mx("example.org", mx(*records), ())
    assert isinstance(found, Site)
    assert found.name == name
    assert found.hosts == name.replace("+", ",").split(",")


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (mx("0 "), "5.1.10", "takes no mail"),
        (mx("10 "), "5.1.10", "takes no mail"),
        (mx("10 192.0.2.1"), "4.4.4", "names a host"),
        (mx("10 a\\032b.example", "10 ..", "10 -"), "4.4.4", "names a host"),
        (Answer(Said.NO_NAME), "5.1.2", "no domain example.org"),
        (Answer(Said.FAILED, text="127.0.0.1: SERVFAIL"), "4.4.3", "127.0.0.1: SERVFAIL"),
        (mx("10 us.example"), "5.4.6", "us.example"),
        (mx("10 us.example", "10 a.example", "20 b.example"), "5.4.6", "loop"),
    ],
)
def test_no_site_by_mx(answer: Answer[Mx], code: str, words: str) -> None:
    found = site_by_mx("example.org", answer, {"us.example"})
    assert isinstance(found, Unroutable)
    assert (found.code, found.is_permanent) == (code, code[0] == "5")
    assert words in str(found)


def test_without_mx_records_the_addresses_decide() -> None:
    assert site_by_mx("example.org", Answer(Said.NOTHING), ()) is None
    assert site_by_address("example.org", THERE) == Site("example.org", (("example.org",),))


@pytest.mark.parametrize(
    ("answer", "code"), [(NOTHING, "5.4.4"), (NO_NAME, "5.4.4"), (FAILED, "4.4.3")]
)
def test_neither_mx_nor_address(answer: Answer[str], code: str) -> None:
    found = site_by_address("example.org", answer)
    assert isinstance(found, Unroutable)
    assert found.code == code


def test_who_is_an_mx_gives_mail_only_to_those_preferred_to_it() -> None:
    records = mx("5 a.example", "10 us.example", "10 b.example", "20 c.example", "5 d.example")
    found = site_by_mx("example.org", records, {"us.example"})
    assert isinstance(found, Site)
    assert found.groups == (("a.example", "d.example"),)


AB = Site("a.example+b.example,c.example", (("a.example", "b.example"), ("c.example",)))


@pytest.mark.parametrize(
    ("found", "groups"),
    [
        ([THERE, THERE, THERE], AB.groups),
        ([NO_NAME, THERE, NOTHING], (("b.example",),)),
        ([NOTHING, NO_NAME, THERE], (("c.example",),)),
        ([FAILED, THERE, NOTHING], (("a.example", "b.example"),)),
        ([THERE], AB.groups),
        ([NOTHING, FAILED, NOTHING], "4.4.3"),
        ([NOTHING, NO_NAME, NOTHING], "4.4.4"),
    ],
)
def test_hosts_without_an_address_are_left_out(
    found: list[Answer[str]], groups: tuple[tuple[str, ...], ...] | str
) -> None:
    by_host = dict(zip(AB.hosts, found, strict=False))
    site = with_addresses("example.org", AB, by_host)
    if isinstance(site, Site):
        assert site.groups == groups
        assert site.name == AB.name
    else:
        assert site.code == groups


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([THERE, NOTHING], Said.RECORDS),
        ([THERE, FAILED], Said.RECORDS),
        ([NOTHING, FAILED], Said.FAILED),
        ([NO_NAME, NO_NAME], Said.NO_NAME),
        ([NOTHING, NO_NAME], Said.NOTHING),
        ([Answer(Said.RECORDS, ("127.0.0.1",)), NOTHING], Said.NOTHING),
        ([Answer(Said.RECORDS, ("127.0.0.1",)), FAILED], Said.FAILED),
    ],
)
def test_both_kinds_of_addresses(answers: list[Answer[str]], said: Said) -> None:
    assert together(answers, is_at_home=False).said is said


def test_an_address_of_this_machine_is_one_where_that_is_meant() -> None:
    here = Answer(Said.RECORDS, ("127.0.0.2", "127.0.0.2", "192.0.2.7"), 60.0)
    assert together([here, THERE], is_at_home=False).records == ("192.0.2.7",)
    assert together([here], is_at_home=True).records == ("127.0.0.2", "192.0.2.7")


@pytest.mark.parametrize(
    ("address", "away"),
    [
        ("192.0.2.1", True),
        ("10.1.2.3", True),
        ("2001:db8::1", True),
        ("127.0.0.1", False),
        ("127.9.9.9", False),
        ("0.0.0.0", False),
        ("0.1.2.3", False),
        ("169.254.1.1", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:192.0.2.1", True),
        ("fe80::1", False),
        ("ff02::1", False),
    ],
)
def test_addresses_that_bring_the_mail_back(address: str, away: bool) -> None:
    assert leads_away(address) is away


@pytest.mark.parametrize(
    ("recipient", "domain"),
    [
        ("ann@example.org", "example.org"),
        ("ann@EXAMPLE.Org", "example.org"),
        ("ann@example.org.", "example.org"),
        ("ann@bücher.example", "xn--bcher-kva.example"),
        ("ann@BÜCHER.example", "xn--bcher-kva.example"),
        ('"a@b"@example.org', "example.org"),
        ("ann@[192.0.2.1]", "[192.0.2.1]"),
        ("ann@localhost", "localhost"),
    ],
)
def test_the_domain_that_is_asked_for(recipient: str, domain: str) -> None:
    assert mail_domain(recipient) == domain


@pytest.mark.parametrize(
    ("recipient", "code"),
    [
        ("ann@a..b", "5.1.2"),
        ("ann@.a", "5.1.2"),
        ("ann@" + "a" * 64 + ".example", "5.1.2"),
        ("ann@" + "a." * 124 + "example", "5.1.2"),
        ("ann", "5.1.3"),
        ("ann@" + "ü" * 64, "5.1.3"),
    ],
)
def test_what_is_no_domain(recipient: str, code: str) -> None:
    found = mail_domain(recipient)
    assert isinstance(found, Unroutable)
    assert found.code == code


@pytest.mark.parametrize(
    ("domain", "host"),
    [
        ("[192.0.2.1]", "192.0.2.1"),
        ("[IPv6:2001:DB8::1]", "2001:db8::1"),
        ("[ipv6:2001:db8::2]", "2001:db8::2"),
        ("[192.0.2.999]", None),
        ("[IPv6:192.0.2.1]", None),
        ("[2001:db8::1]", None),
        ("[IPv6:xyz]", None),
        ("[]", None),
    ],
)
def test_address_literals(domain: str, host: str | None) -> None:
    found = site_by_literal(domain)
    if host is None:
        assert isinstance(found, Unroutable)
        assert found.code == "5.1.3"
    else:
        assert isinstance(found, Site)
        assert found.hosts == [host]


@pytest.mark.parametrize("domain", ["[127.0.0.1]", "[IPv6:::1]", "[0.0.0.0]", "[224.0.0.1]"])
def test_a_literal_that_is_this_machine(domain: str) -> None:
    refused = site_by_literal(domain)
    assert isinstance(refused, Unroutable)
    assert refused.code == "5.4.6"
    assert isinstance(site_by_literal(domain, is_at_home=True), Site)


def test_a_name_is_no_literal() -> None:
    assert site_by_literal("example.org") is None


GROUPS = st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=6), min_size=1, max_size=4)


@given(groups=GROUPS, lot=st.integers(0, 2**64 - 1))
def test_a_lot_shuffles_equals_only(groups: list[list[int]], lot: int) -> None:
    named = tuple(tuple(f"h{i}-{at}" for at in range(len(group))) for i, group in enumerate(groups))
    ordered = Site("x", named).in_order(lot)
    for group in named:
        assert set(ordered[: len(group)]) == set(group)
        del ordered[: len(group)]
    assert ordered == []


def test_each_order_of_equals_is_drawn_as_often() -> None:
    site = Site("x", (("a", "b", "c"), ("d", "e")))
    drawn = Counter(tuple(site.in_order(lot)) for lot in range(12 * 5))
    assert len(drawn) == 12
    assert set(drawn.values()) == {5}


def test_a_long_name_is_short_and_the_same_everywhere() -> None:
    hosts = [f"10 alt{i}.mail-of-somebody-big.example" for i in range(6)]
    one = site_by_mx("one.example", mx(*hosts), ())
    other = site_by_mx("other.example", mx(*reversed(hosts)), ())
    less = site_by_mx("less.example", mx(*hosts[1:]), ())
    assert isinstance(one, Site)
    assert isinstance(less, Site)
    assert one == other
    assert one.name.startswith("alt0.mail-of-somebody-big.example~")
    assert len(one.name) <= 80
    assert one.name != less.name


def test_a_host_is_bounded_in_what_it_can_make_us_hold() -> None:
    found = site_by_mx("big.example", mx(*(f"{i} h{i}.example" for i in range(4000))), ())
    assert isinstance(found, Site)
    assert len(found.hosts) == 64
    assert found.hosts[0] == "h0.example"
