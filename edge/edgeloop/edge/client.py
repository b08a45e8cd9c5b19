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

from edgeloop import errors
from edgeloop.edge.connection import connect
from edgeloop.edge.device import Device
from edgeloop.edge.on_device.frames import HEADER_LIMIT_BYTES, PAYLOAD_LIMIT_BYTES, pack, unpack
from edgeloop.edge.on_device.receive import digest
from edgeloop.errors import DeviceError, EdgeloopError, TargetError

PIECE_BYTES = 4 << 20  # of a file at a time: what a broken upload loses at most


@dataclass(frozen=True)
class Answer:
    """Outputs of the last of `len(wall_ms)` runs; times in milliseconds, one per run, in order."""

    outputs: Mapping[str, np.ndarray]
    wall_ms: tuple[float, ...]
    cpu_ms: tuple[float, ...]
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

    def push(self, file: Path, path: str) -> str:
        """Bring a file below the agent's root; what is there already, whole or in part, does not travel again.

        Raises:
            IntegrityError: It arrived damaged.
            DeviceError: The agent died or did not answer in time.
        """
        header = {"path": path, "size": file.stat().st_size, "sha256": digest(str(file))}
        answer = self.ask("push", header)[0]
        with file.open("rb") as source:
            while not answer["done"]:
                source.seek(answer["have"])
                piece = source.read(PIECE_BYTES)
                answer = self.ask("push", {**header, "offset": answer["have"]}, piece)[0]
        return path

    def prepare(self, path: str, threads: int = 1, keep: bool = False, files: Sequence[str] = ()) -> dict[str, Any]:
        """Load the model at `path`, relative to the agent's root; `keep` its inner tensors, for `tensors`.

        `files` are those it needs besides: a device elsewhere is sent them, into a folder named by the model's hash.

        Raises:
            TargetError: The runtime refuses the model.
            DeviceError: The agent died or did not answer in time.
        """
        if self.source is not None:
            folder = digest(str(self.source / path))[:16]
            for name in {path, *files}:
                self.push(self.source / name, f"{folder}/{name}")
            path = f"{folder}/{path}"
        return self.ask("prepare", {"path": path, "threads": threads, "keep": keep}, refused=TargetError)[0]

    def run(
        self, inputs: Mapping[str, np.ndarray], signature: str | None = None, warmup: int = 0, runs: int = 1
    ) -> Answer:
        """Run a signature `warmup` + `runs` times on the same inputs. Raises as `prepare`."""
        fields = {"signature": signature, "warmup": warmup, "runs": runs}
        header, payload = self.ask("run", fields, pack(inputs), refused=TargetError)
        outputs = self._arrays(payload, "run")
        return Answer(outputs, tuple(header["wall_ms"]), tuple(header["cpu_ms"]), header["rss_peak_bytes"])

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
            error = answer["error"]
            reason = " ".join(error["message"].split())[:400] or "no reason given"
            ours = getattr(errors, str(error["type"]), None)
            if isinstance(ours, type) and issubclass(ours, EdgeloopError):
                raise ours(f"{self.where}: {reason}")
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
        number = 0 if code is None else -code if code < 0 else code - 128  # a shell, as behind ssh, adds 128
        known = number in {member.value for member in signal.Signals}
        how = f"signal {signal.Signals(number).name}" if known else f"exit code {code}"
        self.log.seek(0)
        last = self.log.read()[-400:].decode(errors="replace").strip().splitlines()
        return DeviceError(
            f"{self.where}: the agent ended during {op} ({how})" + (f"; its last words: {last[-1]}" if last else ".")
        )


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
        child = stack.enter_context(connection.start(["agent", runtime, root], log))
        yield Agent(child, where, timeout_s, log, Path(folder) if connection.remote else None)
