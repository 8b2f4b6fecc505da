"""Wrong tokens and passwords at the doors: few at a time from one address, of all connections."""

import base64
import json
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from callers import OpenDoor, all_of, connect, lines_of, mail
from http_house import JSON, MAIL, WITHIN_S, House, Open, ask, read_all, until
from smtp_doors import Opened, opened

from geomail.intake import guesses, smtp, tcp
from geomail.intake.guesses import Guesses

pytest_plugins = ("door_fixtures", "http_fixtures")

_RIGHT = {"Authorization": "Bearer right"}
_HERE = "192.0.2.1"


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make it quick to be wrong often."""
    monkeypatch.setattr(guesses, "_MANY", 3)
    monkeypatch.setattr(tcp, "_WRONG_TOKEN_S", 0.01)
    monkeypatch.setattr(smtp, "_FAILED_LOGIN_S", 0.01)


def test_so_many_and_one_now_and_then() -> None:
    made = Guesses()
    for _ in range(3):
        assert made.wait_s(_HERE, 100.0) == 0.0
        made.was_wrong(_HERE, 100.0)
    assert made.wait_s(_HERE, 100.0) == pytest.approx(6.0)
    assert made.wait_s("192.0.2.2", 100.0) == 0.0
    assert made.wait_s(_HERE, 106.0) == 0.0
    made.was_wrong(_HERE, 106.0)
    assert made.wait_s(_HERE, 106.0) == pytest.approx(6.0)
    assert made.wait_s(_HERE, 1000.0) == 0.0


def test_who_was_right_is_not_shut_out() -> None:
    made = Guesses()
    made.was_right(_HERE, 100.0)
    for _ in range(100):
        made.was_wrong(_HERE, 100.0)
    assert made.wait_s(_HERE, 100.0) == 0.0
    assert made.wait_s(_HERE, 100.0 + 86_400) == 0.0  # nor is it remembered for longer
    for _ in range(100):
        made.was_wrong(_HERE, 100_000.0)
    assert made.wait_s(_HERE, 100_000.0) > 0.0


def test_any_number_of_wrong_ones_is_made_up_for_soon() -> None:
    made = Guesses()
    made.was_right(_HERE, 100.0)
    for _ in range(100_000):  # by others behind the same proxy
        made.was_wrong(_HERE, 86_000.0)
    assert made.wait_s(_HERE, 86_600.0) == 0.0


def test_a_network_of_ipv6_is_one_address() -> None:
    made = Guesses()
    for number in range(3):
        made.was_wrong(f"2001:db8::{number}", 1.0)
    assert made.wait_s("2001:db8::ffff", 1.0) > 0
    assert made.wait_s("2001:db8:1::1", 1.0) == 0
    made.was_wrong("fe80::1%eth0", 1.0)
    made.was_wrong("", 1.0)  # of a local socket


def test_a_few_addresses_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guesses, "_MOST_ADDRESSES", 10)
    made = Guesses()
    for number in range(1000):
        for _ in range(3):
            made.was_wrong(f"h{number}", 1.0)
        made.was_right(f"r{number}", 1.0)
    assert made.wait_s("h999", 1.0) > 0
    assert made.wait_s("h0", 1.0) == 0
    assert len(made._until) == len(made._right) == 10


@pytest.fixture
def house(opens: Open) -> House:
    return opens(door_token="right")


def shown(house: House, token: str) -> int:
    return house.post(MAIL, {"Authorization": f"Bearer {token}"}).status


def test_http(house: House, caplog: pytest.LogCaptureFixture) -> None:
    assert [shown(house, f"{n}") for n in range(3)] == [401] * 3
    answer = house.post(MAIL, _RIGHT)  # is not looked at: the answer would tell
    assert answer.status == 429
    assert 1 <= int(answer.fields["retry-after"]) <= 6
    assert "wrong tokens" in answer.json["error"]
    assert house.ask("GET", "/v1/messages/x", headers=_RIGHT).status == 429
    assert house.ask("GET", "/healthz").status == 200
    assert house.post(MAIL).status == 401  # shows nothing, and says what is missing
    assert "wrong_token door=http host=127.0.0.1" in caplog.text
    assert house.waiting() == 0


def test_http_where_somebody_knew_it(house: House) -> None:
    assert shown(house, "right") == 202
    assert [shown(house, f"{n}") for n in range(10)] == [401] * 10
    assert shown(house, "right") == 202


def test_a_program_with_a_wrong_token_shuts_nobody_out(house: House) -> None:
    assert [shown(house, "old") for _ in range(20)] == [401] * 20
    assert shown(house, "right") == 202


def test_what_is_shown_again_is_no_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Guesses()
    for token in (b"a", b"a", b"a", b"b", b"b", b"a"):
        assert made.wait_s(_HERE, 1.0) == 0
        made.was_wrong(_HERE, 1.0, token)
    assert made.wait_s(_HERE, 1.0) > 0
    monkeypatch.setattr(guesses, "_MOST_ADDRESSES", 10)
    for number in range(1000):
        made.was_wrong(f"h{number}", 1.0, b"a")
        made.was_wrong(f"h{number}", 1.0, b"a")
    assert len(made._last) == 10


def test_http_on_a_connection_that_is_kept(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guesses, "_GOOD_FOR_S", 1.0)
    kept = HTTPConnection("127.0.0.1", house.port, timeout=WITHIN_S)

    def status() -> int:
        return ask(kept, "POST", "/v1/messages", MAIL, JSON | _RIGHT).status

    until_s = time.monotonic() + 1.2
    while time.monotonic() < until_s:
        assert status() == 202
    assert [shown(house, f"{n}") for n in range(10)] == [401] * 10
    assert status() == 202
    kept.close()


def test_http_without_a_token_to_show(opens: Open) -> None:
    house = opens()
    assert [shown(house, f"{n}") for n in range(10)] == [202] * 10


def test_tcp(open_door: OpenDoor) -> None:
    address = open_door("tcp", door_token="right")

    def show(token: str) -> dict[str, Any]:
        with closing(connect(address)) as sock:
            sock.sendall(json.dumps({"token": token}).encode() + mail())
            answer: dict[str, Any] = lines_of(sock, 1)[0]
            return answer

    with closing(connect(address)) as early:  # is here before
        assert all("with the token of this door" in show(f"{n}")["error"] for n in range(3))
        answer = show("right")
        assert "too many wrong tokens" in answer["error"]
        assert 1 <= answer["retry_after_s"] <= 6
        early.sendall(b'{"token":"x"}')
        assert "too many wrong tokens" in all_of(early)[0]["error"]


@pytest.fixture
def door(redis_url: str, tmp_path: Path) -> Iterator[Opened]:
    path = tmp_path / "logins"
    path.write_text("ann:right\n")
    path.chmod(0o600)
    with opened(redis_url, door_logins=str(path)) as running:
        yield running


def login(password: str) -> bytes:
    return b"AUTH PLAIN " + base64.b64encode(b"\0ann\0" + password.encode()) + b"\r\n"


def test_smtp(door: Opened) -> None:
    early, guesser = door.bare(), door.bare()
    early.hello()
    guesser.hello()
    guesser.say(login("1") + login("2") + login("3"))
    assert guesser.codes(4) == [535, 535, 535, 421]
    early.say(login("right"))
    assert early.rest().startswith(b"421 4.7.0 Too many failed logins from this address")


def test_smtp_of_who_has_logged_in(door: Opened) -> None:
    good = door.bare()
    good.hello()
    good.say(login("right"))
    assert good.codes(1) == [235]
    guesser = door.bare()
    guesser.hello()
    guesser.say(login("1") + login("2") + login("3"))
    guesser.rest()
    good.say(b"MAIL FROM:<a@x.example>\r\n")
    assert good.codes(1) == [250]
    another = door.bare()
    another.hello()
    another.say(login("right"))
    assert another.codes(1) == [235]


def test_the_doors_count_together(house: House) -> None:
    for _ in range(3):
        house.gate.guesses.was_wrong("127.0.0.1", time.monotonic())
    assert shown(house, "right") == 429


def test_a_kept_connection_that_knows_it(house: House) -> None:
    ask = b"GET /v1/messages/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n\r\n"
    with house.dial() as sock:
        sock.sendall(ask % b"right" + ask % b"wrong" + ask % b"right")
        sock.shutdown(1)
        said = read_all(sock)
    assert [said.count(code) for code in (b"HTTP/1.1 404", b"HTTP/1.1 401")] == [2, 1]
    until(lambda: house.door.guests == 0)
