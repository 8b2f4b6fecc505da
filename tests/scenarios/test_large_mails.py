"""Mails of megabytes: what they cost a worker while they are in work, and what stays of them."""

import base64
import json
import random
from pathlib import Path

import pytest

from scenarios.stage import Process, Stage, mail, until

WIRE = 8_000_000
IN_WORK, AT_REST = 6.0, 1.0  # times the size on the wire
LINE = "It was the best of times, it was the worst of times.\n"


def text() -> bytes:
    return json.dumps(mail("large", text=LINE * (WIRE // len(LINE)))).encode()


def attachment() -> bytes:
    blob = base64.b64encode(random.Random(1).randbytes(WIRE * 3 // 4)).decode()
    parts = [{"filename": "plans.zip", "content": blob}]
    return json.dumps(mail("large", attachments=parts)).encode()


@pytest.mark.parametrize("chunking", ["off", "on"])
@pytest.mark.parametrize("payload", [text(), attachment()], ids=["text", "attachment"])
def test_a_large_mail_costs_six_times_its_size_and_leaves_nothing(
    stage: Stage, payload: bytes, chunking: str
) -> None:
    relays = stage.folder / "relays.toml"
    host = stage.host()
    relays.write_text(f'[relay.default]\nurls = ["{host.url}"]\nchunking = "{chunking}"\n')
    worker = stage.worker("--config", str(relays), concurrency=2, idle_s=60)
    stage.push([mail(0)])
    host.has_taken(1)
    until(lambda: not stage.held(), "an idle worker")
    forget_the_peak(worker)
    idle = memory(worker, "VmRSS")
    for number in range(2, 5):
        stage.push([payload])
        host.has_taken(number, within_s=60)
        until(lambda: not stage.held(), "an idle worker", within_s=60)
    assert memory(worker, "VmHWM") - idle <= IN_WORK * WIRE
    until(lambda: memory(worker, "VmRSS") - idle <= AT_REST * WIRE, "memory given back")


def forget_the_peak(worker: Process) -> None:
    Path(f"/proc/{worker.pid}/clear_refs").write_text("5")


def memory(worker: Process, field: str) -> int:
    """Return what the kernel tells of a process's memory, in bytes."""
    lines = Path(f"/proc/{worker.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))
