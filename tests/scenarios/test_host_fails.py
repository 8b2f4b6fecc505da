"""A mail host refuses, hangs up, never answers: its trouble stays with it, and nothing is lost."""

import itertools
import re
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from scenarios.stage import Process, Stage, free_port, mail, once_each, until, users

AWAY = re.compile(r"host_failed .*?why=(\"[^\"]*\"|\S+) again_in_s=([0-9.]+)")


def failures(worker: Process) -> list[tuple[str, float]]:
    """Return what failures of hosts a worker has told of: why, and how long it stays away."""
    return [(why.strip('"'), float(delay)) for why, delay in AWAY.findall(worker.stderr)]


def no_try_was_counted(stage: Stage) -> None:
    """Check that nothing that waits in Redis has had a try."""
    headers = [value.partition(b"\n")[0] for value in stage.redis.hvals("{queue:email}:jobs")]
    assert headers
    assert not [header for header in headers if b'"tries"' in header or b'"unknown"' in header]


class Knocks:
    """Listens where a host was, counts who comes, and hangs up at once."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.times: list[float] = []
        self._door = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self) -> None:
        try:
            while True:
                knock, _ = self._door.accept()
                self.times.append(time.monotonic())
                knock.close()
        except OSError:
            return

    def close(self) -> None:
        """Listen no more."""
        self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()


@pytest.fixture
def knocks() -> Iterator[Knocks]:
    """Give a host that hangs up on everybody."""
    door = Knocks(free_port())
    yield door
    door.close()


def test_a_refusing_host_is_left_alone_longer_and_longer(stage: Stage) -> None:
    stage.push(map(mail, range(300)))
    port = free_port()
    worker = stage.worker(relay=f"smtp://127.0.0.1:{port}", backoff_base_s=0.25, backoff_cap_s=60)
    until(lambda: len(failures(worker)) >= 4)
    delays = [delay for _, delay in failures(worker)]
    for wanted, delay in zip((0.25, 0.5, 1.0, 2.0), delays, strict=False):
        assert wanted * 0.74 <= delay <= wanted * 1.26
    assert all("refused" in why for why, _ in failures(worker))
    until(lambda: stage.counts().in_flight <= 1)
    assert stage.held() == 300
    no_try_was_counted(stage)
    host = stage.host(port=port)
    host.has_taken(300)
    worker.says("host_back")
    until(stage.is_clean)
    once_each(host.arrivals(), users(300))


def test_a_host_that_hangs_up_at_once_is_probed_by_one_connection(
    stage: Stage, knocks: Knocks
) -> None:
    stage.push(map(mail, range(300)))
    url = f"smtp://127.0.0.1:{knocks.port}"
    worker = stage.worker(relay=url, backoff_base_s=0.2, backoff_cap_s=60)
    until(lambda: len(failures(worker)) >= 4)
    first, *later = knocks.times
    probes = [at for at in later if at - first > 0.1]
    assert len(probes) == 3, [at - first for at in later]
    gaps = [b - a for a, b in itertools.pairwise(probes)]
    assert all(gap > 0.28 for gap in gaps)
    no_try_was_counted(stage)
    assert stage.held() == 300


@pytest.mark.parametrize(
    "greeting", [(421, "4.3.2 Too busy"), (554, "5.7.1 You are on a list"), (450, "4.3.2 Later")]
)
def test_a_greeting_that_refuses_is_the_hosts_trouble(
    stage: Stage, greeting: tuple[int, str]
) -> None:
    host = stage.host(greeting=greeting)
    stage.push(map(mail, range(50)))
    worker = stage.worker(relay=host)
    until(lambda: len(failures(worker)) >= 2)
    assert greeting[1] in failures(worker)[0][0]
    no_try_was_counted(stage)
    host.kill()
    again = stage.host(port=host.port)
    again.has_taken(50)
    until(stage.is_clean)
    once_each(again.arrivals(), users(50))


@pytest.mark.parametrize("verb", ["greeting", "EHLO", "MAIL"])
def test_a_host_that_hangs_up_before_mail_is_answered(stage: Stage, verb: str) -> None:
    host = stage.host(hangs_up_at=verb)
    stage.push(map(mail, range(50)))
    worker = stage.worker(relay=host)
    until(lambda: len(failures(worker)) >= 3)
    until(lambda: stage.counts().in_flight <= 1)
    no_try_was_counted(stage)
    host.kill()
    again = stage.host(port=host.port)
    again.has_taken(50)
    until(stage.is_clean)
    once_each(again.arrivals(), users(50))


def test_a_host_that_never_greets_is_given_up_in_time(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        stage.push(map(mail, range(50)))
        url = f"smtp://127.0.0.1:{silent.getsockname()[1]}"
        worker = stage.worker(relay=url, greeting_s=0.5)
        until(lambda: len(failures(worker)) >= 2)
        assert "no answer within 0.5 s" in failures(worker)[0][0]
        until(lambda: stage.counts().parked)
        no_try_was_counted(stage)


def test_a_final_dot_without_an_answer(stage: Stage) -> None:
    host = stage.host()
    silent = [f"never@h{number}.example" for number in range(3)]
    stage.push([mail(recipient, to=[recipient]) for recipient in silent])
    stage.push(map(mail, range(200)))
    worker = stage.worker(relay=host, final_s=1, unknown_retries=1)
    until(lambda: stage.counts().dead == 3, within_s=30)
    until(lambda: stage.held() == 3)
    arrivals = host.arrivals()
    assert {recipient: arrivals.pop(recipient) for recipient in silent} == dict.fromkeys(silent, 2)
    once_each(arrivals, users(200))
    for letter in stage.dead():
        assert letter.reason.startswith("maybe_duplicate")
        assert letter.state.unknown == 2
    assert "no answer within 1 s" in worker.stderr
    ids = {taken.id for taken in host.mails if taken.to[0] in silent}
    assert len(ids) == 3  # the second try is the same mail


def test_other_mails_go_on_while_a_final_dot_is_awaited(stage: Stage) -> None:
    host = stage.host()
    stage.push([mail("silent", to=["never@h.example"])])
    worker = stage.worker(relay=host, final_s=15)
    host.has_taken(1)
    stage.push(map(mail, range(500)))
    host.has_taken(501, within_s=10)
    assert not failures(worker)
    assert stage.counts().in_flight == 1


def test_what_may_be_delivered_is_held_where_the_settings_say_so(stage: Stage) -> None:
    host = stage.host()
    stage.push([mail("x", to=["hangup@h.example"])])
    stage.worker(relay=host, unknown="hold")
    until(lambda: stage.counts().dead == 1)
    assert "maybe_duplicate" in stage.dead()[0].reason
    assert len(host.look()) == 1


@pytest.mark.parametrize("says_421", [False, True])
def test_a_host_that_takes_three_mails_a_connection(stage: Stage, says_421: bool) -> None:
    host = stage.host(mails_per_connection=3, says_421=says_421)
    stage.push(map(mail, range(600)))
    worker = stage.worker("--concurrency", "5", relay=host)
    host.has_taken(600)
    until(stage.is_clean)
    once_each(host.arrivals(), users(600))
    assert not failures(worker)


def test_a_mail_that_makes_its_host_hang_up_at_data_closes_it_for_nobody_else(
    stage: Stage,
) -> None:
    host = stage.host(hangs_up_at="DATA", poison="poison@")
    stage.push([mail("x", to=["poison@example.org"], retries=3), *map(mail, range(100))])
    worker = stage.worker(relay=host)
    host.has_taken(100)
    until(lambda: stage.held() == 1 and stage.counts().dead == 1)
    once_each(host.arrivals(), users(100))
    assert stage.dead()[0].state.tries == 4
    assert failures(worker) or "host_stumbled" in worker.stderr


def test_a_mail_that_makes_its_host_hang_up_at_mail_lets_others_through(stage: Stage) -> None:
    host = stage.host(hangs_up_at="MAIL", poison="poison@")
    stage.push([mail("x", **{"from": "poison@example.com"})])
    worker = stage.worker(relay=host)
    until(lambda: len(failures(worker)) >= 2)
    stage.push(map(mail, range(100)))
    host.has_taken(100)
    once_each(host.arrivals(), users(100))
    # The poison itself is kept; that it ends every connection it comes to may cost it tries.
    until(lambda: stage.held() == 1)


def test_a_mail_that_is_answered_421_closes_its_host_for_nobody_else(stage: Stage) -> None:
    host = stage.host()
    stage.push([mail("x", to=["reply+421@example.org"], retries=3), *map(mail, range(100))])
    stage.worker(relay=host)
    host.has_taken(100)
    until(lambda: stage.held() == 1 and stage.counts().dead == 1)
    once_each(host.arrivals(), users(100))


def test_one_relay_refuses_and_the_other_does_not_notice(stage: Stage) -> None:
    host, port = stage.host(), free_port()
    file = stage.folder / "geomail.toml"
    file.write_text(
        f'[relay.blue]\nurl = "{host.url}"\n[relay.red]\nurl = "smtp://127.0.0.1:{port}"\n'
    )
    blue = [mail(number, relay="blue") for number in range(1_000)]
    red = [mail(f"r{number}", relay="red") for number in range(1_000)]
    stage.push(job for pair in zip(red, blue, strict=True) for job in pair)
    worker = stage.worker("--config", str(file))
    host.has_taken(1_000)
    until(lambda: stage.counts().in_flight <= 1)
    assert stage.held() == 1_000
    once_each(host.arrivals(), users(1_000))
    no_try_was_counted(stage)
    assert worker.is_running
    again = stage.host(port=port)
    again.has_taken(1_000)
    until(stage.is_clean)
    once_each(again.arrivals(), [f"ur{number}@example.org" for number in range(1_000)])


def test_the_second_member_takes_over_while_the_first_is_left_alone(stage: Stage) -> None:
    first = stage.host(delay_s=0.005)
    second = stage.host(delay_s=0.005)
    stage.push(map(mail, range(1_000)))
    worker = stage.worker("--relay", first.url, "--relay", second.url, backoff_base_s=0.5)
    first.has_taken(200)
    first.kill()
    until(lambda: len(first.look()) + len(second.look()) >= 1_000)
    worker.says("host_failed")
    assert len(second.mails) > 300
    again = stage.host(port=first.port)
    fresh = itertools.count(1_000)
    until(lambda: stage.push([mail(next(fresh))]) and again.look())
    until(stage.is_clean)
    total = first.arrivals() + second.arrivals() + again.arrivals()
    pushed = next(fresh)
    assert total.keys() == set(users(pushed))
    assert total.total() - pushed <= 2 * 20  # what the kill left unanswered
