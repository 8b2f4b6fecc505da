"""Redis refuses for ever: a command is forbidden, or a key is of another program's type.

Waiting does not mend that, so the worker says so in one line and leaves with status 2; what it held
is where it was, and goes out, once, when it is put right.
"""

import pytest

from scenarios.at_rest import check
from scenarios.stage import Stage, mail, once_each, until, users

TAG = "{queue:email}:"
NEEDED = ["arrive", "jobs", "delayed", "workers"]
OF_THE_LIST = ("~queue:email", "~{queue:email}:*")
OURS = (*OF_THE_LIST, "~{geomail:*")
CAREFUL = ("+@all", "-@dangerous", "-@admin", *OURS)


def give_rights(stage: Stage, *rights: str) -> str:
    """Make a user of Redis with `rights`, and return its URL."""
    stage.redis.execute_command("ACL", "SETUSER", "sender", "reset", "on", ">secret", *rights)
    return f"redis://sender:secret@127.0.0.1:{stage.server.port}/0"


def test_only_what_is_needed_is_enough(stage: Stage) -> None:
    host = stage.host()
    url = give_rights(stage, *CAREFUL)
    file = stage.folder / "limits.toml"
    file.write_text(f"[relay.default]\nurl = '{host.url}'\nrate = '500/s'\nconnections = 5\n")
    worker = stage.worker("--config", str(file), redis=url)
    stage.push([*map(mail, range(100)), mail("bad", to=["data+550@example.org"])])
    until(lambda: stage.counts().dead == 1 and stage.held() == 1)
    check(stage, pushed=101, delivered=100)
    assert "redis_unchecked" in worker.stderr
    assert "NOPERM" not in worker.stderr


def test_who_may_not_keep_what_hosts_take_delivers_all_the_same(stage: Stage) -> None:
    host = stage.host()
    worker = stage.worker(relay=host, redis=give_rights(stage, "+@all", *OF_THE_LIST))
    stage.push(map(mail, range(300)))
    host.has_taken(300)
    until(stage.is_clean)
    worker.says("ceilings_not_kept")
    assert worker.stderr.count("ceilings_not_kept") == 1
    assert worker.is_running


def test_who_may_not_hear_of_doors_delivers_all_the_same(stage: Stage) -> None:
    host = stage.host()
    worker = stage.worker(relay=host, redis=give_rights(stage, "+@all", "~*", "-blpop"))
    worker.says("doors_not_heard")
    stage.push(map(mail, range(10)))
    host.has_taken(10)
    until(stage.is_clean)
    assert worker.stderr.count("doors_not_heard") == 1
    assert worker.is_running


@pytest.mark.parametrize("command", ["evalsha", "blmove", "zscore"])
def test_a_command_is_forbidden_from_the_start(stage: Stage, command: str) -> None:
    host = stage.host()
    url = give_rights(stage, "+@all", "~*", f"-{command}")
    worker = stage.worker(relay=host, redis=url)
    assert worker.wait() == 2
    assert "this user may not do that" in worker.stderr.splitlines()[-1]
    assert "secret" not in worker.stderr


@pytest.mark.parametrize("command", ["evalsha", "blmove"])
def test_a_command_is_forbidden_under_load(stage: Stage, command: str) -> None:
    host = stage.host(delay_s=0.01)
    url = give_rights(stage, "+@all", "~*")
    stage.push(map(mail, range(1_000)))
    worker = stage.worker("--grace", "1", relay=host, redis=url)
    host.has_taken(300)
    give_rights(stage, "+@all", "~*", f"-{command}")
    assert worker.wait() == 2
    assert "this user may not do that" in worker.stderr.splitlines()[-1]
    taken = len(host.arrivals())
    held = stage.held()
    check(stage, pushed=held, delivered=0)
    assert taken + held >= 1_000
    give_rights(stage, "+@all", "~*")
    stage.worker(relay=host, redis=url)
    until(stage.is_clean)
    once_each(host.arrivals(), users(1_000))  # what could not be settled was in the journal


@pytest.mark.parametrize("key", NEEDED)
def test_a_key_has_another_type(stage: Stage, key: str) -> None:
    host = stage.host()
    stage.redis.set(TAG + key, "somebody else's")
    stage.push(map(mail, range(10)))
    worker = stage.worker(relay=host)
    assert worker.wait() == 2
    assert "some other program uses that key" in worker.stderr.splitlines()[-1]
    assert not host.look()
    assert stage.redis.llen("queue:email") == 10
    assert stage.redis.get(TAG + key) == b"somebody else's"
    stage.redis.delete(TAG + key)
    stage.burst(relay=host)
    until(stage.is_clean)
    once_each(host.arrivals(), users(10))


@pytest.mark.parametrize("key", ["conns", "rate:500/s"])
def test_a_limits_key_has_another_type_and_is_put_right(stage: Stage, key: str) -> None:
    host = stage.host()
    stage.redis.set(f"{{geomail:default}}:{key}", "somebody else's")
    file = stage.folder / "limits.toml"
    file.write_text(f"[relay.default]\nurl = '{host.url}'\nrate = '500/s'\nconnections = 5\n")
    worker = stage.worker("--config", str(file))
    stage.push(map(mail, range(10)))
    worker.says("limits_refused")
    assert f"{{geomail:default}}:{key}" in worker.stderr
    assert worker.stderr.count("limits_refused") == 1
    stage.redis.delete(f"{{geomail:default}}:{key}")
    host.has_taken(10)
    until(lambda: stage.held() == 0)


def test_the_producers_list_is_none(stage: Stage) -> None:
    stage.redis.set("queue:email", "somebody else's")
    worker = stage.worker(relay=stage.host())
    assert worker.wait() == 2
    assert "some other program uses that key" in worker.stderr.splitlines()[-1]
    assert stage.redis.get("queue:email") == b"somebody else's"


def test_counters_of_another_type_cost_only_the_counters(stage: Stage) -> None:
    host = stage.host()
    stage.redis.set(TAG + "stats", "somebody else's")
    worker = stage.worker(relay=host)
    stage.push(map(mail, range(10)))
    host.has_taken(10)
    until(lambda: not stage.redis.exists(TAG + "jobs", "queue:email"))
    once_each(host.arrivals(), users(10))
    assert worker.is_running


def test_a_key_gets_another_type_under_load(stage: Stage) -> None:
    host = stage.host(delay_s=0.01)
    stage.push(map(mail, range(1_000)))
    worker = stage.worker("--grace", "1", relay=host)
    host.has_taken(300)
    stage.redis.set(TAG + "delayed", "somebody else's")
    assert worker.wait() == 2
    assert "delayed" in worker.stderr.splitlines()[-1]
    stage.redis.delete(TAG + "delayed")
    held = stage.held()
    check(stage, pushed=held, delivered=0)
    assert len(host.arrivals()) + held >= 1_000
    stage.worker(relay=host)
    until(stage.is_clean)
    once_each(host.arrivals(), users(1_000))
