"""Limits on a child that meets a model file: the memory it and its descendants hold, and its time.

A model file is hostile until code that cannot run it has read it; what has to run it (a loader, a converter, an
interpreter) does so in such a child. An address-space limit would kill TensorFlow at once, so a watchdog reads what is
resident (`VmRSS`, proc(5)). Python 3.9 syntax.
"""

from __future__ import annotations

import math
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgeloop.errors import ModelError, OptionsError

LOOK_EVERY_S = 0.05
PROC = Path("/proc")
UNWATCHED = (
    "this system does not tell how much memory a process holds (no {0}): the child that reads the model is limited in "
    "time alone. Take care with files you do not trust."
)


@dataclass(frozen=True)
class Limits:
    """What the child may use: until it says that the model is read, and after that.

    TensorFlow alone is 0.65 GB resident; converting MobileNetV2-224 into every form peaked at 2.0 GB. Sizes are told in
    MB, 10^6 bytes, as `--memory-mb` takes them.
    """

    read_bytes: int = 2_000_000_000
    read_s: float = 300.0
    work_bytes: int = 8_000_000_000
    work_s: float = 7200.0

    def __post_init__(self) -> None:
        if min(self.read_bytes, self.work_bytes) < 1_000_000 or not all(
            0 < s < math.inf for s in (self.read_s, self.work_s)
        ):
            raise OptionsError(
                f"the limits of memory are {self.read_bytes / 1e6:g} and {self.work_bytes / 1e6:g} MB, of time "
                f"{self.read_s:g} and {self.work_s:g} s",
                advice="Memory must be 1 MB or more, and time above 0 s.",
            )


class Sandbox:
    """The limits of one child. Whoever waits for it calls `look`, hears what it says meanwhile, and then `check`, every
    LOOK_EVERY_S: memory that was seen before the child said that the model is read is never judged by a stricter limit
    than holds then.

    Args:
        work: What it does to the model once that is read, for messages; `doing` is what it does now.
    """

    def __init__(self, pid: int, limits: Limits, work: str = "converting") -> None:
        self._pid, self._limits, self._work = pid, limits, work
        self.doing, self._bytes, self._s = "reading", limits.read_bytes, limits.read_s
        self._deadline = time.monotonic() + limits.read_s
        self.watches_memory = not unwatched()

    def model_is_read(self) -> None:
        """From here on the limits of work hold."""
        self.doing, self._bytes, self._s = self._work, self._limits.work_bytes, self._limits.work_s
        self._deadline = time.monotonic() + self._limits.work_s

    def look(self) -> int:
        """Bytes that the child and its descendants hold now; 0 where nobody can tell."""
        return resident_bytes(self._pid) if self.watches_memory else 0

    def check(self, resident: int) -> None:
        """Raises ModelError where the child, which held `resident` bytes, is over a limit."""
        if resident > self._bytes:
            raise ModelError(
                f"{self.doing} the model took {resident / 1e6:,.0f} MB of memory, more than "
                f"{self._bytes / 1e6:,.0f}, and was ended",
                advice="Raise the limit with --memory-mb if you trust the file.",
            )
        if time.monotonic() > self._deadline:
            raise ModelError(
                f"{self.doing} the model took longer than the time limit of {self._s:g} s, and was ended",
                advice="Choose a smaller model, or try again on a faster machine.",
            )


def unwatched() -> str:
    """Why the memory of a child cannot be watched on this system, in one line; empty: it can."""
    needed = PROC / "self" / "statm", PROC / "thread-self" / "children"  # the second: CONFIG_PROC_CHILDREN
    return next((UNWATCHED.format(path) for path in needed if not path.exists()), "")


def resident_bytes(pid: int) -> int:
    """What a process and all its descendants hold in memory now; 0 once it has ended."""
    total, open_ = 0, [pid]
    while open_:
        folder = PROC / str(open_.pop())
        with suppress(OSError, ValueError, IndexError):  # it may end while we look
            total += int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            for task in (folder / "task").iterdir():
                open_ += map(int, (task / "children").read_text().split())
    return total
