"""What is shown of lanes: workers' snapshots put together, without workers."""

from geomail.delivery import shown
from geomail.delivery.shown import HostShown, LaneShown, Snapshot


def lane(host: str = "h:25", route: str = "default", **more: object) -> LaneShown:
    return LaneShown(host, route.partition("/")[0], route, **more)  # type: ignore[arg-type]


def merged(*lanes: LaneShown, age_s: float = 0.0) -> list[HostShown]:
    return shown.merged([(age_s, Snapshot([each])) for each in lanes])


def test_lanes_of_all_workers_to_one_host_are_one_line() -> None:
    (host,) = merged(
        lane(connections=2, window=8, ready=1, in_hand=3, delivered=10),
        lane(connections=3, window=4, ready=2, in_hand=5, delivered=1, failed=7),
    )
    assert (host.workers, host.connections, host.window) == (2, 5, 12)
    assert (host.ready, host.in_hand, host.delivered, host.failed) == (3, 8, 11, 7)


def test_the_worst_state_counts_with_its_reason_and_the_next_try() -> None:
    (host,) = merged(
        lane(connections=1),
        lane(state="closed", why="421 go", again_in_s=9.0, binding="host"),
        lane(state="closed", why="other", again_in_s=4.0),
    )
    assert (host.state, host.why, host.again_in_s) == ("closed", "421 go", 4.0)
    assert (host.connections, host.binding) == (1, "host")


def test_countdowns_go_on_after_the_beat_and_end_at_nothing() -> None:
    closed = lane(state="closed", again_in_s=4.0)
    assert merged(closed, age_s=1.5)[0].again_in_s == 2.5
    assert merged(closed, age_s=60)[0].again_in_s == 0.0


def test_hosts_in_most_trouble_come_first() -> None:
    hosts = merged(
        lane("a"),
        lane("b", state="full"),
        lane("c", in_hand=9),
        lane("d", state="held"),
        lane("e", state="closed"),
        lane("f", state="probing"),
        lane("g", state="waiting"),
    )
    assert [host.host for host in hosts] == ["e", "d", "f", "g", "b", "c", "a"]


def test_one_host_of_two_routes_is_two_lines() -> None:
    assert len(merged(lane(), lane(route="mx/example.org"), lane(host="i:25"))) == 3


def test_what_another_release_wrote_is_passed_over() -> None:
    known = b'{"lanes":[{"host":"h:25","relay":"r","route":"r","news":1}]}'
    told = {"a": known, "b": b"{", "c": b'{"lanes":[{"state":"odd"}]}'}
    assert list(shown.read(told)) == ["a"]


def test_a_pointer_names_list_and_worker() -> None:
    told = shown.read({"x": shown.pointer("queue:größe", "0123")})
    assert told["x"].told_at == ("queue:größe", "0123")
