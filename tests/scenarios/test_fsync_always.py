"""kill -9 of Redis under load, with appendfsync always: what was acknowledged is there, once."""

import gevent
import msgspec
import redis

from scenarios.stage import Stage, mail, until, users

COUNT = 2_000


def test_killed_under_load(stage: Stage) -> None:
    _always(stage)
    host = stage.host(delay_s=0.005)
    worker = stage.worker(relay=host)
    producing = gevent.spawn(_produce, stage)
    for taken in (300, 800, 1_300):
        host.has_taken(taken)
        stage.server.kill()
        stage.restart_redis()
        _always(stage)
    producing.get(timeout=30)
    until(stage.is_clean)
    arrivals = host.arrivals()
    assert not set(users(COUNT)) - arrivals.keys()
    # A producer whose reply was lost pushes again: at most one mail a kill, and that is its own.
    assert arrivals.total() - COUNT <= 3
    assert worker.is_running
    assert not stage.counts().stats.get("duplicates")


def _always(stage: Stage) -> None:
    until(lambda: _says_yes(stage))


def _says_yes(stage: Stage) -> bool:
    try:
        return bool(stage.redis.config_set("appendfsync", "always"))
    except redis.ConnectionError:
        return False


def _produce(stage: Stage) -> None:
    """Push mails one by one, each until it is acknowledged."""
    with redis.Redis(port=stage.server.port) as producer:
        for number in range(COUNT):
            _push(producer, mail(number))


def _push(producer: "redis.Redis", job: object) -> None:
    payload = msgspec.json.encode(job)
    while True:
        try:
            producer.lpush("queue:email", payload)
        except (redis.ConnectionError, redis.BusyLoadingError):
            gevent.sleep(0.01)
        else:
            return
