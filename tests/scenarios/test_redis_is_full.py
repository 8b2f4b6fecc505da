"""Redis has no memory or no disk left: what it holds is still delivered, and nothing is lost."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from geomail.queue import embedded
from scenarios.at_rest import check
from scenarios.stage import Stage, mail, once_each, until, users


def push_until_refused(stage: Stage, refusal: str, *, first: int = 0) -> int:
    """Push mails one by one until Redis refuses, and return how many it has taken."""
    number = first
    while not (said := _push_one(stage, number)):
        number += 1
    assert refusal in said
    return number - first


def _push_one(stage: Stage, number: int) -> str:
    try:
        stage.push([mail(number, text="x" * 2_000)])
    except redis.ResponseError as error:
        return str(error)
    return ""


def test_maxmemory_is_reached_and_drained(stage: Stage) -> None:
    host = stage.host()
    used = int(stage.redis.info("memory")["used_memory"])
    stage.redis.config_set("maxmemory", used + 4_000_000)
    pushed = push_until_refused(stage, "used memory")
    assert pushed > 500
    check(stage, pushed=pushed, delivered=0)
    worker = stage.worker(relay=host)
    host.has_taken(pushed)
    until(stage.is_clean)
    stage.push([mail(pushed)])  # there is room again
    host.has_taken(pushed + 1)
    once_each(host.arrivals(), users(pushed + 1))
    assert "redis_away" not in worker.stderr  # not one call of a consumer was refused


def test_what_fails_in_a_full_redis_is_kept_for_later(stage: Stage) -> None:
    host = stage.host()
    stage.push(mail(number, to=[f"reply+451@h{number}.example"]) for number in range(200))
    stage.redis.config_set("maxmemory", 1)
    stage.worker(relay=host, retries=3, lease_s=1, beat_s=0.1)
    until(lambda: stage.counts().dead == 200)
    check(stage, pushed=200, delivered=0)


def test_no_snapshot_can_be_written(stage: Stage) -> None:
    host = stage.host(delay_s=0.02)
    worker = stage.worker(relay=host)
    stage.push(map(mail, range(2_000)))
    host.has_taken(200)
    in_the_way = stage.server.folder / "dump.rdb"
    in_the_way.mkdir()
    stage.redis.config_set("save", "3600 1")
    stage.redis.bgsave()
    worker.says("MISCONF")
    check(stage, pushed=2_000, delivered=2_000 - stage.held())
    taken = len(host.look())
    assert taken < 2_000
    with pytest.raises(redis.ResponseError, match="MISCONF"):
        stage.push([mail(2_000)])
    assert f"waiting      {stage.counts().waiting}" in stage.ask("status")
    assert stage.ask("dead", "list") == "no dead letters\n"
    in_the_way.rmdir()
    stage.redis.bgsave()
    host.has_taken(2_000)
    until(stage.is_clean)
    once_each(host.arrivals(), users(2_000))
    assert worker.is_running


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a disk of 4 MB; only root can make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)]
    if (
        not shutil.which("mount")
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("no file system may be mounted here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_the_disk_of_the_append_only_file_is_full(small_disk: Path, tmp_path: Path) -> None:
    stage = Stage(tmp_path, embedded.start_private(small_disk / "redis"))
    try:
        host = stage.host()
        worker = stage.worker(relay=host)
        stage.push(map(mail, range(100)))
        host.has_taken(100)
        until(stage.is_clean)
        free = os.statvfs(small_disk)
        (small_disk / "ballast").write_bytes(b"x" * free.f_bavail * free.f_bsize)
        pushed = 100 + push_until_refused(stage, "MISCONF", first=100)
        worker.says("MISCONF")
        (small_disk / "ballast").unlink()
        host.has_taken(pushed)
        until(stage.is_clean)
        once_each(host.arrivals(), users(pushed))
        assert worker.is_running
    finally:
        stage.close()
