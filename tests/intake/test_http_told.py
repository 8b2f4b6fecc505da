"""What the HTTP door tells of a job while a worker has it, and when it has ended."""

from pathlib import Path
from typing import Any

from http_described import Description
from http_house import JSON, MAIL, until
from http_process import Listening

from geomail.sink import Sink

_NO, _LATER = "reply+550@example.org", "reply+451@example.org"


class Told:
    """The jobs of a door by names of ours, and what it tells of them."""

    def __init__(self, door: Listening) -> None:
        self._door = door
        self._ids: dict[str, str] = {}
        self._description = Description(door.ask("GET", "/v1/openapi.json").json)

    def send(self, name: str, key: str | None = None, **job: object) -> None:
        fields = JSON if key is None else JSON | {"Idempotency-Key": key}
        answer = self._door.ask("POST", "/v1/messages", MAIL | job, fields)
        self._ids[name] = answer.json["id"]

    def of(self, name: str) -> Any:
        answer = self._door.ask("GET", f"/v1/messages/{self._ids[name]}")
        self._description.check("get", "/v1/messages/{id}", answer)
        return answer.json

    def until(self, name: str, state: str) -> Any:
        until(lambda: self.of(name)["state"] == state, f"{name} is {state}")
        return self.of(name)


def test_each_end(redis_url: str, tmp_path: Path) -> None:
    with (
        Sink() as sink,
        Listening(redis_url, tmp_path, relay=f"smtp://127.0.0.1:{sink.address[1]}") as door,
    ):
        told = Told(door)
        told.send("well")
        told.send("dead", to=[_NO])
        told.send("later", to=[_LATER])
        told.send("half", to=["ann@example.org", _NO])
        told.send("split", to=["ann@example.org", _NO, _LATER])
        told.send("old", expires_at=1)
        told.send("once", key="k")
        assert told.until("well", "delivered")["tries"] == 1
        dead = told.until("dead", "dead")
        assert dead["tries"] == 1
        assert dead["last_reply"].startswith("550 ")
        assert dead["reason"].endswith(dead["last_reply"])
        later = told.until("later", "delayed")
        assert later["tries"] == 1
        assert later["last_reply"].startswith("451 ")
        assert told.until("half", "dead")["recipients"] == [_NO]
        until(lambda: "parts" in told.of("split"))
        split = told.of("split")
        assert split["state"] == "queued"
        assert [part["recipients"] for part in split["parts"]] == [[_NO]]
        assert "expires_at" in told.until("old", "dead")["reason"]
        told.until("once", "delivered")
        told.send("twice", key="k")
        told.until("twice", "duplicate")
        assert sink.count == 4
