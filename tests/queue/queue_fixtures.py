"""A pytest plugin for the tests of the queue: servers of 7 and of 6.2, and queues on them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis_servers import NewQueue, RedisServer, find_binary

from geomail.queue import Link, Queue


@pytest.fixture(scope="session", params=["7", "6.2"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RedisServer]:
    """One server for the whole run, of each version."""
    running = RedisServer(find_binary(request.param), tmp_path_factory.mktemp("redis"))
    yield running
    running.kill()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of this test alone, to be ill-treated."""
    running = RedisServer(find_binary("7"), tmp_path)
    yield running
    running.kill()


@pytest.fixture
def raw(server: RedisServer) -> "redis.Redis":
    """A plain client of the empty server."""
    server.raw.flushall()
    return server.raw


@pytest.fixture
def new_queue(server: RedisServer, raw: "redis.Redis") -> Iterator[NewQueue]:
    """Give a function that makes registered queues on the empty server."""
    made: list[Queue] = []

    def make(**options: Any) -> Queue:
        queue = Queue(Link(server.url), **options)
        queue.register()
        made.append(queue)
        return queue

    yield make
    for queue in made:
        queue.close()


@pytest.fixture
def queue(new_queue: NewQueue) -> Queue:
    """One registered queue."""
    return new_queue()
