"""The host's end of an agent: start it, ask it, bound every wait, end it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from edgeloop.errors import DeviceError, EdgeloopError, TargetError
from edgeloop.hashes import digest
from edgeloop.leftovers import log_file
from edgeloop.processes.conversation import Conversation
from edgeloop.processes.frames import pack, unpack
from edgeloop.runtime.agent.protocol import (
    ConditionsRequest,
    PrepareReply,
    PrepareRequest,
    ProbeReply,
    ProbeRequest,
    ProfileReply,
    ProfileRequest,
    RunReply,
    RunRequest,
    RuntimesRequest,
    TensorsRequest,
)
from edgeloop.runtime.agent.push import PushRequest
from edgeloop.runtime.agent.send import send_file
from edgeloop.runtime.connection import connect
from edgeloop.runtime.device import Device


@dataclass(frozen=True)
class RunResult(RunReply):
    """Outputs of the last of `len(wall_ms)` runs beside what each run took.

    A time is one invoke: inputs are in place before it, outputs are copied out after it. Programs that prove and do
    not measure (TF.js in Node, the page) leave out what follows the times.
    """

    outputs: Mapping[str, np.ndarray] = field(default_factory=dict)


class RuntimeClient(Conversation):
    """A running agent. Made by `agent()`; not thread-safe: one question at a time.

    `source`: the folder of this machine that a device elsewhere is sent its files from; None: it opens them itself.
    """

    runs_model = True

    def __init__(
        self, child: subprocess.Popen, where: str, timeout_s: float, log: IO[bytes], source: Path | None = None
    ) -> None:
        super().__init__(child, where, timeout_s, log)
        self.source = source

    def probe(self, refused: type[EdgeloopError] = DeviceError) -> ProbeReply:
        """The runtime, loaded, and the machine.

        Raises:
            DeviceError: The agent died or did not answer in time.
            EdgeloopError: `refused` where the runtime does not load there.
        """
        return self.request(ProbeRequest(), refused=refused)[0]

    def push(self, file: Path, path: str) -> str:
        """Bring a file below the agent's root. Raises as `send_file`."""
        send_file(self, file, PushRequest(path, file.stat().st_size, digest(file)))
        return path

    def prepare(
        self,
        path: str,
        threads: int = 1,
        keep: bool = False,
        files: Sequence[str] = (),
        delegate: Mapping[str, Any] | None = None,
    ) -> PrepareReply:
        """Load the model at `path`, relative to the agent's root; `keep` its inner tensors, for `tensors`.

        `files` are those it needs besides: a device elsewhere is sent them, into a folder named by the model's hash.
        `delegate`: as `PrepareRequest` has it.

        Raises:
            TargetError: The runtime or the delegate refuses the model, or the delegate leaves operators on the CPU.
            DeviceError: The delegate's device is missing or its library does not load; the agent died or did not
                answer in time.
            OptionsError: The runtime takes no delegates.
        """
        if self.source is not None:
            folder = digest(self.source / path)[:16]
            for name in {path, *files}:
                self.push(self.source / name, f"{folder}/{name}")
            path = f"{folder}/{path}"
        return self.request(PrepareRequest(path, threads, keep, delegate), refused=TargetError)[0]

    def run(
        self, inputs: Mapping[str, np.ndarray], signature: str | None = None, warmup: int = 0, runs: int = 1
    ) -> RunResult:
        """Run a signature `warmup` + `runs` times on the same inputs. Raises as `prepare`."""
        reply, payload = self.request(RunRequest(signature, warmup, runs), pack(inputs), TargetError)
        return RunResult(**vars(reply), outputs=self._arrays(payload, "run"))

    def conditions(self) -> Mapping[str, Any]:
        """Governor, clock, temperature, throttling, load: each a value or "unknown" (agent/machine/conditions.py).

        Raises:
            DeviceError: The agent died or did not answer in time.
        """
        return self.request(ConditionsRequest())[0].conditions

    def profile(
        self, inputs: Mapping[str, np.ndarray], signature: str | None = None, runs: int = 100, xnnpack: bool = True
    ) -> ProfileReply:
        """Time of each operator of a .tflite, from `runs` runs of their own of the model, loaded once more beside it.

        With `xnnpack` operators are those of XNNPACK, which are what `run` runs; without it those of the model, on
        slower kernels. Ask after everything else was measured: it leaves the agent larger.

        Raises:
            TargetError: LiteRT refuses the model.
            DeviceError: The agent died or did not answer in time.
        """
        return self.request(ProfileRequest(signature, runs, xnnpack), pack(inputs), TargetError)[0]

    def tensors(
        self, inputs: Mapping[str, np.ndarray], indices: Sequence[int], graph: int, signature: str | None = None
    ) -> dict[int, np.ndarray]:
        """Run once and read those tensors of a .tflite that was prepared with `keep`, by their index in `graph`.

        Raises as `prepare`.
        """
        _, payload = self.request(TensorsRequest(signature, graph, list(indices)), pack(inputs), TargetError)
        return {int(name): array for name, array in self._arrays(payload, "tensors").items()}

    def _arrays(self, payload: bytes, op: str) -> dict[str, np.ndarray]:
        try:
            return unpack(payload)
        except ValueError as e:
            raise DeviceError(
                f"{op} returned something other than an .npz file of arrays ({e})",
                advice="Run the same edgeloop on both ends.",
                where=self.where,
            ) from e


@contextlib.contextmanager
def agent(device: Device, runtime: str, folder: str | Path, timeout_s: float = 120.0) -> Iterator[RuntimeClient]:
    """An agent for `runtime` on a device, able to open files below this machine's `folder`.

    Raises:
        DeviceError: The device cannot be reached, no such interpreter there, or no program at all.
    """
    where = f"{runtime} on {device.name}"
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(log_file())
        connection = stack.enter_context(connect(device))
        root = "files" if connection.remote else str(Path(folder).absolute())
        child = stack.enter_context(connection.start(["runtime.agent.serve_model", runtime, root], log))
        client = RuntimeClient(child, where, timeout_s, log, Path(folder) if connection.remote else None)
        if connection.remote:
            stack.enter_context(client.signs_of_life())
        yield client


def survey(device: Device, timeout_s: float = 60.0) -> dict[str, str]:
    """{runtime: version} of the runtimes a device has, in one start and without loading any.

    Raises:
        DeviceError: The device cannot be reached, no such interpreter there, or no program at all.
    """
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(log_file())
        child = stack.enter_context(stack.enter_context(connect(device)).start(["runtime.agent.survey"], log))
        return dict(Conversation(child, device.name, timeout_s, log).request(RuntimesRequest())[0].runtimes)
