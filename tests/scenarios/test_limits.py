"""A relay's limits hold over all workers: mails a second, and connections at any instant."""

import os
import signal
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from scenarios.stage import Host, Process, Stage, mail, once_each, until, users

RATE = 100
SECONDS = 10


def limited(stage: Stage, host: Host, text: str) -> str:
    """Write down limits of a relay, and return the name of the file."""
    file = stage.folder / "limits.toml"
    file.write_text(f"[relay.default]\nurl = '{host.url}'\n{text}\n")
    return str(file)


def workers(stage: Stage, file: str, count: int, lease_s: int = 2) -> list[Process]:
    """Start workers of one machine that share a data folder, and return them when they run."""
    made = [stage.worker("--config", file, lease_s=lease_s) for _ in range(count)]
    for worker in made:
        worker.says(" running ")
    return made


def most_in_a_second(times: list[float]) -> int:
    first, most = 0, 0
    for last, at in enumerate(times):
        while times[first] <= at - 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


def crowd(path: Path) -> list[tuple[float, int]]:
    """Return each time at which the number of connections changed, and the number."""
    lines = [line.split() for line in path.read_text().splitlines()]
    return [(float(at), int(connections)) for at, connections in lines]


@pytest.mark.parametrize("processes", [1, 4])
def test_a_rate_holds_over_four_workers(
    stage: Stage, capsys: pytest.CaptureFixture[str], processes: int
) -> None:
    host = stage.host()
    file = limited(stage, host, f"rate = '{RATE}/s'")
    if processes == 1:
        workers(stage, file, 4)
    else:
        stage.worker("--config", file, "--processes", "4").says(" running ")
    seconds = int(os.environ.get("GEOMAIL_TEST_SECONDS", SECONDS))
    wanted = RATE * (seconds + 1)
    stage.push(map(mail, range(wanted + 500)))
    host.has_taken(wanted, within_s=2 * seconds + 20)
    times = sorted(each.at for each in host.look())
    begun = times[RATE // 2]  # all workers are there by then
    within = sum(begun <= at < begun + seconds for at in times)
    with capsys.disabled():
        worst = most_in_a_second(times)
        sys.stdout.write(f"{within / seconds:.2f} mails/s, {worst} in the worst second\n")
    assert 0.97 * RATE <= within / seconds <= 1.005 * RATE + 1
    assert most_in_a_second(times) <= 1.1 * RATE + 5
    waiting = stage.counts()
    assert waiting.in_flight <= 4 * 2 * RATE


@pytest.mark.parametrize(
    ("weights", "least", "most"),
    [("weights = [3, 1]", 0.68, 0.82), ("", 0.6, 1.0)],
    ids=["by weight", "in order"],
)
def test_hosts_of_a_relay_share_its_rate(
    stage: Stage, weights: str, least: float, most: float
) -> None:
    first, second = stage.host(delay_s=0.02), stage.host(delay_s=0.02)
    file = stage.folder / "limits.toml"
    file.write_text(
        f"[relay.default]\nurl = ['{first.url}', '{second.url}']\nrate = '{RATE}/s'\n{weights}\n"
    )
    stage.push(map(mail, range(2_000)))
    workers(stage, str(file), 1)
    until(lambda: len(first.look()) + len(second.look()) >= 600, "600 mails at both")
    part = len(first.look()) / (len(first.look()) + len(second.look()))
    assert least < part <= most


def test_a_worker_whose_connections_are_all_busy_rests(stage: Stage) -> None:
    host = stage.host(delay_s=0.02)
    file = limited(stage, host, f"rate = '{RATE}/s'\nconnections = 3")
    stage.push(map(mail, range(400)))
    worker, *_ = workers(stage, file, 1)
    host.has_taken(20)
    used_s, began = cpu_s(worker.pid), time.monotonic()
    host.has_taken(120)
    used_s = cpu_s(worker.pid) - used_s
    assert used_s < 0.4 * (time.monotonic() - began)


def cpu_s(pid: int) -> float:
    """Return how much time of a core a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_connections_are_never_more_than_allowed(stage: Stage) -> None:
    log = stage.folder / "crowd"
    host = stage.host(crowd=str(log), delay_s=0.02, mails_per_connection=20)
    file = limited(stage, host, "connections = 5")
    workers(stage, file, 4)
    stage.push(map(mail, range(600)))
    host.has_taken(600)
    once_each(host.arrivals(), users(600))
    assert max(connections for _, connections in crowd(log)) == 5


def test_what_a_killed_worker_held_is_free_at_once(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    log = stage.folder / "crowd"
    host = stage.host(crowd=str(log), delay_s=0.02)
    file = limited(stage, host, "connections = 4")
    first, *_ = workers(stage, file, 1, lease_s=30)
    stage.push(map(mail, range(2_000)))
    until(lambda: [now for _, now in crowd(log)[-1:]] == [4], "four connections")
    second, *_ = workers(stage, file, 1, lease_s=30)
    until(lambda: held(stage) == [2, 2], "each has half")
    os.kill(first.pid, signal.SIGKILL)
    killed = time.time()
    until(lambda: held(stage) == [4], "all for the second one")
    took_s = time.time() - killed
    with capsys.disabled():
        sys.stdout.write(f"free after {took_s:.2f} s\n")
    assert took_s < 5
    assert second.is_running
    host.has_taken(1_000)
    assert max(connections for _, connections in crowd(log)) == 4


def held(stage: Stage) -> list[int]:
    """Return how many connections each worker holds by Redis."""
    held = stage.redis.hvals("{geomail:default}:conns")
    return sorted(int(each.split()[0]) for each in held)


def test_leases_are_given_back(stage: Stage) -> None:
    host = stage.host(delay_s=0.02)
    file = limited(stage, host, "connections = 4\nrate = '1000/s'")
    stage.push(map(mail, range(100)))
    assert stage.burst("--config", file) == "left delayed=0 parked=0 dead=0"
    assert not stage.redis.exists("{geomail:default}:conns")
    once_each(host.arrivals(), users(100))


def test_messages_a_connection_and_recipients_a_transaction(stage: Stage) -> None:
    log = stage.folder / "crowd"
    host = stage.host(crowd=str(log))
    file = limited(stage, host, "messages_per_connection = 5\nmax_recipients = 3")
    stage.push([mail(0, to=[f"u{number}@example.org" for number in range(7)])])
    stage.push(map(mail, range(7, 57)))
    assert stage.burst("--config", file, "--concurrency", "1") == "left delayed=0 parked=0 dead=0"
    once_each(host.arrivals(), users(57))
    assert sorted(len(each.to) for each in host.look() if len(each.to) > 1) == [3, 3]
    made = sum(later > before for (_, before), (_, later) in pairwise([(0, 0), *crowd(log)]))
    assert made >= -(-len(host.look()) // 5)


def test_a_slow_rate_holds_nothing_in_hand(stage: Stage) -> None:
    host = stage.host()
    file = limited(stage, host, "rate = '10/min'")
    workers(stage, file, 2)
    stage.push(map(mail, range(50)))
    host.has_taken(2)
    until(lambda: stage.counts().in_flight == 0, "all is parked")
    hosts = stage.ask("hosts", "--config", file, "--json")
    assert '"state":"waiting"' in hosts.replace(" ", ""), hosts
    assert "10/min" in hosts
    host.has_taken(3)
    times = [each.at for each in host.look()]
    assert all(5.0 < later - before < 13.0 for before, later in pairwise(times))


def test_while_redis_is_away_what_was_granted_is_used_up(stage: Stage) -> None:
    host = stage.host()
    file = limited(stage, host, f"rate = '{RATE}/s'\nconnections = 3")
    workers(stage, file, 2, lease_s=30)
    stage.push(map(mail, range(2_000)))
    host.has_taken(200)
    pid = stage.redis.info("server")["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        stopped = time.time()
        time.sleep(3)
    finally:
        os.kill(pid, signal.SIGCONT)
    went = time.time()
    host.has_taken(800)
    times = sorted(each.at for each in host.look())
    meanwhile = sum(stopped + 0.1 < at < went for at in times)
    assert meanwhile <= RATE  # two workers have two slices each, and no more than a second's worth
    assert most_in_a_second(times) <= 1.1 * RATE + 5
    assert sum(went + 1 <= at < went + 4 for at in times) >= 0.8 * 3 * RATE


def test_new_limits_hold_after_a_reload(stage: Stage) -> None:
    host = stage.host()
    file = limited(stage, host, "rate = '5/s'\nconnections = 1")
    worker, *_ = workers(stage, file, 1)
    stage.push(map(mail, range(3_000)))
    host.has_taken(5)
    limited(stage, host, f"rate = '{2 * RATE}/s'")
    worker.signal(signal.SIGHUP)
    host.has_taken(6 * RATE)
    assert most_in_a_second(sorted(each.at for each in host.look())) <= 1.1 * 2 * RATE + 5
    until(lambda: not stage.redis.exists("{geomail:default}:conns"), "no leases any more")
    limited(stage, host, "")
    worker.signal(signal.SIGHUP)
    host.has_taken(3_000)


def test_who_waits_for_a_rate_that_is_no_more_goes_at_once(stage: Stage) -> None:
    host = stage.host()
    file = limited(stage, host, "rate = '1/s'\nconnections = 1")
    worker, *_ = workers(stage, file, 1)
    stage.push(map(mail, range(3)))
    host.has_taken(1)
    until(lambda: 0 < stage.counts().in_flight <= 2, "the others are at hand")
    limited(stage, host, "connections = 1")
    worker.signal(signal.SIGHUP)
    changed = time.time()
    host.has_taken(3)
    assert host.look()[-1].at < changed + 15  # an idle connection lasts 30 s


def test_who_stands_still_loses_his_leases_and_leaves_when_he_wakes(stage: Stage) -> None:
    log = stage.folder / "crowd"
    host = stage.host(crowd=str(log), delay_s=0.02)
    file = limited(stage, host, "connections = 4")
    first, *_ = workers(stage, file, 1)
    stage.push(map(mail, range(1_500)))
    until(lambda: [now for _, now in crowd(log)[-1:]] == [4], "four connections")
    first.signal(signal.SIGSTOP)
    second, *_ = workers(stage, file, 1)
    until(lambda: held(stage) == [4], "all for the second one")
    until(lambda: max(now for _, now in crowd(log)) == 8, "the host sees those of the first yet")
    first.signal(signal.SIGCONT)
    until(lambda: crowd(log)[-1][1] <= 4, "those of the first end")
    until(lambda: held(stage) == [2, 2], "both have their share")
    host.has_taken(1_000)
    assert second.is_running


def test_one_connection_for_four_workers_loses_no_time(stage: Stage) -> None:
    log = stage.folder / "crowd"
    host = stage.host(crowd=str(log), delay_s=0.01)
    file = limited(stage, host, "connections = 1")
    workers(stage, file, 4)
    stage.push(map(mail, range(600)))
    host.has_taken(600)
    once_each(host.arrivals(), users(600))
    assert max(now for _, now in crowd(log)) == 1
    times = sorted(each.at for each in host.look())
    assert times[-1] - times[0] < 15  # 6 s at best


@pytest.mark.parametrize(
    ("text", "mails"),
    [
        ("connections = 1", 200),
        ("rate = '20/min'", 3),
        ("rate = ['100/s', '150/min']\nconnections = 3", 120),
    ],
)
def test_a_burst_of_several_leaves_nothing_behind(stage: Stage, text: str, mails: int) -> None:
    host = stage.host(delay_s=0.005)
    file = limited(stage, host, text)
    stage.push(map(mail, range(mails)))
    assert stage.burst("--processes", "3", "--config", file) == "left delayed=0 parked=0 dead=0"
    once_each(host.arrivals(), users(mails))


def test_a_quota_is_used_up_at_full_speed_and_no_further(stage: Stage) -> None:
    host = stage.host()
    file = limited(stage, host, "rate = ['200/s', '300/min']")
    workers(stage, file, 2)
    stage.push(map(mail, range(400)))
    host.has_taken(300)
    times = sorted(each.at for each in host.look())
    assert times[299] - times[0] < 5
    until(lambda: stage.counts().in_flight == 0, "all is parked")
    assert stage.held() == 100
    assert len(host.look()) == 300


def test_a_quota_that_is_used_up_is_asked_for_rarely(stage: Stage) -> None:
    host = stage.host()
    workers(stage, limited(stage, host, "rate = ['200/s', '20/min']"), 1)
    seconds, _ = stage.redis.time()
    stage.redis.hset("{geomail:default}:rate:20/min", str(seconds - 56), 20)  # 5 s are left of it
    before = calls_of_scripts(stage)
    stage.push(map(mail, range(10)))
    host.has_taken(10)
    assert calls_of_scripts(stage) - before < 150


def calls_of_scripts(stage: Stage) -> int:
    calls: int = stage.redis.info("commandstats")["cmdstat_evalsha"]["calls"]
    return calls
