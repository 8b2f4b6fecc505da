"""How this process gives memory back: at once, and without looking for it all day.

Large blocks. The GNU C library maps a block of 128 KiB or more apart from the heap, and unmaps it
when it is freed. But each block freed so raises the limit to its own size, up to 32 MiB: after the
first mail of 10 MB the next ones lie in the heap, where what is freed under something small is kept
for ever, and where a growing buffer is copied instead of moved. `give_back_large_blocks` fixes the
limit at 2 MiB. A mail above that pays for fresh pages (10 MB: 28 ms of system time for all its
copies, 13 without); one below pays nothing: it stays in the heap, whose top is kept up to 8 MiB, so
that it doesn't shrink and grow with each mail.

Cycles. What is in hand on 10,000 connections are a million objects, and Python's search for cycles
among them took a third of the CPU time, a second in one piece now and then. Neither a message nor a
connection leaves a cycle behind (only faults do, by their tracebacks), so `collect_rarely` lets the
search wait for more objects the more connections there may be, and leaves out what is there from
the start.

Not promised: large blocks where another C library is; there nothing is done about them.
"""

import ctypes
import gc

# <malloc.h> of the GNU C library; no other has the function under this name and with these numbers.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_APART = 2 << 20
_KEPT = 8 << 20
_OBJECTS_A_CONNECTION = 2


def give_back_large_blocks() -> None:
    """Fix the limits of this process's allocator."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
        ctypes.CDLL(None).gnu_get_libc_version  # noqa: B018 - asks whether it is there
    except (AttributeError, OSError):
        return
    mallopt(_MMAP_THRESHOLD, _APART)
    mallopt(_TRIM_THRESHOLD, _KEPT)


def collect_rarely(connections: int) -> None:
    """Look for cycles as rarely as so many connections allow; to be called once all is imported."""
    first, *others = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(max(first, _OBJECTS_A_CONNECTION * connections), *others)
