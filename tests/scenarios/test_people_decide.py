"""What people say while mail flows: each key once, hold this, go on."""

import time

from scenarios.stage import Stage, mail, once_each, until, users


def test_a_dedupe_key_lets_one_mail_through(stage: Stage) -> None:
    host = stage.host()
    stage.push([mail(i, dedupe_key="welcome-ann") for i in range(3)])
    stage.push([mail(i) for i in range(3, 6)])
    assert stage.burst(relay=host) == "left delayed=0 parked=0 dead=0"
    arrived = host.arrivals()
    assert len(arrived) == 4
    stage.push([mail(9, dedupe_key="welcome-ann")])
    assert stage.burst(relay=host) == "left delayed=0 parked=0 dead=0"
    assert len(host.arrivals()) == 4
    assert stage.held() == 0


def test_a_dead_mail_gives_its_dedupe_key_back(stage: Stage) -> None:
    host = stage.host()
    stage.push([mail(0, to=["reply+550@example.org"], dedupe_key="k")])
    assert stage.burst(relay=host) == "left delayed=0 parked=0 dead=1"
    stage.push([mail(1, dedupe_key="k")])
    assert stage.burst(relay=host) == "left delayed=0 parked=0 dead=1"
    once_each(host.arrivals(), ["u1@example.org"])


def test_a_held_relay_gets_nothing_until_it_is_resumed(stage: Stage) -> None:
    host = stage.host()
    stage.queue.hold("relay", "default", on=True)
    stage.push(map(mail, range(50)))
    stage.worker(relay=host).says("held relay=default")
    time.sleep(0.5)  # that nothing happens can only be seen by waiting
    assert stage.held() == 50
    assert not host.arrivals()
    stage.queue.hold("relay", "default", on=False)
    host.has_taken(50)
    once_each(host.arrivals(), users(50))
    until(stage.is_clean)


def test_a_held_list_is_left_alone_until_it_is_resumed(stage: Stage) -> None:
    host = stage.host()
    worker = stage.worker(relay=host)
    stage.push([mail(0)])
    host.has_taken(1)
    stage.queue.hold("queue", "queue:email", on=True)
    worker.says("held_lists lists=queue:email")
    stage.push(map(mail, range(1, 20)))
    time.sleep(0.5)  # that nothing happens can only be seen by waiting
    assert stage.counts().waiting == 19
    stage.queue.hold("queue", "queue:email", on=False)
    host.has_taken(20)
    until(stage.is_clean)
