"""What a connection to Redis keeps of a large reply: nothing, once the caller has let go of it.

The C library is asked, for hiredis keeps its buffers outside of what Python can see.
"""

import ctypes

import pytest

from geomail.queue import Done, Queue

pytest_plugins = ("queue_fixtures",)

LARGE = b"x" * 8_000_000
FIELDS = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks")


class MallInfo(ctypes.Structure):
    """`struct mallinfo2` of the GNU C library."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in (*FIELDS, "fordblks", "keepcost"))


def in_use() -> int:
    """Return how many bytes this process has got from malloc and not given back."""
    try:
        ask = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        pytest.skip("this C library doesn't say what is in use")
    ask.restype = MallInfo
    info = ask()
    return int(info.hblkhd + info.uordblks)


def test_the_buffers_of_a_wait_and_a_take_are_freed(queue: Queue) -> None:
    queue.push([b"small"])
    queue.wait(1)
    queue.settle([Done(queue.take(1).slots[0])])
    queue.push([LARGE])
    before = in_use()
    queue.wait(1)
    assert in_use() - before < len(LARGE) // 2
    slots = queue.take(1).slots
    assert len(LARGE) <= in_use() - before < len(LARGE) * 3 // 2
    assert slots[0].payload == LARGE
    slots[0].let_go()
    assert in_use() - before < len(LARGE) // 2
