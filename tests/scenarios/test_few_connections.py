"""Hosts that take few connections, or none: workers find out, remember, and leave others alone."""

import re
from typing import cast

from scenarios.stage import Stage, mail, once_each, until, users

TAKES = 5


def ceilings(stage: Stage) -> dict[bytes, bytes]:
    """Return what workers keep of hosts of the relay `default`."""
    return cast("dict[bytes, bytes]", stage.redis.hgetall("{geomail:default}:ceiling"))


def test_five_connections_of_twenty_are_found_and_remembered(stage: Stage) -> None:
    host = stage.host(max_connections=TAKES, delay_s=0.02)
    stage.push(map(mail, range(1_000)))
    worker = stage.worker("--concurrency", "20", relay=host)
    host.has_taken(1_000)
    until(stage.is_clean)
    once_each(host.arrivals(), users(1_000))
    assert "host_failed" not in worker.stderr
    worker.says("connections_learnt")
    assert re.findall(r"connections_learnt .*most=(\d+)", worker.stderr)[-1] == str(TAKES)
    until(lambda: [kept.split()[0] for kept in ceilings(stage).values()] == [b"5"])


def test_a_relay_whose_first_host_refuses_loses_nothing_by_it(stage: Stage) -> None:
    well = stage.host()
    stage.push(map(mail, range(2_000)))
    worker = stage.worker("--relay", "smtp://127.0.0.1:1", "--relay", well.url)
    well.has_taken(2_000)
    until(stage.is_clean)
    once_each(well.arrivals(), users(2_000))
    worker.says("host_failed")
