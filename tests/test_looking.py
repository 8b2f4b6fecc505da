"""`geomail hosts`, `why`, and what `status` says of hosts, as people meet them."""

import json
import re
import socket
from threading import Timer

import pytest
import redis
from test_cli import _make_dead, geomail

from geomail import board, cli
from geomail.delivery.shown import HostShown
from geomail.queue import JobState, Link, Part, Queue, Split

pytestmark = pytest.mark.usefixtures("clean_environment")

TOLD = (
    b'{"lanes":[{"host":"slow.example:25","relay":"default","route":"default","connections":3,'
    b'"window":8,"in_hand":9,"ready":6,"binding":"window"},{"host":"\\u001b[31m:25","relay":"bulk",'
    b'"route":"bulk","state":"closed","why":"421 4.7.0 Too\\u0007 many","again_in_s":90.0}]}'
)


def ask(redis_url: str, *argv: str) -> str:
    ended = geomail(*argv, "--redis", redis_url)
    assert ended.status == 0, ended.err
    return ended.out


def test_hosts_of_all_workers(redis_url: str) -> None:
    assert ask(redis_url, "hosts") == "no worker is at work\n"
    queue = Queue(Link(redis_url), "queue:email")
    queue.register()
    assert ask(redis_url, "hosts") == (
        "1 worker has told nothing yet: each does with its next beat\n"
    )
    assert queue.beat(TOLD)
    head, worst, reason, *rest = ask(redis_url, "hosts").splitlines()
    assert head.split()[:4] == ["ROUTE", "HOST", "STATE", "CONNS"]
    assert worst.split()[:3] == ["bulk", r"\x1b[31m:25", "closed"]
    assert re.fullmatch(r"  closed, again in (90|89|88) s: 421 4.7.0 Too\\x07 many", reason)
    assert [line.split()[1] for line in rest] == ["slow.example:25"]
    assert "3/8" in rest[0]
    told = json.loads(ask(redis_url, "hosts", "--json"))
    assert (told["workers"], told["silent"], told["left_out"]) == (1, 0, 0)
    assert [host["state"] for host in told["hosts"]] == ["closed", "open"]
    assert told["hosts"][1]["binding"] == "window"
    assert queue.leave()
    assert ask(redis_url, "hosts") == "no worker is at work\n"


def test_status_names_hosts_in_trouble(redis_url: str) -> None:
    queue = Queue(Link(redis_url), "queue:email")
    queue.register()
    queue.beat(TOLD)
    shown = ask(redis_url, "status")
    assert re.search(r"\nhosts in trouble\n  bulk .*: closed, again in 1?[0-9]+ s: 421", shown)
    assert "slow.example" not in shown
    told = json.loads(ask(redis_url, "status", "--json"))["queue:email"]
    assert [host["route"] for host in told["hosts_in_trouble"]] == ["bulk"]


def test_a_board_fits_its_terminal() -> None:
    host = HostShown("a" * 60 + ":25", "mx", "mx/" + "b" * 60, "closed", why="c" * 300)
    wide = HostShown(
        "h:25", "r", "r", "open", in_hand=10**9, delivered=10**9, binding="concurrency"
    )
    seen = board.Board([host, wide], 1, 0, 0, ())
    for width in (80, 100, 120):
        assert max(map(len, board.text(seen, width=width).splitlines())) <= width
    assert "c" * 300 in board.text(seen)
    assert "IN HAND" in board.text(seen, width=80)


def test_what_is_held_is_said_without_a_host_too() -> None:
    held = (("queue", "queue:email"), ("relay", "bulk"), ("relay", "seen"))
    seen = board.Board([HostShown("h:25", "seen", "seen", "held")], 0, 0, 0, held)
    *_, at_work, queue, relay = board.text(seen).splitlines()
    assert at_work == "no worker is at work on these lists"
    assert queue == "queue queue:email is held (geomail resume --queue queue:email)"
    assert relay == "relay bulk is held (geomail resume --relay bulk)"


def test_a_rate_is_shown_where_there_is_one() -> None:
    slow = HostShown("h:25", "r", "r", rate=9.96, binding="rate")
    used_up = HostShown("i:25", "r", "r", "waiting", why="its rate is 5/min", rate=0.0)
    head, *rows = board.text(board.Board([slow, used_up], 1, 0, 0, ())).splitlines()
    assert "RATE" in head.split()
    assert "9.96/s" in rows[0].split()
    assert "0/s" not in rows[1]
    well = HostShown("h:25", "r", "r")
    assert "RATE" not in board.text(board.Board([well], 1, 0, 0, ()))


def test_a_terminal_gets_the_state_in_colour() -> None:
    seen = board.Board([HostShown("held:25", "held", "held", "held")], 1, 0, 0, ())
    line = board.text(seen, width=80, is_coloured=True).splitlines()[1]
    assert line.startswith("held   held:25  \x1b[33mheld ")


def test_why(redis_url: str) -> None:
    queue = Queue(Link(redis_url), "queue:email")
    (dead,) = _make_dead(queue, b'{"to": "ann@example.org", "id": "order-1", "text": "t"}')
    queue.push([b'{"to": ["bo@example.org", "cy@example.org"], "id": "order-2", "text": "t"}'])
    for name in (dead, "order-1"):
        said = ask(redis_url, "why", name)
        assert said.startswith(f"{dead} (label order-1)\n")
        assert re.search(r"\n  where +dead since .*: because\n", said)
        assert re.search(r"\n  recipients +ann@example.org\n", said)
    queue.hold("queue", "queue:email", on=True)
    said = ask(redis_url, "why", "order-2")
    assert said.startswith("not taken yet (label order-2)\n")
    assert "waiting on queue:email, nothing in front of it\n" in said
    assert "bo@example.org, cy@example.org\n" in said
    assert "queue queue:email is held (geomail resume --queue queue:email)\n" in said
    (slot,) = queue.take(1).slots
    said = ask(redis_url, "why", slot.id)
    assert f"in the hand of worker {queue.worker} for " in said
    queue.reap([])
    nobody = ask(redis_url, "why", "order-3")
    assert nobody == (
        "no job of the label order-3 on queue:email: not known:"
        " delivered and forgotten, or never seen\n"
    )
    gone = ask(redis_url, "why", f"{queue.worker}.99.0")
    assert gone.endswith(": not known: delivered and forgotten, or never seen\n")


def test_why_of_a_split_job(redis_url: str) -> None:
    queue = Queue(Link(redis_url), "queue:email")
    queue.register()
    queue.push([b'{"to": ["a@x.org", "b@x.org"], "id": "order-1", "text": "t"}'])
    (slot,) = queue.take(1).slots
    parts = [Part(JobState(rcpt=["a@x.org"])), Part(JobState(rcpt=["b@x.org"]), ("retry", 60_000))]
    queue.settle([Split(slot, parts)])
    said = ask(redis_url, "why", "order-1")
    assert re.search(r"\n  where +split into parts, of which 2 are left\n", said)
    assert re.search(r"\n  /1 +in the hand of worker .*; to a@x.org\n", said)
    assert re.search(r"\n  /2 +delayed until .*; to b@x.org\n", said)
    assert re.findall(r"\n  route +(.*)", said) == ["default: no worker tells of its hosts"]


def test_a_person_does_not_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "_ANSWERS_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as loading:

        def refuse() -> None:
            while True:
                try:
                    with loading.accept()[0] as asked:
                        while asked.recv(1000):
                            asked.sendall(b"-LOADING Redis is loading the dataset in memory\r\n")
                except OSError:
                    return

        Timer(0, refuse).start()
        url = f"redis://127.0.0.1:{loading.getsockname()[1]}"
        for argv in (["status"], ["hosts"], ["why", "x"], ["dead", "list"], ["send", "--to=a@b.c"]):
            assert cli.main([*argv, "--redis", url]) == 1
            (line,) = capsys.readouterr().err.splitlines()
            assert "did not serve us within 0.3 s: " in line
            assert "LOADING" in line
        loading.shutdown(socket.SHUT_RDWR)


def test_a_redis_that_is_full_is_said_to_whoever_sends(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "_ANSWERS_S", 0.3)
    with redis.Redis.from_url(redis_url) as raw:
        raw.config_set("maxmemory", 1)
        try:
            assert cli.main(["send", "--to=a@b.c", "--from=c@b.c", "--redis", redis_url]) == 1
        finally:
            raw.config_set("maxmemory", 0)
    said = capsys.readouterr().err.splitlines()[-1]
    assert "did not serve us within 0.3 s: OOM" in said
    assert re.search(r"; later, `geomail why send-\w+` tells whether it came in$", said)
