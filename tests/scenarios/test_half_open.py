"""Connections that swallow everything, as after a firewall has forgotten them.

Nobody is told: what is sent vanishes, and no reply comes. The worker finds out by its own time-outs
and connects anew.
"""

import time
from contextlib import closing

from scenarios.at_rest import check
from scenarios.meddler import Meddler, RedisMeddler, Talk
from scenarios.stage import Stage, mail, once_each, until, users


class Firewall:
    """Forgets the connections that are open now; new ones are let through."""

    def __init__(self, proxy: Meddler) -> None:
        self._forgotten = set(map(id, proxy.talks))
        self._talks = list(proxy.talks)  # so that no other gets the id of one
        self.swallowed: list[str] = []
        proxy.asked = proxy.answered = self._swallow

    def _swallow(self, talk: Talk, verb: str, data: bytes) -> bytes:
        if id(talk) not in self._forgotten:
            return data
        self.swallowed.append(verb)
        return b""


def test_with_a_wait_pending(stage: Stage) -> None:
    with closing(RedisMeddler(stage.server.port)) as proxy:
        host = stage.host()
        stage.worker(relay=host, redis=proxy.url, lease_s=30, beat_s=5)
        stage.push([mail(0)])
        host.has_taken(1)
        until(stage.is_clean)
        until(lambda: stage.redis.info("clients")["blocked_clients"])
        firewall = Firewall(proxy)
        stage.push([mail(1)])  # Redis hands it to the waiting connection, whose reply vanishes
        began = time.monotonic()
        until(lambda: "BLMOVE" in firewall.swallowed)
        check(stage, pushed=1, delivered=0)
        host.has_taken(2, within_s=15)
        assert time.monotonic() - began < 15
        until(stage.is_clean)
        once_each(host.arrivals(), users(2))


def test_under_load(stage: Stage) -> None:
    with closing(RedisMeddler(stage.server.port)) as proxy:
        host = stage.host(delay_s=0.01)
        stage.push(map(mail, range(1_000)))
        worker = stage.worker(relay=host, redis=proxy.url, lease_s=30, beat_s=5)
        host.has_taken(200)
        Firewall(proxy)
        until(stage.is_clean)
        once_each(host.arrivals(), users(1_000))
        assert "lease_lost" not in worker.stderr
