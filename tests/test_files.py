"""The limit of open files is raised as far as the connections need it, and no further."""

import resource
import subprocess
import sys

_SCRIPT = """
import resource, sys
from geomail import files
soft, hard, connections = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
files.make_room(connections)
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def _limits_after(soft: int, hard: int, connections: int) -> tuple[tuple[int, ...], str]:
    arguments = map(str, (soft, hard, connections))
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, *arguments], capture_output=True, text=True, check=True
    )
    return tuple(map(int, done.stdout.split())), done.stderr


def test_few_connections_change_nothing() -> None:
    limits, said = _limits_after(256, 512, 20)
    assert limits == (256, 512)
    assert said == ""


def test_many_connections_raise_the_limit_as_far_as_they_need_it() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert most >= 2000
    limits, said = _limits_after(256, 2000, 1000)
    assert limits == (1200, 2000)
    assert said == ""


def test_a_hard_limit_that_is_too_low_is_used_up_and_said() -> None:
    limits, said = _limits_after(256, 512, 1000)
    assert limits == (512, 512)
    assert "few_open_files limit=512 needed=1200" in said
    assert "LimitNOFILE" in said
