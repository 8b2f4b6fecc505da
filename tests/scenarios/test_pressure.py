"""Producers are told when more waits than the high water, and when that is over."""

import geomail
from scenarios.stage import Stage, mail, until


def test_a_worker_tells_those_who_only_push(stage: Stage) -> None:
    client = geomail.Client(stage.server.url)
    stage.push(map(mail, range(50)))
    assert client.pressure() == "ok"
    away = stage.worker(relay="smtp://127.0.0.1:1", high_water=20)
    until(lambda: client.pressure() == "high", "many that wait for a host that is away")
    assert stage.redis.get("{queue:email}:pressure") == b"high"
    client.send(to="ann@example.org", text="t")
    back = stage.host()
    away.kill()
    stage.worker(relay=back, high_water=20)
    until(lambda: client.pressure() == "ok", "few that wait")
    back.has_taken(51)
