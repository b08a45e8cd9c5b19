"""A model in an `agent` child of this program: a signal or a hang that a model causes ends the child alone.

Python 3.9 syntax, the standard library; NumPy once arrays are spoken of.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from edgeloop.errors import DeviceError, EdgeloopError, TargetError
from edgeloop.processes.children import meaning, owned, signal_of
from edgeloop.processes.frames import pack, read_frame, unpack, write_frame

if TYPE_CHECKING:
    import numpy as np

# the packed file this module was imported from, relative to where the program began; from a checkout there is none
_ARCHIVE = getattr(getattr(sys.modules[__name__], "__loader__", None), "archive", None)
PROGRAM = [os.path.abspath(_ARCHIVE)] if _ARCHIVE else ["-m", "edgeloop.runtime.agent"]


@dataclass(frozen=True)
class ChildRun:
    """The outputs of one run, how long it took, and the child's peak resident memory so far (None: unknown)."""

    outputs: Mapping[str, np.ndarray]
    wall_ms: float
    rss_peak_bytes: int | None


class ChildModel:
    """A model that is loaded in a child. Made by `loaded`.

    Attributes:
        signatures: {name: {inputs, outputs: {tensor: {shape (None where free), dtype}}}}.
        version: The runtime's.
    """

    version: str = ""

    def __init__(self, process: subprocess.Popen, log: IO[bytes], what: str, timeout_s: float) -> None:
        self._process, self._log, self._what, self._timeout_s = process, log, what, timeout_s
        self._overdue = threading.Event()
        self.signatures: dict[str, dict] = {}

    def run(self, inputs: Mapping[str, np.ndarray], signature: str) -> ChildRun:
        """One run of a signature.

        Raises:
            TargetError: The runtime refuses the inputs, or the child died of a signal.
            DeviceError: It gave no answer in time, or ended in another way.
        """
        answer, data = self.ask("run", {"signature": signature, "runs": 1}, pack(inputs), TargetError)
        return ChildRun(unpack(data), answer["wall_ms"][0], answer["rss_peak_bytes"])

    def ask(
        self, op: str, fields: Mapping[str, Any], payload: bytes, refused: type[EdgeloopError]
    ) -> tuple[dict[str, Any], bytes]:
        """One question to the agent; `refused` where it answers with an error. Raises as `run` else."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            write_frame(self._process.stdin, dict(fields, op=op), payload)
            frame = read_frame(self._process.stdout)
        except (OSError, ValueError) as e:  # it went away in the middle of a frame
            raise self._ended(op) from e
        if frame is None:
            raise self._ended(op)
        if "error" in frame[0]:
            error = frame[0]["error"]
            raise refused(f"{self._what}: {op} failed with {error['type']}: {error['message'] or 'no reason given'}")
        return frame

    def stop(self) -> None:
        """It took too long."""
        self._overdue.set()
        self._process.kill()

    def _ended(self, op: str) -> EdgeloopError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        if self._overdue.is_set():
            return DeviceError(f"{self._what}: {op} did not end within {self._timeout_s:g} s. The child was ended.")
        code = self._process.returncode
        name = signal_of(code)
        if name:
            return TargetError(f"{self._what}: the child died of {name} during {op}. {meaning(name)}")
        self._log.seek(0)
        words = self._log.read()[-400:].decode(errors="replace").strip().splitlines() or ["no last words"]
        return DeviceError(f"{self._what}: the child ended during {op} (exit code {code}): {words[-1].rstrip('.')}.")


def _first_to_go(pid: int) -> None:
    """Where memory runs out, the kernel shall end the child that runs a model, not the program that watches it: seen on
    a device of 128 MB. Source: https://man7.org/linux/man-pages/man5/proc_pid_oom_score_adj.5.html"""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/oom_score_adj", "w") as file:  # no procfs: as it comes
        file.write("500")


def words_file() -> IO[bytes]:
    """Where a child's words go: memory where the system has such files, for a full disk takes not even an empty one."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("words"), "w+b")
    return tempfile.TemporaryFile()


@contextlib.contextmanager
def model_in_child(
    runtime: str, folder: str, entry: str, threads: int = 1, timeout_s: float = 120.0
) -> Iterator[ChildModel]:
    """`folder/entry` in a child that may take `timeout_s` for all of the block and is ended with it.

    Raises:
        DeviceError: The runtime does not load on this device; or as `ChildModel.run`.
        TargetError: It refuses the model, or dies of it.
    """
    command = [sys.executable, "-I", *PROGRAM, "runtime.agent.serve_model", runtime, os.path.abspath(folder)]
    pipe = subprocess.PIPE
    with words_file() as log, owned(command, stdin=pipe, stdout=pipe, stderr=log, grace_s=1) as process:
        _first_to_go(process.pid)
        model = ChildModel(process, log, f"{entry} on {runtime}", timeout_s)
        watch = threading.Timer(timeout_s, model.stop)
        watch.daemon = True
        watch.start()
        try:
            model.version = str(model.ask("probe", {}, b"", DeviceError)[0]["version"])
            prepared = model.ask("prepare", {"path": entry, "threads": threads}, b"", TargetError)
            model.signatures = prepared[0]["signatures"]
            yield model
        finally:
            watch.cancel()
