"""The asking end of a child that answers frames: every wait is bounded, every failure is one of our errors.

Python 3.9 syntax, the standard library: the host talks to devices with it, and a device to the child of a model.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from typing import IO, Any

from edgeloop.errors import DeviceError, EdgeloopError, error_from_json
from edgeloop.processes.exit_status import exit_status
from edgeloop.processes.frames import HEADER_LIMIT_BYTES, PAYLOAD_LIMIT_BYTES
from edgeloop.processes.messages import Reply, Request, from_header, to_header
from edgeloop.processes.signs_of_life import SIGN, sending_signs

logger = logging.getLogger(__name__)
OTHER = "Run the same edgeloop on both ends."
FRAME = ("v", "id", "op", "bytes")  # what a header says of itself; the rest is the answer


class Conversation:
    """One request at a time, not thread-safe. The child was started by the caller, whose block ends it.

    Attributes:
        where: The child, for messages: `litert on local`.
        timeout_s: For each answer; where `deadline` is set, for all of them.
        deadline: On the monotonic clock; None: every request has `timeout_s` of its own.
        crash: The class of the error where the child died of a signal.
        runs_model: Whether the child has a model at hand, which may be why a signal ends it.
    """

    runs_model = False
    crash: type[EdgeloopError] = DeviceError
    deadline: float | None = None

    def __init__(self, child: subprocess.Popen, where: str, timeout_s: float, log: IO[bytes]) -> None:
        self.child, self.where, self.timeout_s, self.log = child, where, timeout_s, log
        self._ids = 0
        self._buffer = b""
        self._sending = threading.Lock()  # of a whole frame

    def signs_of_life(self) -> AbstractContextManager[None]:
        """Let the child know that this end lives, for as long as the block runs, which ends before the child does. A
        child behind a link that is lost then ends by itself (signs_of_life.py)."""
        return sending_signs(self._sign)

    def _sign(self) -> None:
        """Between two frames; where one is being sent that is sign enough."""
        if self._sending.acquire(blocking=False):
            try:
                pipe = self.child.stdin.fileno()  # type: ignore[union-attr]  # it has a pipe
                os.set_blocking(pipe, False)
                with suppress(BlockingIOError):  # it is full of what the child has not read
                    os.write(pipe, SIGN)
            finally:
                self._sending.release()

    def request(
        self, request: Request[Reply], payload: bytes = b"", refused: type[EdgeloopError] = DeviceError
    ) -> tuple[Reply, bytes]:
        """One request, and the reply of its class with its payload. Raises as `ask`."""
        answer, data = self.ask(request.OP, to_header(request), payload, refused=refused)
        try:
            return from_header(request.REPLY, answer), data
        except ValueError as e:
            raise DeviceError(f"{request.OP} was answered wrongly: {e}", advice=OTHER, where=self.where) from e

    def ask(
        self,
        op: str,
        fields: Mapping[str, Any] | None = None,
        payload: bytes = b"",
        refused: type[EdgeloopError] = DeviceError,
    ) -> tuple[dict[str, Any], bytes]:
        """One question, header and payload, and its answer.

        Raises:
            EdgeloopError: The class of that name where the child raised one; `refused` for any other failure there.
            DeviceError: It ended, or did not answer in time and was ended. `crash` where it died of a signal.
        """
        self._ids += 1
        header = {**(fields or {}), "v": 1, "id": self._ids, "op": op, "bytes": len(payload)}
        began_s = time.monotonic()
        deadline = began_s + self.timeout_s if self.deadline is None else self.deadline
        with self._sending:
            self._send(json.dumps(header).encode() + b"\n", deadline, op)
            self._send(payload, deadline, op)
        answer = self._header(self._read_until(b"\n", deadline, op), op)
        data = self._read_exactly(answer["bytes"], deadline, op)
        ms = (time.monotonic() - began_s) * 1e3
        logger.debug(
            "%s: %s with %d bytes answered with %d, after %.1f ms", self.where, op, len(payload), len(data), ms
        )
        if "error" in answer:
            raise error_from_json(answer["error"], refused, self.where, op)
        return {name: value for name, value in answer.items() if name not in FRAME}, data

    def _send(self, data: bytes, deadline: float, op: str) -> None:
        """The child reads a whole frame before it answers, so nothing need be read meanwhile."""
        assert self.child.stdin is not None
        pipe, rest = self.child.stdin.fileno(), memoryview(data)
        os.set_blocking(pipe, False)  # our end alone: a stopped child leaves a full pipe, and a write must not wait
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_WRITE)
            while rest:
                self._wait(selector, deadline, op)
                try:
                    rest = rest[os.write(pipe, rest) :]
                except BlockingIOError:  # less room than one write takes: wait again
                    continue
                except OSError as e:
                    raise self._ended(op) from e

    def _header(self, line: bytes, op: str) -> dict[str, Any]:
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            answer = None
        size = answer.get("bytes") if isinstance(answer, dict) and answer.get("id") == self._ids else None
        if not isinstance(size, int) or not 0 <= size <= PAYLOAD_LIMIT_BYTES:
            raise DeviceError(
                f"{op} was answered with {line[:60]!r}",
                advice="Expected a frame of edgeloop's agent: check that the interpreter is a Python that runs it.",
                where=self.where,
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
            raise self._ended(op)
        self._buffer += block

    def _wait(self, selector: selectors.BaseSelector, deadline: float, op: str) -> None:
        if not selector.select(max(0.0, deadline - time.monotonic())):
            self.child.kill()
            exit_status(self.child)  # reaped: whoever looks sees at once that it is gone
            bound = f"in {self.timeout_s:g} s"
            if self.deadline is not None:  # shared with the requests before, so this one had less
                bound = f"before the {self.timeout_s:g} s for all requests together were over"
            busy = "Check what else runs there, and try again."
            raise DeviceError(
                f"{op} gave no answer {bound}, and the agent was ended",
                advice="Allow more time, or choose a smaller variant." if self.runs_model else busy,
                where=self.where,
            )

    def _ended(self, op: str) -> EdgeloopError:
        status = exit_status(self.child, self.log)
        kind = self.crash if status.signal else DeviceError
        advice = "Try again." if status.signal and not self.runs_model else status.advice or "Try again."
        return kind(f"the agent ended during {op} ({status})", advice=advice, where=self.where)
