"""Give freed memory back to the system: weights come and go in pieces of megabytes, and glibc would keep them.

Source: https://man7.org/linux/man-pages/man3/mallopt.3.html
"""

from __future__ import annotations

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
PIECE_BYTES = 128 << 10  # glibc's own first threshold, which it would raise with each large piece that is freed


def return_freed_memory() -> None:
    """For this process from now on. Another C library, which has no such settings, does as it does."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_ARENA_MAX, 1)
        mallopt(M_MMAP_THRESHOLD, PIECE_BYTES)
        mallopt(M_TRIM_THRESHOLD, PIECE_BYTES)
