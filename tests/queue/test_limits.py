"""Limits in Redis: what all workers hold is never above them, and what the dead held is free."""

import contextlib
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import hypothesis.strategies as st
import pytest
import redis
from hypothesis import given
from redis.crc import key_slot
from redis_servers import RedisCluster, RedisServer, find_binary, until

from geomail.errors import RedisUnusable
from geomail.queue import Limiter, Link
from geomail.queue.limits import Offset
from geomail.relays import Rate

pytest_plugins = ("queue_fixtures",)

PACE = Rate(100, 1)


@pytest.fixture
def limiters(server: RedisServer, raw: "redis.Redis", tmp_path: Path) -> Iterator[list[Limiter]]:
    link = Link(server.url)
    made = [Limiter(link, folder=tmp_path / "holders", lease_s=30.0) for _ in range(4)]
    yield made
    for limiter in made:
        limiter.close()


@pytest.mark.parametrize("key", ["conns", "rate:100/s"])
def test_a_key_of_another_type_is_named_and_waited_for_by_its_route_alone(
    limiters: list[Limiter], raw: "redis.Redis", key: str
) -> None:
    raw.set(f"{{geomail:default}}:{key}", "somebody else's")

    def ask(route: str) -> None:
        limiters[0].grant(route, [PACE], 1)
        limiters[0].connect(route, 5, has=0, wanted=1)

    with pytest.raises(RedisUnusable, match=rf"geomail:default}}:{key}"):
        ask("default")
    ask("other")
    raw.delete(f"{{geomail:default}}:{key}")
    ask("default")


# ---- rates


def test_times_follow_each_other_whoever_asks(limiters: list[Limiter]) -> None:
    before = time.monotonic()
    grants = [limiter.grant("default", [PACE], 10) for limiter in limiters]
    assert [grant.n for grant in grants[:2]] == [10, 10]
    assert before - 0.06 < grants[0].start_s <= time.monotonic()
    ends = [grant.start_s + grant.n * 0.01 for grant in grants]
    for end, grant in zip(ends, grants[1:], strict=False):
        assert grant.start_s == pytest.approx(end, abs=0.01)


def test_the_further_ahead_the_fewer_and_none_beyond_two_seconds(limiters: list[Limiter]) -> None:
    granted = [limiters[0].grant("default", [PACE], 10) for _ in range(200)]
    sizes = [grant.n for grant in granted if grant.n]
    assert sizes[0] == 10
    assert sizes[-1] == 1
    assert 190 <= sum(sizes) <= 240
    refused = granted[-1]
    while refused.n:  # a moment has passed meanwhile
        refused = limiters[0].grant("default", [PACE], 10)
    assert 1.5 < refused.start_s - time.monotonic() < 2.2


def test_what_nobody_asked_for_is_not_saved_up(limiters: list[Limiter]) -> None:
    limiters[0].grant("default", [PACE], 1)
    time.sleep(0.3)
    grant = limiters[0].grant("default", [PACE], 100)
    assert grant.start_s > time.monotonic() - 0.08


def test_slow_rates_are_granted_shortly_before_their_time(limiters: list[Limiter]) -> None:
    rate = Rate(10, 60)
    first, second = (limiters[0].grant("default", [rate], 10) for _ in range(2))
    assert (first.n, second.n) == (1, 0)
    assert 5.5 < second.start_s - time.monotonic() < 6.1


def test_a_quota_is_granted_once_whoever_asks(limiters: list[Limiter]) -> None:
    rates = [Rate(10_000, 1), Rate(50, 60)]
    grants = [limiter.grant("default", rates, 20) for limiter in limiters]
    assert [grant.n for grant in grants] == [20, 20, 10, 0]
    assert 50 < grants[3].start_s - time.monotonic() <= 62
    again = limiters[0].grant("default", rates, 20, unused=7)
    assert again.n == 7


def test_each_route_has_its_own(limiters: list[Limiter]) -> None:
    for route in ("default", "mx/example.org", "mx/example.com"):
        assert limiters[0].grant(route, [Rate(1, 60)], 1).n == 1
        assert limiters[0].grant(route, [Rate(1, 60)], 1).n == 0


def test_a_clock_that_was_set_back_costs_two_seconds(
    limiters: list[Limiter], raw: "redis.Redis"
) -> None:
    limiters[0].grant("default", [PACE], 1)
    raw.hset("{geomail:default}:rate:100/s", "next", int((time.time() + 3600) * 1e6))
    refused = limiters[0].grant("default", [PACE], 1)
    assert refused.n == 0
    assert refused.start_s - time.monotonic() < 2.1
    until(lambda: limiters[0].grant("default", [PACE], 1).n)


def age(raw: "redis.Redis", key: str, parts: int) -> None:
    """Have what a quota has counted be older."""
    counted = raw.hgetall(key)
    raw.delete(key)
    raw.hset(key, mapping={str(int(part) - parts): granted for part, granted in counted.items()})


def test_quota_of_a_clock_that_was_set_back_comes_back(
    limiters: list[Limiter], raw: "redis.Redis"
) -> None:
    rates = [Rate(10_000, 1), Rate(50, 1)]
    limiters[0].grant("default", rates, 50)
    age(raw, "{geomail:default}:rate:50/s", -3600 * 60)
    assert limiters[0].grant("default", rates, 50).n == 0
    until(lambda: limiters[0].grant("default", rates, 50).n == 50)


def test_what_went_unused_is_granted_once_more(limiters: list[Limiter], raw: "redis.Redis") -> None:
    rates, key = [Rate(10_000, 1), Rate(50, 60)], "{geomail:default}:rate:50/min"
    assert limiters[0].grant("default", rates, 50).n == 50
    age(raw, key, 30)
    assert limiters[1].grant("default", rates, 50, unused=40).n == 40
    age(raw, key, 31)
    assert limiters[2].grant("default", rates, 50).n == 10
    age(raw, key, 62)
    assert limiters[3].grant("default", rates, 60, unused=10).n == 50
    assert raw.pttl(key) > 0


def test_what_went_unused_counts_though_no_more_is_granted(
    limiters: list[Limiter], raw: "redis.Redis"
) -> None:
    rates, key = [Rate(1, 1), Rate(50, 60)], "{geomail:default}:rate:50/min"
    granted = [limiters[0].grant("default", rates, 5).n for _ in range(4)]
    assert granted[-1] == 0
    assert limiters[0].grant("default", rates, 5, unused=1).n == 0
    assert sum(map(int, raw.hvals(key))) == sum(granted) - 1


@given(
    truth=st.floats(-1e6, 1e6),
    trips=st.lists(st.tuples(st.floats(0, 0.4), st.floats(0, 0.4), st.floats(0, 60)), min_size=1),
)
def test_times_are_never_too_early(truth: float, trips: list[tuple[float, float, float]]) -> None:
    offset, now, least = Offset(), 0.0, 10.0
    for there_s, back_s, pause_s in trips:
        now += pause_s
        server_s = now + there_s - truth
        found = offset.learn(server_s, sent_s=now, received_s=now + there_s + back_s)
        now += there_s + back_s
        least = min(least + 1e-4 * (pause_s + there_s + back_s), back_s)
        assert truth - 1e-6 <= found <= truth + back_s + 1e-6


def test_another_server_with_another_clock_is_noticed() -> None:
    offset = Offset()
    assert offset.learn(1000.0, sent_s=5.0, received_s=5.002) == pytest.approx(-994.998)
    assert offset.learn(991.0, sent_s=6.0, received_s=6.002) == pytest.approx(-984.998)
    assert offset.learn(1002.0, sent_s=7.0, received_s=7.002) == pytest.approx(-994.998)


# ---- connections


def test_connections_never_above_the_limit_whoever_asks(limiters: list[Limiter]) -> None:
    chance = random.Random(5)
    has, granted = Counter[Limiter](), Counter[Limiter]()
    for _ in range(400):
        limiter = chance.choice(limiters)
        has[limiter] = min(has[limiter], chance.randint(0, 10))
        permit = limiter.connect("default", 10, has=has[limiter], wanted=chance.randint(0, 12))
        granted[limiter] = permit.granted
        assert sum(granted.values()) <= 10
        assert permit.share <= permit.granted
        has[limiter] = chance.randint(min(has[limiter], permit.granted), permit.granted)


def test_who_wants_gets_an_even_share(limiters: list[Limiter]) -> None:
    has = dict.fromkeys(limiters, 0)
    for _ in range(4):
        for limiter in limiters:
            permit = limiter.connect("default", 10, has=has[limiter], wanted=20)
            has[limiter] = permit.share  # who is told to come down does so
    assert sorted(has.values()) == [1, 3, 3, 3]
    for limiter in limiters[1:]:
        limiter.connect("default", 10, has=0, wanted=0)
    assert limiters[0].connect("default", 10, has=3, wanted=20).granted == 10


def test_what_is_given_back_leaves_nothing(limiters: list[Limiter], raw: "redis.Redis") -> None:
    limiters[0].connect("default", 10, has=0, wanted=5)
    assert raw.hlen("{geomail:default}:conns") == 1
    assert 0 < raw.pttl("{geomail:default}:conns") <= 60_000
    assert limiters[0].connect("default", 10, has=0, wanted=0).granted == 0
    assert not raw.exists("{geomail:default}:conns")


def test_after_a_roll_back_all_come_down(limiters: list[Limiter], raw: "redis.Redis") -> None:
    assert limiters[0].connect("default", 10, has=0, wanted=10).granted == 10
    raw.flushall()
    assert limiters[1].connect("default", 10, has=0, wanted=10).granted == 10
    back = limiters[0].connect("default", 10, has=10, wanted=10)
    assert (back.granted, back.share) == (10, 5)
    limiters[1].connect("default", 10, has=5, wanted=10)
    assert limiters[0].connect("default", 10, has=5, wanted=10).share == 5
    limiters[1].connect("default", 10, has=2, wanted=2)
    back = limiters[0].connect("default", 10, has=5, wanted=10)
    assert (back.granted, back.share) == (8, 8)


def test_the_leases_of_who_is_silent_end(server: RedisServer, raw: "redis.Redis") -> None:
    link = Link(server.url)
    silent = Limiter(link, folder=None, lease_s=0.5)
    other = Limiter(link, folder=None, lease_s=0.5)
    assert silent.connect("default", 3, has=0, wanted=3).granted == 3
    assert other.connect("default", 3, has=0, wanted=3).granted == 0
    deadline = time.monotonic() + 20
    while other.connect("default", 3, has=0, wanted=3).granted < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_leases_end_though_the_clock_was_set_back(server: RedisServer, raw: "redis.Redis") -> None:
    link, key = Link(server.url), "{geomail:default}:conns"
    silent, other = (Limiter(link, folder=None, lease_s=0.5) for _ in range(2))
    assert silent.connect("default", 3, has=0, wanted=3).granted == 3
    [(name, said)] = raw.hgetall(key).items()
    granted, wanted, begun, lasts = map(int, said.split())
    raw.hset(key, name, f"{granted} {wanted} {begun + 3_600_000} {lasts}")
    assert other.connect("default", 3, has=0, wanted=3).granted == 0
    until(lambda: other.connect("default", 3, has=0, wanted=3).granted == 3)


HOLDER = """
import sys, time
from pathlib import Path
from geomail.queue import Limiter, Link
limiter = Limiter(Link(sys.argv[1]), folder=Path(sys.argv[2]), lease_s=30.0)
print(limiter.connect("default", 3, has=0, wanted=3).granted, flush=True)
time.sleep(600)
"""


def test_what_a_killed_one_held_is_free_at_once(
    server: RedisServer, limiters: list[Limiter], tmp_path: Path
) -> None:
    command = [sys.executable, "-c", HOLDER, server.url, str(tmp_path / "holders")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"3\n"
            assert limiters[0].connect("default", 3, has=0, wanted=3).granted == 0
        finally:
            holder.kill()
    assert limiters[0].connect("default", 3, has=0, wanted=3).granted == 3


def test_files_of_the_long_dead_are_taken_away(server: RedisServer, tmp_path: Path) -> None:
    folder = tmp_path / "holders"
    folder.mkdir()
    for name, age_s in (("old", 7200), ("young", 60)):
        (folder / name).write_bytes(b"")
        os.utime(folder / name, (time.time() - age_s,) * 2)
    limiter = Limiter(Link(server.url), folder=folder, lease_s=30.0)
    limiter.connect("default", 3, has=0, wanted=3)
    names = {path.name for path in folder.iterdir()}
    assert "young" in names
    assert "old" not in names
    assert len(names) == 2
    limiter.close()
    assert {path.name for path in folder.iterdir()} == {"young"}


# ---- a cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    running = RedisCluster(find_binary("7"), tmp_path_factory.mktemp("cluster"))
    with contextlib.closing(running):
        running.wait()
        yield running


def test_routes_spread_over_a_cluster_each_in_one_slot(cluster: RedisCluster) -> None:
    limiter = Limiter(Link(cluster.url), folder=None, lease_s=30.0)
    routes = ["default", "bulk", "mx/example.org", "mx/@example.com", "other"]
    for route in routes:
        assert limiter.connect(route, 2, has=0, wanted=5).granted == 2
        assert limiter.grant(route, [PACE, Rate(5000, 3600)], 5).n == 5
    slots = {key_slot(f"geomail:{route}".encode()) for route in routes}
    assert len({cluster.master_of(slot) for slot in slots}) > 1
    limiter.close()


def clients(cluster: RedisCluster) -> int:
    return sum(raw.info("clients")["connected_clients"] for raw in cluster.raws)


def test_many_routes_need_few_connections(cluster: RedisCluster) -> None:
    before = clients(cluster)
    limiter = Limiter(Link(cluster.url), folder=None, lease_s=30.0)
    for number in range(150):
        assert limiter.connect(f"mx/{number}.example", 2, has=0, wanted=1).granted == 1
    until(lambda: clients(cluster) - before <= 105)
    assert limiter.connect("mx/0.example", 2, has=1, wanted=2).granted == 2
    limiter.close()
    until(lambda: clients(cluster) <= before + 5)
