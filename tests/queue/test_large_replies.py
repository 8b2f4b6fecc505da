"""What a connection to Redis keeps of a large reply: nothing, once the caller has let go of it.

The C library is asked, for hiredis keeps its buffers outside of what Python can see; and in a
process of its own, where nobody else gives back what he had before.
"""

import ctypes
import json
import subprocess
import sys

import pytest
import redis
from redis_servers import RedisServer

pytest_plugins = ("queue_fixtures",)

LARGE = 8_000_000
PROGRAM = """
import ctypes, json, sys
from geomail.queue import Done, Link, Queue

class MallInfo(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

ask = ctypes.CDLL(None).mallinfo2
ask.restype = MallInfo

def in_use():
    info = ask()
    return info.hblkhd + info.uordblks

queue = Queue(Link(sys.argv[1]))
queue.register()
queue.push([b"small"])
queue.wait(1)
queue.settle([Done(queue.take(1).slots[0])])
queue.push([b"x" * int(sys.argv[2])])
before = in_use()
queue.wait(1)
waited = in_use() - before
slots = queue.take(1).slots
taken = in_use() - before
slots[0].let_go()
print(json.dumps([waited, taken, in_use() - before]))
"""


def test_the_buffers_of_a_wait_and_a_take_are_freed(
    server: RedisServer, raw: "redis.Redis"
) -> None:
    if not hasattr(ctypes.CDLL(None), "mallinfo2"):
        pytest.skip("this C library doesn't say what is in use")
    command = [sys.executable, "-c", PROGRAM, server.url, str(LARGE)]
    told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    waited, taken, let_go = json.loads(told)
    assert waited < LARGE // 2
    assert LARGE * 9 // 10 < taken < LARGE * 3 // 2
    assert let_go < LARGE // 2
