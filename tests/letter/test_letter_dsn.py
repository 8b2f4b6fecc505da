"""What a letter asks of delivery reports, as MAIL and RCPT will say it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from letters import write

from geomail.job import Dsn, Email, RecipientDsn
from geomail.letter.dsn import xtext


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        (None, None),
        (Dsn(ret="HDRS", envid="x+y"), ("RET=HDRS ENVID=x+2By", "")),
        (Dsn(("SUCCESS", "FAILURE")), ("", "NOTIFY=SUCCESS,FAILURE")),
        (Dsn(("NEVER",), "FULL"), ("RET=FULL", "NOTIFY=NEVER")),
        (Dsn(envid="a b=c"), ("ENVID=a+20b+3Dc", "")),
    ],
)
def test_parameters(dsn: Dsn | None, expected: tuple[str, str] | None) -> None:
    composed = write(Email(recipients=["a@x.org"], dsn=dsn))
    finished = write(Email(recipients=["a@x.org"], raw=b"A: b\r\n\r\n", dsn=dsn))
    assert composed.dsn == finished.dsn == expected


TWO = ["a@x.org", "b@ü.org"]
OF_EACH = {"b@ü.org": RecipientDsn(("NEVER",), "rfc822;o+ri@y.org"), "c@z.org": RecipientDsn()}


def test_what_differs_for_a_recipient() -> None:
    email = Email(recipients=TWO, raw=b"A: b\r\n\r\n", dsn=Dsn(("DELAY",), "FULL", each=OF_EACH))
    all_of_b = "NOTIFY=NEVER ORCPT=rfc822;o+2Bri@y.org"
    assert write(email).dsn == ("RET=FULL", "NOTIFY=DELAY", all_of_b)
    assert write(email, recipients=["b@ü.org"]).dsn == ("RET=FULL", all_of_b)
    assert write(email, recipients=["a@x.org"]).dsn == ("RET=FULL", "NOTIFY=DELAY")


def test_who_gets_all_mail_is_nobody_of_them() -> None:
    email = Email(recipients=TWO, raw=b"A: b\r\n\r\n", dsn=Dsn(("DELAY",), each=OF_EACH))
    redirected = write(email, redirect_to="me@x.org")
    assert (redirected.recipients, redirected.dsn) == (("me@x.org",), ("", "NOTIFY=DELAY"))


def test_reports_are_no_part_of_the_message() -> None:
    asks = Email(recipients=["a@x.org"], dsn=Dsn(("NEVER",), "FULL", "4711"))
    assert write(asks).content == write(Email(recipients=["a@x.org"])).content


@given(st.text(st.characters(max_codepoint=0x17F)))
def test_xtext_is_one_word_and_comes_back(text: str) -> None:
    coded = xtext(text)
    assert re.fullmatch(r"(?:[!-*,-;?-~]|\+[0-9A-F]{2})*", coded)
    back = re.sub(r"\+(..)", lambda found: chr(int(found[1], 16)), coded)
    assert back.encode("latin-1").decode() == text
