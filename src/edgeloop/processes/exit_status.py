"""How a child ended: a signal or an exit code, its last words, and what to do. Python 3.9 syntax."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass
from typing import IO

from edgeloop.errors import last_line

WAIT_S = 5.0  # for a child that closed its pipe and is about to end
TAIL_BYTES = 2000  # of its log

OLDEST_PYTHON = (3, 9)  # that runs the program of a device
OLD_PYTHON = 121  # the exit code of that program on an older one
NO_PACKAGE = 122  # of it on one that lacks a package

_ASKED = "It was asked to end: try again."
_ADVICE = {
    "SIGHUP": _ASKED,
    "SIGINT": _ASKED,
    "SIGTERM": _ASKED,
    "SIGILL": "This CPU lacks an instruction that the runtime uses: take another runtime or variant.",
    "SIGSEGV": "The runtime crashes on this model: take another runtime or variant.",
    "SIGKILL": "Something else ended it, the kernel when memory ran out as a rule: take a smaller variant.",
}


@dataclass(frozen=True)
class ExitStatus:
    """How a child ended.

    Attributes:
        code: As `subprocess` has it: -N for signal N. None: it still runs.
        signal: The name of the signal it died of, behind a shell or ssh too; empty: of none.
        last_words: The last line of its log; empty: none.
    """

    code: int | None
    signal: str = ""
    last_words: str = ""

    @property
    def ok(self) -> bool:
        """It ended, and with exit code 0."""
        return self.code == 0

    @property
    def how(self) -> str:
        """`signal SIGSEGV` or `exit code 3`."""
        if self.code is None:
            return "still running"
        return f"signal {self.signal}" if self.signal else f"exit code {self.code}"

    @property
    def advice(self) -> str:
        """What to do where the child had a model at hand, or an old Python; empty where nothing is known."""
        if self.code == OLD_PYTHON:
            return "Name a newer Python there: ssh://HOST/PATH/TO/PYTHON or local:PYTHON."
        if self.code == NO_PACKAGE:
            return "Or name another Python there: ssh://HOST/PATH/TO/PYTHON or local:PYTHON."
        return _ADVICE.get(self.signal, "Take another runtime or variant.") if self.signal else ""

    def __str__(self) -> str:
        return f"{self.how}; its last words: {self.last_words}" if self.last_words else self.how


def exit_status(child: subprocess.Popen, log: IO[bytes] | None = None, wait_s: float = WAIT_S) -> ExitStatus:
    """Wait for a child that is about to end. `log`: the file its standard error went to."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=wait_s)
    return ExitStatus(child.returncode, signal_of(child.returncode), last_words(log) if log is not None else "")


def signal_of(code: int | None) -> str:
    """The name of the signal that a return code tells of: -N a child's own, 128 + N a shell's, as behind ssh. Empty:
    none that has a name."""
    number = 0 if code is None else -code if code < 0 else code - 128
    return next((known.name for known in signal.Signals if known.value == number), "")


def last_words(log: IO[bytes]) -> str:
    """The last line in the file that a child's standard error went to; empty: none."""
    size = os.fstat(log.fileno()).st_size  # the child's own end of the file has moved on, ours may not have
    return last_line(os.pread(log.fileno(), TAIL_BYTES, max(0, size - TAIL_BYTES)))
