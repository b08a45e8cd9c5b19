"""A model in an agent of its own: a signal or a hang that a model causes ends that child alone.

Python 3.9 syntax, the standard library; NumPy once arrays are spoken of.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from edgeloop.errors import DeviceError, TargetError
from edgeloop.leftovers import log_file
from edgeloop.processes.children import owned
from edgeloop.processes.conversation import Conversation
from edgeloop.processes.frames import pack, unpack
from edgeloop.runtime.agent.protocol import (
    PrepareRequest,
    ProbeRequest,
    RunRequest,
    SelfCheckReply,
    SelfCheckRequest,
)

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


class ChildModel(Conversation):
    """A model that is loaded in a child. Made by `model_in_child`.

    Attributes:
        signatures: {name: {inputs, outputs: {tensor: {shape (None where free), dtype}}}}.
        version: The runtime's.
    """

    crash = TargetError
    runs_model = True
    version: str = ""

    def __init__(self, child: subprocess.Popen, where: str, timeout_s: float, log: IO[bytes]) -> None:
        super().__init__(child, where, timeout_s, log)
        self.signatures: Mapping[str, Any] = {}

    def load(self, entry: str, threads: int) -> None:
        """Load the model at `entry`.

        Raises:
            DeviceError: The runtime does not load on this device; or as `run`.
            TargetError: It refuses the model, or dies of it.
        """
        self.version = str(self.request(ProbeRequest())[0].version)
        prepared, _ = self.request(PrepareRequest(path=entry, threads=threads), refused=TargetError)
        self.signatures = prepared.signatures or {}

    def run(self, inputs: Mapping[str, np.ndarray], signature: str) -> ChildRun:
        """One run of a signature.

        Raises:
            TargetError: The runtime refuses the inputs, or the child died of a signal.
            DeviceError: It gave no answer in time, or ended in another way.
        """
        reply, data = self.request(RunRequest(signature), pack(inputs), TargetError)
        return ChildRun(unpack(data), reply.wall_ms[0], reply.rss_peak_bytes)

    def self_check(self, variant: str, first: bool = False) -> SelfCheckReply:
        """One pass over the reference inputs of the bundle, which the child alone reads; `first`: one run of them.

        Raises:
            DataError: reference.npz is not what it should be.
            TargetError: The runtime refuses the inputs, or the child died of a signal.
            DeviceError: It gave no answer in time, or ended in another way.
        """
        return self.request(SelfCheckRequest(variant, first), refused=TargetError)[0]


@contextlib.contextmanager
def started_agent(runtime: str, folder: str) -> Iterator[tuple[subprocess.Popen, IO[bytes]]]:
    """An agent of this program for models in `folder`, and its log; ended with the block.

    Raises:
        DeviceError: No process can be started.
    """
    command = [sys.executable, "-I", *PROGRAM, "runtime.agent.serve_model", runtime, os.path.abspath(folder)]
    pipe = subprocess.PIPE
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(log_file())
        try:
            child = stack.enter_context(owned(command, stdin=pipe, stdout=pipe, stderr=log, grace_s=1))
        except OSError as e:
            raise DeviceError(
                f"the model's process cannot be started ({e.strerror})", advice="Free memory there."
            ) from e
        _first_to_go(child.pid)
        yield child, log


@contextlib.contextmanager
def model_in_child(
    runtime: str, folder: str, entry: str, threads: int = 1, timeout_s: float = 120.0
) -> Iterator[ChildModel]:
    """`folder/entry` in a child that may take `timeout_s` for all of the block and is ended with it.

    Raises as `ChildModel.load`, and DeviceError where no process can be started.
    """
    with started_agent(runtime, folder) as (child, log):
        model = ChildModel(child, f"{entry} on {runtime}", timeout_s, log)
        model.deadline = time.monotonic() + timeout_s
        model.load(entry, threads)
        yield model


def _first_to_go(pid: int) -> None:
    """Where memory runs out, the kernel shall end the child that runs a model, not the program that watches it: seen on
    a device of 128 MB. Source: https://man7.org/linux/man-pages/man5/proc_pid_oom_score_adj.5.html"""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/oom_score_adj", "w") as file:  # no procfs: as it comes
        file.write("500")
