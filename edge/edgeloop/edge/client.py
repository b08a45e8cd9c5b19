"""The host's end of an agent: start it, ask it, bound every wait, end it."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from edgeloop.edge.agent import HEADER_LIMIT_BYTES, PAYLOAD_LIMIT_BYTES, pack, unpack
from edgeloop.edge.process import owned
from edgeloop.errors import DeviceError, TargetError

AGENT = Path(__file__).with_name("agent.py")


@dataclass(frozen=True)
class Answer:
    """Outputs of the last of `len(wall_ms)` runs; times in milliseconds, one per run, in order."""

    outputs: Mapping[str, np.ndarray]
    wall_ms: tuple[float, ...]
    cpu_ms: tuple[float, ...]
    rss_peak_bytes: int | None


@dataclass
class Agent:
    """A running agent. Made by `agent()`; not thread-safe: one question at a time."""

    child: subprocess.Popen
    where: str
    timeout_s: float
    log: IO[bytes]
    _ids: int = field(default=0)
    _buffer: bytes = field(default=b"")

    def probe(self) -> dict[str, Any]:
        """Python, runtime, version, machine, number of CPUs.

        Raises:
            DeviceError: The runtime does not load there, or the agent died or did not answer in time.
        """
        return self._ask("probe")[0]

    def prepare(self, path: str, threads: int = 1, keep: bool = False) -> dict[str, Any]:
        """Load the model at `path`, relative to the agent's root; `keep` its inner tensors, for `tensors`.

        Raises:
            TargetError: The runtime refuses the model.
            DeviceError: The agent died or did not answer in time.
        """
        return self._ask("prepare", {"path": path, "threads": threads, "keep": keep}, refused=TargetError)[0]

    def run(
        self, inputs: Mapping[str, np.ndarray], signature: str | None = None, warmup: int = 0, runs: int = 1
    ) -> Answer:
        """Run a signature `warmup` + `runs` times on the same inputs. Raises as `prepare`."""
        fields = {"signature": signature, "warmup": warmup, "runs": runs}
        header, payload = self._ask("run", fields, pack(inputs), refused=TargetError)
        outputs = self._arrays(payload, "run")
        return Answer(outputs, tuple(header["wall_ms"]), tuple(header["cpu_ms"]), header["rss_peak_bytes"])

    def tensors(
        self, inputs: Mapping[str, np.ndarray], indices: Sequence[int], graph: int, signature: str | None = None
    ) -> dict[int, np.ndarray]:
        """Run once and read those tensors of a .tflite that was prepared with `keep`, by their index in `graph`.

        Raises as `prepare`.
        """
        fields = {"signature": signature, "graph": graph, "indices": list(indices)}
        _, payload = self._ask("tensors", fields, pack(inputs), refused=TargetError)
        return {int(name): array for name, array in self._arrays(payload, "tensors").items()}

    def _arrays(self, payload: bytes, op: str) -> dict[str, np.ndarray]:
        try:
            return unpack(payload)
        except ValueError as e:
            raise DeviceError(f"{self.where}: {op} answered with no .npz file of plain arrays ({e}).") from e

    def _ask(
        self,
        op: str,
        fields: Mapping[str, Any] | None = None,
        payload: bytes = b"",
        refused: type[TargetError] | type[DeviceError] = DeviceError,
    ) -> tuple[dict[str, Any], bytes]:
        self._ids += 1
        header = {**(fields or {}), "v": 1, "id": self._ids, "op": op, "bytes": len(payload)}
        deadline = time.monotonic() + self.timeout_s
        self._send(json.dumps(header).encode() + b"\n", deadline, op)
        self._send(payload, deadline, op)
        answer = self._header(self._read_until(b"\n", deadline, op), op)
        data = self._read_exactly(answer["bytes"], deadline, op)
        if "error" in answer:
            error = answer["error"]
            reason = " ".join(error["message"].split())[:400] or "no reason given"
            raise refused(f"{self.where}: {op} failed with {error['type']}: {reason}")
        return answer, data

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
        code = self.child.returncode
        how = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
        self.log.seek(0)
        last = self.log.read()[-400:].decode(errors="replace").strip().splitlines()
        return DeviceError(
            f"{self.where}: the agent ended during {op} ({how})" + (f"; its last words: {last[-1]}" if last else ".")
        )


@contextlib.contextmanager
def agent(python: str | Path, runtime: str, root: str | Path, timeout_s: float = 120.0) -> Iterator[Agent]:
    """An agent for `runtime` under the interpreter `python`, able to open files below `root`.

    `-I` keeps PYTHONPATH and the user's own packages out of it.

    Raises:
        DeviceError: No such interpreter, or no program at all.
    """
    where = f"{runtime} on local:{python}"
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile())
        command = [str(python), "-I", str(AGENT), runtime, str(root)]
        try:
            process = owned(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
            child = stack.enter_context(process)
        except FileNotFoundError as e:
            raise DeviceError(f"no Python at {python}. Name an interpreter that exists: local:PYTHON.") from e
        except OSError as e:
            raise DeviceError(f"{python} does not start ({e.strerror}). Name a Python: local:PYTHON.") from e
        yield Agent(child, where, timeout_s, log)
