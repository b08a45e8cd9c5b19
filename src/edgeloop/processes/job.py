"""A job in, its events out, from a child process whose resident memory and time are bounded.

A model file is hostile until code that cannot run it has read it; what has to run it (a loader, a converter, an
interpreter) does so in this child. An address-space limit would kill TensorFlow at once, so a watchdog reads what is
resident (`VmRSS`, proc(5)) of the child and of all that it started.
"""

from __future__ import annotations

import json
import os
import pickle
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from edgeloop import errors
from edgeloop.errors import EdgeloopError, ModelError, OptionsError
from edgeloop.processes.children import owned
from edgeloop.progress import Progress, silent

LOOK_EVERY_S = 0.05
LINE_LIMIT_BYTES = 16 << 20
READ = "read"  # the event that ends reading and starts work


@dataclass(frozen=True)
class Limits:
    """What the child may use: until it says that the model is read, and after that.

    TensorFlow alone is 0.65 GB resident; converting MobileNetV2-224 into every form peaked at 2.0 GB.
    """

    read_bytes: int = 2 << 30
    read_s: float = 300.0
    work_bytes: int = 8 << 30
    work_s: float = 7200.0

    def __post_init__(self) -> None:
        if min(self.read_bytes, self.work_bytes) < 1 << 20 or min(self.read_s, self.work_s) <= 0:
            raise OptionsError("a limit below 1 MiB or 0 s lets nothing run. Raise it.")


class WorkerBug(RuntimeError):
    """A traceback that is ours, from the other process."""


def run_limited(
    program: Sequence[str],
    job: Any,
    limits: Limits,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Run `python PROGRAM` on a pickled `job` and return what it hands back: one JSON object.

    The pickle goes to the child only; what comes back is JSON, for the child has met the model.

    Raises:
        ModelError: The child went over a limit, or crashed.
        EdgeloopError: Whatever the child raised of our own tree.
        WorkerBug: It raised anything else.
    """
    with tempfile.TemporaryFile() as log, tempfile.TemporaryFile() as work:
        pickle.dump(job, work)
        work.seek(0)
        command = [sys.executable, "-I", *program]
        with owned(command, stdin=work, stdout=subprocess.PIPE, stderr=log) as child:
            for event in _events(child, limits):
                if "done" in event:
                    return event["done"]
                if "error" in event:
                    raise _error(event)
                if "bug" in event:
                    raise WorkerBug(event["bug"])
                if "say" in event:
                    say(str(event["say"]))
                if "progress" in event:
                    progress(*event["progress"])
            raise _crashed(child, log)


def _events(child: subprocess.Popen, limits: Limits) -> Iterator[dict[str, Any]]:
    assert child.stdout is not None
    pipe, buffer = child.stdout.fileno(), b""
    doing, allowed, deadline = "reading", limits.read_bytes, time.monotonic() + limits.read_s
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if selector.select(LOOK_EVERY_S):  # first: it may say that the model is read
                block = os.read(pipe, 1 << 20)
                if not block or len(buffer) > LINE_LIMIT_BYTES:
                    return
                *lines, buffer = (buffer + block).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if READ in event:
                        doing, allowed = "converting", limits.work_bytes
                        deadline = time.monotonic() + limits.work_s
                    yield event
            resident = resident_bytes(child.pid)
            if resident > allowed:
                raise ModelError(
                    f"{doing} the model took {resident / 2**30:.1f} GiB of memory, more than {allowed / 2**30:.1f}. "
                    "It was ended; raise the limit with --memory-mb if you trust the file."
                )
            if time.monotonic() > deadline:
                raise ModelError(f"{doing} the model took longer than the time limit. It was ended.")


def resident_bytes(pid: int) -> int:
    """What a process and all its descendants hold in memory now; 0 where there is no procfs."""
    total, open_ = 0, [pid]
    while open_:
        folder = Path("/proc") / str(open_.pop())
        with suppress(OSError, ValueError, IndexError):  # it may end while we look
            total += int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            for task in (folder / "task").iterdir():
                open_ += map(int, (task / "children").read_text().split())
    return total


def _error(event: dict[str, Any]) -> EdgeloopError:
    kind = getattr(errors, str(event["error"]), None)
    if not (isinstance(kind, type) and issubclass(kind, EdgeloopError)):
        kind = ModelError
    return kind(str(event["message"]))


def _crashed(child: subprocess.Popen, log: IO[bytes]) -> ModelError:
    with suppress(subprocess.TimeoutExpired):
        child.wait(timeout=5)
    code = child.returncode
    how = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
    log.seek(0)
    last = log.read()[-2000:].decode(errors="replace").strip().splitlines()
    words = f" Its last words: {last[-1][:300]}" if last else ""
    return ModelError(f"the process that read and converted the model crashed ({how}): the model is refused.{words}")
