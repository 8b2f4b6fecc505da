"""How many connections hosts take: kept by one worker for the next, and never in anybody's way."""

import time
from typing import Any

from redis_servers import RedisServer

from geomail.queue import Ceilings, Link

pytest_plugins = ("queue_fixtures",)
Raw = Any


def test_what_one_worker_learns_the_next_one_knows(server: RedisServer, raw: Raw) -> None:
    Ceilings(Link(server.url)).keep("mx", "mx.example:25", 5)
    other = Ceilings(Link(server.url))
    assert other.recall("mx", "mx.example:25") == 5
    assert other.recall("mx", "other.example:25") is None
    assert other.recall("default", "mx.example:25") is None
    assert 86_000 < raw.ttl("{geomail:mx}:ceiling") <= 86_400


def test_what_is_older_than_a_day_is_forgotten(server: RedisServer, raw: Raw) -> None:
    before = f"{time.time() - 86_500:.0f}"
    raw.hset("{geomail:default}:ceiling", mapping={"old:25": f"5 {before}", "bad:25": "five"})
    ceilings = Ceilings(Link(server.url))
    assert ceilings.recall("default", "old:25") is None
    assert ceilings.recall("default", "bad:25") is None


def test_a_redis_that_is_away_is_not_waited_for(own_server: RedisServer) -> None:
    ceilings = Ceilings(Link(own_server.url, connect_timeout_s=1.0))
    ceilings.keep("default", "a:25", 3)
    own_server.kill()
    began = time.monotonic()
    ceilings.keep("default", "a:25", 4)
    assert ceilings.recall("default", "a:25") is None
    assert time.monotonic() - began < 10.0
