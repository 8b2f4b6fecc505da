"""The client of other people's Python: what it pushes, what it refuses, and what it survives."""

import itertools
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import gevent
import pytest
from redis_servers import RedisServer, find_binary, until

import geomail
from geomail import job
from geomail.client import _KNOWN
from geomail.job import shapes
from geomail.queue import Done, Link, Queue

MAIL: dict[str, Any] = {"to": "ann@example.org", "from_": "news@example.com", "text": "t"}
THREADS = """
import os, sys, threading
import geomail

client = geomail.Client(sys.argv[1])
assert "gevent" not in sys.modules
ids = []

def send(who):
    for number in range(40):
        ids.append(client.send(to=f"u{who}-{number}@example.org", text="t"))
    ids.extend(client.send_many([{"to": f"m{who}@example.org"}] * 3))

threads = [threading.Thread(target=send, args=(number,)) for number in range(25)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
child = os.fork()
if not child:
    assert client.send(to="child@example.org", text="t") not in ids
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
ids.append(client.send(to="parent@example.org", text="t"))
assert len(set(ids)) == 25 * 43 + 1, len(ids)
"""


@pytest.fixture
def client(redis_url: str) -> Iterator[geomail.Client]:
    with geomail.Client(redis_url) as made:
        yield made


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisServer]:
    running = RedisServer(find_binary("7"), tmp_path)
    yield running
    running.kill()


@pytest.fixture
def queue(redis_url: str) -> Iterator[Queue]:
    made = Queue(Link(redis_url))
    made.register()
    yield made
    made.close()


def python(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_geomail_imports_nothing_else() -> None:
    code = "import sys; old = {*sys.modules}; import geomail; print({*sys.modules} - old)"
    fresh = python(code)
    assert "geomail" in fresh
    assert "geomail." not in fresh
    assert "redis" not in fresh


def test_the_client_needs_no_gevent() -> None:
    assert python("import sys, geomail.client; print('gevent' in sys.modules)") == "False\n"


def test_what_is_sent_is_on_the_queue(client: geomail.Client, queue: Queue) -> None:
    at = datetime(2030, 1, 1, 10, tzinfo=timezone(timedelta(hours=1)))
    job_id = client.send(
        to=["Ann <ann@example.org>", {"email": "bo@example.org", "name": "Bö"}],
        from_="News <news@example.com>",
        subject="Grüße",
        html="<img src='cid:logo'>",
        attachments=[{"filename": "a.png", "content": b"\x89PNG", "cid": "logo"}],
        headers={"X-Tag": ["a", "b"]},
        send_at=at,
        id="order-4711",
    )
    [slot] = queue.take(10).slots
    assert slot.id == job_id
    email = job.decode(slot.payload)
    assert isinstance(email, job.Email)
    assert email.recipients == ["ann@example.org", "bo@example.org"]
    assert email.sender == job.Address("news@example.com", "News")
    assert email.attachments == [job.Attachment("a.png", b"\x89PNG", "image/png", "logo")]
    assert email.send_at_ms == at.timestamp() * 1000
    assert email.label == "order-4711"


def test_it_says_what_became_of_a_job(client: geomail.Client, queue: Queue) -> None:
    job_id = client.send(**MAIL)
    assert client.outcome(job_id) == {"outcome": "waiting"}
    queue.settle([Done(slot) for slot in queue.take(10).slots])
    said = client.outcome(job_id)
    assert said is not None
    assert said["outcome"] == "delivered"
    assert client.outcome("nobody.1.0") is None


def test_a_finished_message_and_tasks(client: geomail.Client, queue: Queue) -> None:
    client.send(raw=b"Subject: x\r\n\r\n\xff", mail_from="", rcpt_to=["a@example.org"])
    client.send(url="http://example.org/", param={"a": [1, 2]}, retries=3)
    client.send(worker="resize", class_="Images", params={"id": 4711})
    jobs = [job.decode(slot.payload) for slot in queue.take(10).slots]
    raw, http, call = sorted(jobs, key=lambda one: "EHC".index(type(one).__name__[0]))
    assert isinstance(raw, job.Email)
    assert raw.raw == b"Subject: x\r\n\r\n\xff"
    assert isinstance(http, job.HttpTask)
    assert http.param == {"a": [1, 2]}
    assert call == job.CallTask("resize", "Images", {"id": 4711})


def test_a_file_is_attached_by_its_path(
    client: geomail.Client, queue: Queue, tmp_path: Path
) -> None:
    place = tmp_path / "report.pdf"
    place.write_bytes(b"%PDF")
    client.send(**MAIL, attachments=[geomail.attachment(place, cid="one")])
    [slot] = queue.take(10).slots
    email = job.decode(slot.payload)
    assert isinstance(email, job.Email)
    assert email.attachments == [job.Attachment("report.pdf", b"%PDF", "application/pdf", "one")]


def test_it_takes_every_key_that_a_payload_may_have() -> None:
    assert {*shapes._EMAIL, *shapes._HTTP, *shapes._CALL} - {"charset"} == _KNOWN


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"to": None}, "no recipient"),
        ({"subjet": "x"}, "subjet: no key of a job: did you mean subject?"),
        ({"text": b"t"}, "text: Object of type bytes"),
        ({"subject": "a\nBcc: x@example.org"}, "U+000A"),
        ({"subject": "\ud800"}, "subject: 'utf-8' codec can't encode"),
        ({"send_at": datetime(2030, 1, 1)}, "a datetime with a time zone expected"),
        ({"headers": {"X-N": float("nan")}}, "headers: Out of range float values"),
        ({"attachments": [{"filename": "a", "path": "/etc/passwd"}]}, "files are not opened here"),
        ({"attachments": [{"filename": "a", "content": "ä"}]}, "base64 expected"),
        ({"text": "x" * 33_600_000}, "33,600,0"),
    ],
)  # fmt: skip
def test_what_can_not_be_sent_is_not_pushed(
    client: geomail.Client, queue: Queue, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(geomail.PayloadError) as raised:
        client.send(**{**MAIL, **fields})
    assert said in str(raised.value)
    assert queue.counts().waiting == 0


def test_many_are_sent_in_pieces_as_they_come(client: geomail.Client, queue: Queue) -> None:
    there: list[int] = []

    def jobs() -> Iterator[dict[str, object]]:
        for number in range(1_700):
            if number % 600 == 599:
                there.append(queue.counts().waiting)
            yield {"to": f"u{number}@example.org", "from": "n@example.com", "text": "t"}

    ids = client.send_many(jobs())
    assert there == [500, 1000]
    slots = list(itertools.chain(*(queue.take(1000).slots for _ in range(2))))
    assert [slot.id for slot in slots] == ids
    assert [json.loads(slot.payload)["to"] for slot in slots] == [
        f"u{number}@example.org" for number in range(1_700)
    ]
    assert client.send_many([]) == []


def test_of_what_nobody_asks_for_nothing_is_kept(client: geomail.Client, queue: Queue) -> None:
    [job_id] = client.send_many([MAIL], told=False)
    queue.settle([Done(slot) for slot in queue.take(10).slots])
    assert client.outcome(job_id) is None


def test_of_many_it_says_which_are_there(client: geomail.Client, queue: Queue) -> None:
    with pytest.raises(geomail.NotAllSent) as raised:
        client.send_many([*[MAIL] * 700, {"subject": "x"}, MAIL])
    assert "job 700, counted from 0: no recipient" in str(raised.value)
    assert isinstance(raised.value.__cause__, geomail.PayloadError)
    assert len(raised.value.ids) == queue.counts().waiting == 700


def test_what_the_jobs_raise_comes_through(client: geomail.Client, queue: Queue) -> None:
    def jobs() -> Iterator[dict[str, Any]]:
        yield MAIL
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        client.send_many(jobs())
    assert queue.counts().waiting == 1


def test_it_says_that_too_much_waits(own_server: RedisServer) -> None:
    client = geomail.Client(own_server.url)
    assert client.pressure() == "ok"
    own_server.raw.set("{queue:email}:pressure", "high")
    assert client.pressure() == "high"


def test_plain_threads_and_a_fork_share_a_client(own_server: RedisServer) -> None:
    python(THREADS, own_server.url)
    assert Queue(Link(own_server.url)).counts().waiting == 25 * 43 + 2
    assert int(own_server.raw.info("stats")["total_connections_received"]) < 20


def test_greenlets_share_a_client(client: geomail.Client, queue: Queue) -> None:
    sending = [gevent.spawn(client.send, **MAIL) for _ in range(200)]
    gevent.joinall(sending, timeout=20)
    assert len({one.get(block=False) for one in sending}) == 200
    assert queue.counts().waiting == 200


def test_it_finds_redis_again(own_server: RedisServer) -> None:
    client = geomail.Client(own_server.url)
    client.send(**MAIL)
    raw: Any = own_server.raw
    raw.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    client.send(**MAIL)
    own_server.kill()
    with pytest.raises(geomail.RedisAway):
        geomail.Client(own_server.url, timeout_s=0.3).send(**MAIL)
    starting = gevent.spawn_later(0.3, own_server.start)
    client.send(**MAIL)
    starting.get(timeout=20)
    until(lambda: Queue(Link(own_server.url)).counts().waiting == 3)


def test_what_is_sent_while_connections_are_cut_is_there_once(own_server: RedisServer) -> None:
    client = geomail.Client(own_server.url)
    raw: Any = own_server.raw

    def cut() -> None:
        for _ in range(20):
            gevent.sleep(0.005)
            raw.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def send() -> list[str]:
        ids = []
        while not cutting.ready():
            ids.append(client.send(**MAIL))
        return ids

    cutting = gevent.spawn(cut)
    sending = [gevent.spawn(send) for _ in range(8)]
    gevent.joinall(sending, timeout=40)
    ids = [job_id for one in sending for job_id in one.get(block=False)]
    assert len(ids) == len(set(ids))
    assert set(ids) == {job_id.decode() for job_id in raw.hkeys("{queue:email}:jobs")}


def test_nobody_answers() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        client = geomail.Client(f"redis://127.0.0.1:{held.getsockname()[1]}", timeout_s=0.6)
        began = time.monotonic()
        with pytest.raises(geomail.RedisAway, match=r"did not serve us within 0\.2 s: .*refused"):
            client.send(**MAIL)
        assert time.monotonic() - began < 10
        with pytest.raises(geomail.NotAllSent, match="0 jobs are on the queue, the next 2 may be"):
            client.send_many([MAIL, MAIL])


def test_redis_is_full(own_server: RedisServer) -> None:
    own_server.raw.config_set("maxmemory", "1")
    client = geomail.Client(own_server.url, timeout_s=0.6)
    with pytest.raises(geomail.RedisAway, match="OOM command not allowed"):
        client.send(**MAIL)
    own_server.raw.config_set("maxmemory", "0")
    client.send(**MAIL)


def test_a_wrong_password_is_said_at_once(tmp_path: Path) -> None:
    server = RedisServer(find_binary("7"), tmp_path, "--requirepass", "secret")
    try:
        for login, said in (
            (":mistaken@", "user or password are wrong"),
            ("", "it wants a password"),
        ):
            client = geomail.Client(server.url.replace("unix://", f"unix://{login}"))
            with pytest.raises(geomail.RedisUnusable, match=said):
                client.send(**MAIL)
            assert "mistaken" not in repr(client)
    finally:
        server.kill()


def test_an_url_or_a_name_that_can_not_be_used() -> None:
    with pytest.raises(geomail.RedisUnusable) as raised:
        geomail.Client("http://user:hidden@host")
    assert "hidden" not in str(raised.value)
    with pytest.raises(geomail.ConfigError):
        geomail.Client(queue="}")


def test_it_waits_for_a_connection_and_gives_up(own_server: RedisServer) -> None:
    client = geomail.Client(own_server.url, timeout_s=0.9)
    raw: Any = own_server.raw
    raw.execute_command("CLIENT", "PAUSE", "60000", "ALL")
    began = datetime.now(UTC)
    sending = [gevent.spawn(client.send, **MAIL) for _ in range(12)]
    gevent.joinall(sending, timeout=30)
    assert all(isinstance(one.exception, geomail.RedisAway) for one in sending)
    assert datetime.now(UTC) - began < timedelta(seconds=20)
