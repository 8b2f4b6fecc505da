"""Addresses in payloads: every form that producers write, and what is none."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from payloads import A, as_json, mail, reason
from test_phpserialize import written

from geomail.errors import PayloadError
from geomail.job import Address, Email, decode

ADDRESSES: list[tuple[object, list[Address]]] = [
    ("a@x", [A]),
    (" a@x ", [A]),
    ("<a@x>", [A]),
    ("Ann <a@x>", [Address("a@x", "Ann")]),
    ("Ann Lee<a@x>", [Address("a@x", "Ann Lee")]),
    ('"Doe, Jane" <j@x>, bo@y,', [Address("j@x", "Doe, Jane"), Address("bo@y")]),
    (r'"Q \"q\" \\" <a@x>', [Address("a@x", r'Q "q" \ '.strip())]),
    ("Ann Müller <ann@bücher.example>", [Address("ann@bücher.example", "Ann Müller")]),
    (["a@x", "Bo <b@y>"], [A, Address("b@y", "Bo")]),
    (["a@x, b@y"], [A, Address("b@y")]),
    (
        {"a@x": "Ann", "b@y": None, "c@z": ""},
        [Address("a@x", "Ann"), *map(Address, ["b@y", "c@z"])],
    ),
    ({"email": "a@x", "name": "Ann"}, [Address("a@x", "Ann")]),
    ({"email": "a@x"}, [A]),
    ([{"email": "a@x", "name": None}, {"b@y": "Bo"}], [A, Address("b@y", "Bo")]),
    ({"0": "a@x", "b@y": "Bo"}, [A, Address("b@y", "Bo")]),
    ({"1": "a@x", "0": {"email": "b@y"}}, [A, Address("b@y")]),
    ("xxx.@x.example", [Address("xxx.@x.example")]),
    ("a..b@x.example", [Address("a..b@x.example")]),
    ("用户@例子.广告", [Address("用户@例子.广告")]),
    ('"a@b,c"@x', [Address('"a@b,c"@x')]),
    ("a@[192.0.2.1]", [Address("a@[192.0.2.1]")]),
    ("a@[IPv6:2001:db8::1]", [Address("a@[IPv6:2001:db8::1]")]),
    (f"{'l' * 64}@x", [Address(f"{'l' * 64}@x")]),
]

NO_ADDRESS: list[tuple[object, str]] = [
    ("ann", "to: 'ann' is not an address: it has no @"),
    ("Doe, Jane <j@x>", "to: 'Doe' is not an address: it has no @ (a name with a comma goes in"),
    ("@x", "1 to 64 octets before the @"),
    (f"{'l' * 65}@x", "1 to 64 octets before the @"),
    (f"{'é' * 33}@x", "1 to 64 octets before the @"),
    ("a@", "1 to 255 octets after the @"),
    (f"a@{'d.' * 128}d", "1 to 255 octets after the @"),
    (f"a@{'d' * 64}.x", "longer than 63 characters"),
    ("a@x..y", "what stands after the @ is no domain"),
    ("a@.x", "what stands after the @ is no domain"),
    ("a@x.", "what stands after the @ is no domain"),
    ("a@x;b@y", "needs quotes"),
    ("a@b@x", "needs quotes"),
    ("a b@x", "to: 'a b@x' is not an address: U+0020 (' ') at 1 can't be in one"),
    ("a@x\r\nBcc: b@y", "to: control character U+000D at 3 in 'a@x\\r\\nBcc: b@y'"),
    ("a@x\n", "to: control character U+000A at 3"),
    ("a\x00@x", "to: control character U+0000 at 1"),
    ("a\x7f@x", "to: control character U+007F at 1"),
    ("a\u2028@x", "U+2028"),
    ("a\xa0@x", "U+00A0"),
    ("A\tB <a@x>", "to: control character U+0009"),
    ({"a@x\r\nRCPT TO:<b@y>": "n"}, "U+000D ('\\r') at 3 can't be in one"),
    ({"a@x>": "n"}, "U+003E ('>') at 3 can't be in one"),
    ({"a@x,b@y": "n"}, "needs quotes"),
    ({"a@x": "A\nBcc: b@y"}, "to: the name of a@x: control character U+000A at 1"),
    ({"a@x": ["n"]}, "to: the name of a@x: text expected, not a list"),
    ({"name": "Ann"}, "to: an entry with `email` and `name` expected, `email` is missing"),
    ([["a@x"]], "to: an address in each entry expected, not a list"),
    ([5], "to: an address in each entry expected, not a number: 5"),
    ([None], "to: an address in each entry expected, not null"),
    ({"0": {"name": "Ann"}}, "`email` is missing"),
    ({"email": ["a@x"]}, "to.email: an address expected, not a list"),
    ('"Ann <a@x>', 'to: unclosed "'),
    ("Ann <a@x", "to: unclosed <"),
    (True, "to: an address or a list of addresses expected, not a boolean: True"),
    (7, "to: an address or a list of addresses expected, not a number: 7"),
    (" , ", "no recipient: `to`, `cc` and `bcc` are empty"),
    ("a@x" + "," * 1_000_000, "to: more than 1,000,000 characters of addresses"),
    ("", "no recipient"),
    (None, "no recipient"),
    ([], "no recipient"),
    ({}, "no recipient"),
    ([f"a{n}@x" for n in range(10_000)], "to: more than 1,000 recipients: push several jobs"),
    (",".join(f"a{n}@x" for n in range(10_000)), "to: more than 1,000 recipients"),
    ({f"a{n}@x": "" for n in range(10_000)}, "to: more than 1,000 recipients"),
]


class TestAddresses:
    @pytest.mark.parametrize(("value", "expected"), ADDRESSES)
    def test_forms(self, value: object, expected: list[Address]) -> None:
        assert mail(to=value).to == expected

    @pytest.mark.parametrize(("value", "expected"), NO_ADDRESS)
    def test_refused(self, value: object, expected: str) -> None:
        assert expected in reason(as_json({"to": value}))
        assert expected in reason(written({"to": value}))

    def test_1000_recipients_are_taken_in_all_fields_together(self) -> None:
        many = [f"a{n}@x" for n in range(500)]
        others = [f"b{n}@x" for n in range(500)]
        assert len(mail(to=many, bcc=others, cc=many).recipients) == 1000
        text = reason(as_json({"to": many, "cc": others, "bcc": "c@x"}))
        assert text.startswith("to, cc and bcc together: more than 1,000 recipients")

    def test_the_envelope_has_each_mailbox_once_first_wins(self) -> None:
        job = mail(to=["a@X.org", "A@x.org"], cc="b@y, a@x.ORG", bcc="b@y")
        assert job.recipients == ["a@X.org", "A@x.org", "b@y"]
        assert [to.addr for to in job.cc] == ["b@y", "a@x.ORG"]

    def test_rcpt_to_is_the_envelope(self) -> None:
        job = mail(to="list@x", rcpt_to=["a@y", "b@y"], mail_from="bounce@x")
        assert (job.recipients, job.mail_from) == (["a@y", "b@y"], "bounce@x")

    def test_return_path_may_be_null(self) -> None:
        assert mail(return_path="<>").return_path == ""
        assert mail(return_path="").return_path is None


PIECES = st.sampled_from(
    ["a@x", "Ann", "<", ">", ",", '"', "\\", " ", "é", "@", "\r\n", "\x00", "=", "1", "ü.example"]
)


@given(st.lists(PIECES).map("".join))
def test_what_is_taken_as_an_address_is_safe_in_a_command(text: str) -> None:
    for value in (text, {text: "n"}, {"email": text}):
        with contextlib.suppress(PayloadError):
            job = decode(as_json({"to": value}))
            assert isinstance(job, Email)
            for addr in job.recipients:
                assert not set(addr) & set("<> \r\n\0\t")
                local, at, domain = addr.rpartition("@")
                assert at
                assert 1 <= len(local.encode()) <= 64
                assert "," not in domain
                assert local.startswith('"') or not set(local) & set('",\\@')
