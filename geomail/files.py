"""Open files: every connection is one, and a system gives a process 1,024 unless it asks.

Most systems allow far more than that to whoever raises the limit (the soft one, up to the hard
one). It is raised as far as the connections need it, and not further: some programs that are
started by others go through all the files they might have. Where the hard limit is too low, that is
said once; connections that find no place fail like those to a host that refuses them.
"""

import resource

from geomail import log

_OTHERS = 200
"""Redis, the journal, logs, lookups, and connections that are about to end."""


def make_room(connections: int) -> None:
    """Raise this process's limit of open files as far as so many connections need it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + _OTHERS
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    is_enough = hard == resource.RLIM_INFINITY or hard >= needed
    soft = needed if is_enough else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if not is_enough:
        log.warning(
            "few_open_files",
            limit=hard,
            needed=needed,
            hint="raise the hard limit (ulimit -Hn, LimitNOFILE=), or lower concurrency, or"
            " door_connections",
        )
