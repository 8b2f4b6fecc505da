"""Our client logs in to our server by every mechanism, with the right secret and with wrong ones.

No socket: what one writes, the other reads. Both sides were made from the RFCs, and their vectors
are tested elsewhere; here it shows that they understand each other, and that neither talks on.
"""

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geomail.smtp import events
from geomail.smtp.accounts import Accounts
from geomail.smtp.auth import MECHANISMS, Login
from geomail.smtp.client import Client
from geomail.smtp.events import Cause, Event, Lost, Ready
from geomail.smtp.policy import Policy
from geomail.smtp.saslprep import prepared
from geomail.smtp.server import Server

USER, PASSWORD, TOKEN = "ann@example.com", "pass wörd", "ya29.vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGE="
RIGHT, WRONG = Login(USER, PASSWORD), Login(USER, PASSWORD + "x")
BEARER, STALE = Login(USER, token=TOKEN), Login(USER, token=TOKEN[:-2])
BY_TOKEN = ("OAUTHBEARER", "XOAUTH2")
BY_PASSWORD = tuple(name for name in MECHANISMS if name not in BY_TOKEN)
MOST_TURNS = 12


def accounts(user: str = USER, password: str = PASSWORD, token: str = TOKEN) -> Accounts:
    """Return one account; its nonces are numbers, which nobody tries to foresee here."""
    numbers = count(1)
    return Accounts(
        passwords={user: password}, tokens={user: token}, nonce=lambda: f"n{next(numbers)}"
    )


class Together:
    """A client and a server, and what they said up to the login's end."""

    def __init__(self, policy: Policy, login: Login, *, is_encrypted: bool = True) -> None:
        said = events.Policy(
            "client.example", login=login, nonce="fyko", auth_in_clear=not is_encrypted
        )
        self.server = Server(policy, is_encrypted=is_encrypted)
        self.client = Client(said, under_tls=is_encrypted)
        self.commands: list[str] = []
        self.events: list[Event] = []
        for _ in range(MOST_TURNS):
            self.events += self.client.receive(self.server.output())
            command = self.client.output()
            if not command:
                return
            self.commands.append(command.decode().rstrip())
            self.server.receive(command)
        raise AssertionError(f"they talk for ever: {self.commands}")

    @property
    def lost(self) -> Lost:
        """The one event of a login that failed."""
        [event] = self.events
        assert isinstance(event, Lost)
        return event

    @property
    def mechanisms(self) -> list[str]:
        """What the client tried, in order."""
        return [line.split()[1] for line in self.commands if line.startswith("AUTH ")]


def policy(mechanism: str, *, in_clear: bool = False, known: Accounts | None = None) -> Policy:
    """Return a server that offers one mechanism."""
    return Policy(accounts=known or accounts(), mechanisms=mechanism, auth_in_clear=in_clear)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_the_right_secret_gets_in(mechanism: str) -> None:
    both = Together(policy(mechanism), BEARER if mechanism in BY_TOKEN else RIGHT)
    assert both.events == [Ready()]
    assert both.client.mechanism == mechanism
    assert both.server.login == USER
    assert both.mechanisms == [mechanism]


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_wrong_one_does_not(mechanism: str) -> None:
    both = Together(policy(mechanism), STALE if mechanism in BY_TOKEN else WRONG)
    assert both.lost.cause is Cause.LOGIN
    assert both.lost.text.startswith("535 5.7.8 ")
    assert both.lost.text.endswith("(status invalid_token)") == (mechanism in BY_TOKEN)
    assert both.server.login is None
    assert both.client.mechanism is None
    assert both.mechanisms == [mechanism]


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_nor_does_somebody_who_is_not_known(mechanism: str) -> None:
    nobody = Login("bob", PASSWORD, TOKEN if mechanism in BY_TOKEN else None)
    both = Together(policy(mechanism), nobody)
    assert both.lost.cause is Cause.LOGIN
    assert both.server.login is None


@pytest.mark.parametrize("mechanism", BY_TOKEN)
def test_a_token_too_long_for_one_line_gets_in(mechanism: str) -> None:
    token = "t" * 2000
    known = accounts(token=token)
    both = Together(policy(mechanism, known=known), Login(USER, token=token))
    assert both.events == [Ready()]
    assert both.commands[1] == f"AUTH {mechanism}"


@pytest.mark.parametrize("mechanism", BY_PASSWORD)
def test_a_login_in_clear_where_both_allow_it(mechanism: str) -> None:
    both = Together(policy(mechanism, in_clear=True), RIGHT, is_encrypted=False)
    assert both.events == [Ready()]
    assert both.client.mechanism == mechanism


def test_of_all_mechanisms_the_best_is_used() -> None:
    every = Policy(accounts=accounts(), auth_in_clear=True)
    assert Together(every, RIGHT).mechanisms == ["SCRAM-SHA-256"]
    assert Together(every, BEARER).mechanisms == ["OAUTHBEARER"]
    assert Together(every, RIGHT, is_encrypted=False).mechanisms == ["SCRAM-SHA-256"]
    assert Together(every, WRONG).mechanisms == ["SCRAM-SHA-256"]  # wrong is wrong with all


def test_what_is_announced_and_not_spoken_is_passed_over() -> None:
    known = Accounts(passwords={USER: PASSWORD})  # without a nonce no SCRAM and no CRAM
    both = Together(policy("SCRAM-SHA-256 CRAM-MD5 LOGIN", known=known), RIGHT)
    assert both.events == [Ready()]
    assert both.mechanisms == ["SCRAM-SHA-256", "LOGIN"]


def is_its_own_spelling(text: str) -> bool:
    """Tell whether SASLprep, which SCRAM demands, leaves `text` as it is."""
    try:
        return prepared(text) == text
    except ValueError:
        return False


names = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=20)
names = names.filter(is_its_own_spelling)


@pytest.mark.parametrize("mechanism", BY_PASSWORD)
@given(user=names, password=names, other=names)
def test_any_name_and_password(mechanism: str, user: str, password: str, other: str) -> None:
    known = accounts(user, password)
    both = Together(policy(mechanism, known=known), Login(user, other))
    if other == password:
        assert both.events == [Ready()]
        assert both.server.login == user
    else:
        assert both.lost.cause is Cause.LOGIN
