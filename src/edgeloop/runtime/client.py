"""The host's end of an agent: start it, ask it, bound every wait, end it."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from edgeloop import errors
from edgeloop.errors import DeviceError, EdgeloopError, TargetError
from edgeloop.hashes import digest
from edgeloop.processes.children import meaning, signal_of
from edgeloop.processes.frames import HEADER_LIMIT_BYTES, PAYLOAD_LIMIT_BYTES, pack, unpack
from edgeloop.runtime.connection import connect
from edgeloop.runtime.device import Device
from edgeloop.runtime.ssh_login import last_line

FRAME = ("v", "id", "op", "bytes")  # what a header says of itself; the rest is the answer
PIECE_BYTES = 4 << 20  # of a file at a time: what a broken upload loses at most


@dataclass(frozen=True)
class RunResult:
    """Outputs of the last of `len(wall_ms)` runs, and what each run took, in order.

    A time is one invoke: inputs are in place before it, outputs are copied out after it. Programs that prove and do
    not measure (TF.js in Node, the page) leave out what follows the times.

    Attributes:
        cpu_ms: Of all threads of the agent together.
        started_s: When each began, in seconds since the agent's first run.
        involuntary_switches: How often the kernel took the CPU away, warm-up included; None: unknown.
        rss_bytes: Of the agent after the last run; None: unknown.
        rss_peak_bytes: Of the agent since its start; None: unknown.
    """

    outputs: Mapping[str, np.ndarray]
    wall_ms: tuple[float, ...]
    cpu_ms: tuple[float, ...]
    started_s: tuple[float, ...]
    involuntary_switches: int | None
    rss_bytes: int | None
    rss_peak_bytes: int | None


@dataclass
class Agent:
    """A running agent. Made by `agent()`; not thread-safe: one question at a time.

    `source`: the folder of this machine that a device elsewhere is sent its files from; None: it opens them itself.
    """

    child: subprocess.Popen
    where: str
    timeout_s: float
    log: IO[bytes]
    source: Path | None = None
    _ids: int = field(default=0)
    _buffer: bytes = field(default=b"")

    def probe(self) -> dict[str, Any]:
        """Python, runtime, version, machine, number of CPUs.

        Raises:
            DeviceError: The runtime does not load there, or the agent died or did not answer in time.
        """
        return self.ask("probe")[0]

    def push(self, file: Path, path: str, fields: Mapping[str, Any] | None = None) -> str:
        """Bring a file below the agent's root; what is there already, whole or in part, does not travel again.

        `fields`: what else each question says, for a part that keeps files in more than one place.

        Raises:
            IntegrityError: It arrived damaged.
            DeviceError: The agent died or did not answer in time.
        """
        header = {**(fields or {}), "path": path, "size": file.stat().st_size, "sha256": digest(file)}
        answer = self.ask("push", header)[0]
        with file.open("rb") as source:
            while not answer["done"]:
                have = answer["have"]
                source.seek(have)
                piece = source.read(PIECE_BYTES)
                answer = self.ask("push", {**header, "offset": have}, piece)[0]
                if not answer["done"] and answer["have"] <= have:
                    raise DeviceError(f"{self.where}: {path} stays at {have} bytes there, whatever is sent.")
        return path

    def prepare(
        self,
        path: str,
        threads: int = 1,
        keep: bool = False,
        files: Sequence[str] = (),
        delegate: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Load the model at `path`, relative to the agent's root; `keep` its inner tensors, for `tensors`.

        `files` are those it needs besides: a device elsewhere is sent them, into a folder named by the model's hash.
        `delegate` {library: "edgetpu", or a library's name or path there; options: {key: value}; allow_cpu_ops: false}.

        Returns:
            {import_ms, load_ms, signatures: {name: {inputs, outputs: {tensor: {shape, dtype}}}}, arena_bytes (or
            "unknown"), delegated: indices of the operators the delegate took, None without one}.

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
        fields = {"path": path, "threads": threads, "keep": keep, "delegate": delegate}
        return self.ask("prepare", fields, refused=TargetError)[0]

    def run(
        self, inputs: Mapping[str, np.ndarray], signature: str | None = None, warmup: int = 0, runs: int = 1
    ) -> RunResult:
        """Run a signature `warmup` + `runs` times on the same inputs. Raises as `prepare`."""
        fields = {"signature": signature, "warmup": warmup, "runs": runs}
        header, payload = self.ask("run", fields, pack(inputs), refused=TargetError)
        outputs = self._arrays(payload, "run")
        return RunResult(
            outputs,
            wall_ms=tuple(header["wall_ms"]),
            cpu_ms=tuple(header["cpu_ms"]),
            started_s=tuple(header.get("started_s", ())),
            involuntary_switches=header.get("involuntary_switches"),
            rss_bytes=header.get("rss_bytes"),
            rss_peak_bytes=header.get("rss_peak_bytes"),
        )

    def conditions(self) -> dict[str, Any]:
        """Governor, clock, temperature, throttling, load: each a value or "unknown" (on_device/machine/conditions.py).

        Raises:
            DeviceError: The agent died or did not answer in time.
        """
        return self.ask("conditions")[0]

    def profile(
        self, inputs: Mapping[str, np.ndarray], signature: str | None = None, runs: int = 100, xnnpack: bool = True
    ) -> dict[str, Any]:
        """Time of each operator of a .tflite, from `runs` runs of their own of the model, loaded once more beside it.

        With `xnnpack` operators are those of XNNPACK, which are what `run` runs; without it those of the model, on
        slower kernels. Ask after everything else was measured: it leaves the agent larger.

        Returns:
            {ops: [{index, graph, name, delegated, calls, mean_us, p50_us, share}], source, kernels, runs, run_us,
            invoke_us, ops_us} (on_device/models/profiler.py); ops "unsupported", with `why`, where none is.

        Raises:
            TargetError: LiteRT refuses the model.
            DeviceError: The agent died or did not answer in time.
        """
        fields = {"signature": signature, "runs": runs, "xnnpack": xnnpack}
        return self.ask("profile", fields, pack(inputs), refused=TargetError)[0]

    def tensors(
        self, inputs: Mapping[str, np.ndarray], indices: Sequence[int], graph: int, signature: str | None = None
    ) -> dict[int, np.ndarray]:
        """Run once and read those tensors of a .tflite that was prepared with `keep`, by their index in `graph`.

        Raises as `prepare`.
        """
        fields = {"signature": signature, "graph": graph, "indices": list(indices)}
        _, payload = self.ask("tensors", fields, pack(inputs), refused=TargetError)
        return {int(name): array for name, array in self._arrays(payload, "tensors").items()}

    def _arrays(self, payload: bytes, op: str) -> dict[str, np.ndarray]:
        try:
            return unpack(payload)
        except ValueError as e:
            raise DeviceError(f"{self.where}: {op} answered with no .npz file of plain arrays ({e}).") from e

    def ask(
        self,
        op: str,
        fields: Mapping[str, Any] | None = None,
        payload: bytes = b"",
        refused: type[EdgeloopError] = DeviceError,
    ) -> tuple[dict[str, Any], bytes]:
        """One question, header and payload, and its answer.

        Raises:
            EdgeloopError: The class of that name where the device raised one; `refused` for any other failure there.
            DeviceError: The agent died or did not answer in time.
        """
        self._ids += 1
        header = {**(fields or {}), "v": 1, "id": self._ids, "op": op, "bytes": len(payload)}
        deadline = time.monotonic() + self.timeout_s
        self._send(json.dumps(header).encode() + b"\n", deadline, op)
        self._send(payload, deadline, op)
        answer = self._header(self._read_until(b"\n", deadline, op), op)
        data = self._read_exactly(answer["bytes"], deadline, op)
        if "error" in answer:
            raise self._error(answer["error"], op, refused)
        return {name: value for name, value in answer.items() if name not in FRAME}, data

    def _error(self, said: Any, op: str, refused: type[EdgeloopError]) -> EdgeloopError:
        error = said if isinstance(said, dict) else {"message": said}
        reason = " ".join(str(error.get("message")).split())[:400] or "no reason given"
        ours = getattr(errors, str(error.get("type")), None)
        if isinstance(ours, type) and issubclass(ours, EdgeloopError):
            return ours(f"{self.where}: {reason}")
        return refused(f"{self.where}: {op} failed with {error.get('type')}: {reason}")

    def _send(self, data: bytes, deadline: float, op: str) -> None:
        """The agent reads a whole frame before it answers, so nothing need be read meanwhile."""
        assert self.child.stdin is not None
        pipe, rest = self.child.stdin.fileno(), memoryview(data)
        os.set_blocking(pipe, False)  # our end alone: a stopped agent leaves a full pipe, and a write must not wait
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_WRITE)
            while rest:
                self._wait(selector, deadline, op)
                try:
                    rest = rest[os.write(pipe, rest) :]
                except BlockingIOError:  # less room than one write takes: wait again
                    continue
                except OSError as e:
                    raise self._died(op) from e

    def _header(self, line: bytes, op: str) -> dict[str, Any]:
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            answer = None
        size = answer.get("bytes") if isinstance(answer, dict) and answer.get("id") == self._ids else None
        if not isinstance(size, int) or not 0 <= size <= PAYLOAD_LIMIT_BYTES:
            raise DeviceError(
                f"{self.where}: {op} was answered with {line[:60]!r}. Expected a frame of edgeloop's agent: "
                "a Python that runs it."
            )
        return answer

    def _read_until(self, mark: bytes, deadline: float, op: str) -> bytes:
        while mark not in self._buffer and len(self._buffer) <= HEADER_LIMIT_BYTES:
            self._fill(deadline, op)
        line, _, self._buffer = self._buffer.partition(mark)
        return line

    def _read_exactly(self, size: int, deadline: float, op: str) -> bytes:
        parts, have = [self._buffer], len(self._buffer)
        while have < size:
            self._buffer = b""
            self._fill(deadline, op)
            parts.append(self._buffer)
            have += len(self._buffer)
        whole = b"".join(parts)
        self._buffer = whole[size:]
        return whole[:size]

    def _fill(self, deadline: float, op: str) -> None:
        assert self.child.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.child.stdout, selectors.EVENT_READ)
            self._wait(selector, deadline, op)
        block = os.read(self.child.stdout.fileno(), 1 << 20)
        if not block:
            raise self._died(op)
        self._buffer += block

    def _wait(self, selector: selectors.BaseSelector, deadline: float, op: str) -> None:
        if not selector.select(max(0.0, deadline - time.monotonic())):
            raise DeviceError(f"{self.where}: {op} gave no answer in {self.timeout_s:g} s. The agent was ended.")

    def _died(self, op: str) -> DeviceError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.wait(timeout=2)
        name = signal_of(self.child.returncode)
        how = f"signal {name}" if name else f"exit code {self.child.returncode}"
        self.log.seek(0)
        last = last_line(self.log.read()[-400:])
        words = f"; its last words: {last}" if last else ""
        advice = f" {meaning(name)}" if name else ""
        return DeviceError(f"{self.where}: the agent ended during {op} ({how}){words}.{advice}")


@contextlib.contextmanager
def agent(device: Device, runtime: str, folder: str | Path, timeout_s: float = 120.0) -> Iterator[Agent]:
    """An agent for `runtime` on a device, able to open files below this machine's `folder`.

    Raises:
        DeviceError: The device cannot be reached, no such interpreter there, or no program at all.
    """
    where = f"{runtime} on {device.name}"
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile())
        connection = stack.enter_context(connect(device))
        root = "files" if connection.remote else str(Path(folder).absolute())
        child = stack.enter_context(connection.start(["runtime.agent.serve_model", runtime, root], log))
        yield Agent(child, where, timeout_s, log, Path(folder) if connection.remote else None)


def survey(device: Device, timeout_s: float = 60.0) -> dict[str, str]:
    """{runtime: version} of the runtimes a device has, in one start and without loading any.

    Raises:
        DeviceError: The device cannot be reached, no such interpreter there, or no program at all.
    """
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile())
        child = stack.enter_context(stack.enter_context(connect(device)).start(["runtime.agent.survey"], log))
        return Agent(child, device.name, timeout_s, log).ask("runtimes")[0]["runtimes"]
