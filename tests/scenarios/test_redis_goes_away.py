"""Redis is away at the start, dies under load, forgets its scripts, refuses: nothing is lost."""

import socket

import redis

from scenarios.stage import Stage, mail, once_each, until, users


def test_it_is_waited_for_at_the_start(stage: Stage) -> None:
    host = stage.host()
    stage.server.stop()
    worker = stage.worker(relay=host)
    worker.says("redis_away")
    assert worker.is_running
    stage.restart_redis()
    stage.push(map(mail, range(10)))
    host.has_taken(10)
    worker.says("redis_back")
    until(stage.is_clean)
    once_each(host.arrivals(), users(10))


def test_killed_under_load_and_started_on_the_same_files(stage: Stage) -> None:
    host = stage.host(delay_s=0.01)
    stage.push(map(mail, range(4_000)))
    worker = stage.worker(relay=host)
    for taken in (500, 1_500, 2_500):
        host.has_taken(taken)
        stage.server.kill()
        worker.says("redis_away")
        stage.restart_redis()
    until(stage.is_clean)
    once_each(host.arrivals(), users(4_000))
    assert worker.is_running
    assert "greenlet_broke" not in worker.stderr
    assert "redis_back" in worker.stderr  # said once where three outages follow within seconds


def test_away_for_longer_than_the_lease(stage: Stage) -> None:
    host = stage.host(delay_s=0.3)
    stage.push(map(mail, range(240)))
    worker = stage.worker(relay=host, lease_s=0.6, beat_s=0.1)
    host.has_taken(20)
    stage.server.kill()
    worker.says("lease_lost")  # what it holds may be another's by now: it begins nothing more
    stage.restart_redis()
    until(stage.is_clean, "a list that is empty")
    assert not set(users(240)) - host.arrivals().keys()
    assert "greenlet_broke" not in worker.stderr


def test_restarted_in_order_while_idle(stage: Stage) -> None:
    host = stage.host()
    worker = stage.worker(relay=host)
    stage.push([mail(0)])
    host.has_taken(1)
    stage.server.stop()
    stage.restart_redis()
    stage.push([mail(1)])
    host.has_taken(2)
    until(stage.is_clean)
    once_each(host.arrivals(), users(2))
    assert worker.is_running


def test_scripts_are_flushed_under_load(stage: Stage) -> None:
    host = stage.host(delay_s=0.005)
    stage.push(map(mail, range(3_000)))
    worker = stage.worker(relay=host)
    for taken in range(300, 2_700, 300):
        host.has_taken(taken)
        stage.redis.script_flush()
    until(stage.is_clean)
    once_each(host.arrivals(), users(3_000))
    assert "greenlet_broke" not in worker.stderr


def test_connections_are_cut_under_load(stage: Stage) -> None:
    host = stage.host(delay_s=0.005)
    stage.push(map(mail, range(3_000)))
    worker = stage.worker(relay=host)
    for taken in range(300, 2_700, 300):
        host.has_taken(taken)
        stage.redis.client_kill_filter(_type="normal", skipme=True)
    until(stage.is_clean)
    once_each(host.arrivals(), users(3_000))
    assert "greenlet_broke" not in worker.stderr


def test_full_is_waited_for_and_emptied(stage: Stage) -> None:
    host = stage.host()
    worker = stage.worker(relay=host)
    worker.says("running")
    stage.push(map(mail, range(300)))
    stage.redis.config_set("maxmemory", 1)
    host.has_taken(300)
    until(stage.is_clean)
    stage.redis.config_set("maxmemory", 0)
    stage.push([mail(300)])
    host.has_taken(301)
    once_each(host.arrivals(), users(301))


def test_wrong_password_is_one_line_and_status_2(stage: Stage) -> None:
    host = stage.host()
    stage.redis.config_set("requirepass", "right")
    for login, words in (("", "password"), (":wrong-one@", "wrong")):
        url = f"redis://{login}127.0.0.1:{stage.server.port}/0"
        worker = stage.worker(relay=host, redis=url)
        assert worker.wait() == 2
        assert worker.stderr.count("\n") == 1, worker.stderr
        assert words in worker.stderr
        assert "wrong-one" not in worker.stderr
    right = f"redis://:right@127.0.0.1:{stage.server.port}/0"
    assert stage.worker("--burst", relay=host, redis=right).wait() == 0
    redis.Redis(port=stage.server.port, password="right").config_set("requirepass", "")


def test_what_answers_is_no_redis(stage: Stage) -> None:
    host = stage.host()
    url = f"redis://127.0.0.1:{host.port}/0"
    assert "no Redis" in stage.refusal("run", "--relay", host.url, status=2, redis=url)


def test_a_redis_that_keeps_nothing_is_warned_of(stage: Stage) -> None:
    host = stage.host()
    stage.redis.config_set("appendonly", "no")
    stage.redis.config_set("maxmemory-policy", "allkeys-lru")
    worker = stage.worker("--burst", relay=host)
    assert worker.wait() == 0
    assert "redis_keeps_nothing" in worker.stderr
    assert "redis_may_drop_mail" in worker.stderr


def test_nobody_listens_and_the_port_hangs(stage: Stage) -> None:
    host = stage.host()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        worker = stage.worker(relay=host, redis=url)
        worker.says("redis_away")
        assert worker.is_running
