"""What a limit of connections costs: workers agree on it in Redis, and not for each mail."""

from functools import partial
from pathlib import Path

import pytest
from hired import Place, mails, until, url

from geomail.queue.limits import Limiter, Permit
from geomail.sink import Sink

pytest_plugins = ("worker_fixtures",)


def test_no_mail_has_a_question_of_its_own(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    class Counting(Limiter):
        def connect(self, route: str, limit: int, *, has: int, wanted: int) -> Permit:
            asked.append(wanted)
            return super().connect(route, limit, has=has, wanted=wanted)

    monkeypatch.setattr("geomail.worker.life.Limiter", Counting)
    file = tmp_path / "geomail.toml"
    with Sink() as sink:
        file.write_text(f"[relay.default]\nurl = '{url(sink)}'\nconnections = 10\n")
        place.worker(file=file)
        for _ in range(200):
            came = sink.count
            place.push(*mails(1))
            until(partial(_has_more, sink, came), "the next mail", within_s=20)
        assert 0 < len(asked) < 100


def _has_more(sink: Sink, count: int) -> bool:
    return sink.count > count
