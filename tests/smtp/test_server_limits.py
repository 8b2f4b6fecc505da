"""What a server takes of a client that brings no mail: so many commands, verbs, and passwords."""

import base64

import pytest
from server_talk import Talk, codes, greeted

from geomail.smtp.accounts import Accounts
from geomail.smtp.policy import Policy

ACCOUNTS = Accounts(passwords={"ann": "secret"}, nonce=lambda: "chance")
MAIL = b"MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n.\r\n"


def plain(password: str) -> bytes:
    return b"AUTH PLAIN " + base64.b64encode(f"\0ann\0{password}".encode()) + b"\r\n"


@pytest.mark.parametrize(
    ("command", "code"),
    [(b"NOOP", 250), (b"RSET", 250), (b"what", 500), (b"RCPT TO:<x>", 503), (b"HELO x", 250)],
)
def test_commands_without_a_mail(command: bytes, code: int) -> None:
    talk = greeted(Policy(max_commands=10))
    assert talk.codes((command + b"\r\n") * 20) == [*[code] * 9, 421]
    assert talk.server.is_closed


def test_a_mail_begins_the_count_anew() -> None:
    talk = greeted(Policy(max_commands=5))
    for _ in range(5):
        assert talk.codes(MAIL)[-1] == 250
    assert not talk.server.is_closed


def test_another_protocol() -> None:
    talk = greeted(Policy(max_unknown=3))
    request = b"POST / HTTP/1.1\r\nHost: me\r\nAccept: */*\r\n\r\n" + MAIL
    assert talk.codes(request) == [500, 500, 500, 421]
    assert talk.mails == []


def test_wrong_passwords() -> None:
    policy = Policy(accounts=ACCOUNTS, auth_in_clear=True, max_logins=3)
    talk = greeted(policy)
    assert talk.codes(plain("one") + plain("two")) == [535, 535]
    assert talk.server.failed_logins == 2
    assert talk.codes(plain("three") + plain("secret")) == [535, 421]
    assert talk.server.is_closed


def test_a_right_password_behind_a_wrong_one() -> None:
    policy = Policy(accounts=ACCOUNTS, auth_in_clear=True, max_logins=2)
    talk = greeted(policy)
    assert talk.codes(plain("one") + plain("secret")) == [535, 235]
    assert talk.server.login == "ann"


def test_in_clear_only_what_shows_no_password() -> None:
    policy = Policy(accounts=ACCOUNTS, auth_in_clear=True, in_clear="SCRAM-SHA-256 CRAM-MD5")
    talk = greeted(policy)
    assert b"AUTH SCRAM-SHA-256 CRAM-MD5\r\n" in talk.said
    assert talk.codes(plain("secret") + b"AUTH LOGIN\r\nAUTH OTHER\r\n") == [538, 538, 504]
    assert talk.codes(b"AUTH CRAM-MD5\r\n*\r\n") == [334, 501]
    talk = greeted(policy, is_encrypted=True)
    assert b"AUTH PLAIN LOGIN SCRAM-SHA-256 CRAM-MD5\r\n" in talk.said
    assert talk.codes(plain("secret")) == [235]


def test_how_a_client_said_hello() -> None:
    talk = Talk()
    assert codes(talk.send(b"EHLO me\r\n")) == [250]
    assert talk.server.is_extended
    assert codes(talk.send(b"HELO me\r\n")) == [250]
    assert not talk.server.is_extended
