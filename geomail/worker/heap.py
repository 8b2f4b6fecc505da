"""How this process gives memory back: what a large mail took is the system's again when it is gone.

The GNU C library maps a block of 128 KiB or more apart from the heap, and unmaps it when it is
freed. But each block freed so raises the limit to its own size, up to 32 MiB: after the first mail
of 10 MB the next ones lie in the heap, where what is freed under something small is kept for ever,
and where a growing buffer is copied instead of moved. `give_back_large_blocks` fixes the limit at
2 MiB. A mail above that pays for fresh pages (10 MB: 28 ms of system time for all its copies, 13
without); one below pays nothing: it stays in the heap, whose top is kept up to 8 MiB, so that it
doesn't shrink and grow with each mail.

Not promised: anything where another C library is; there it does nothing.
"""

import ctypes

# <malloc.h> of the GNU C library; no other has the function under this name and with these numbers.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_APART = 2 << 20
_KEPT = 8 << 20


def give_back_large_blocks() -> None:
    """Fix the limits of this process's allocator."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
        ctypes.CDLL(None).gnu_get_libc_version  # noqa: B018 - asks whether it is there
    except (AttributeError, OSError):
        return
    mallopt(_MMAP_THRESHOLD, _APART)
    mallopt(_TRIM_THRESHOLD, _KEPT)
