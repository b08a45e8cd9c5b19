"""Large bodies are read, and large responses written, by a process of their own.

JSON of 30 MB keeps an interpreter busy for seconds. A small request needs the interpreter for a moment at each of its
steps, and would wait for it at each of them: its 99th percentile rose to 15 times that of a quiet server. One process
works at a time, with less right to the CPU than the others, and ends with its work, so that it holds no memory.

    python agent.pyz edge.on_device.serving.large_requests    answers `read` and `write`. Python 3.9 syntax.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeloop.bundle import TensorSpec
from edgeloop.errors import DeviceError
from edgeloop.http.predict_api.request import PredictRequest, read_request
from edgeloop.http.predict_api.response import write_predictions
from edgeloop.leftovers import log_file
from edgeloop.processes.children import owned
from edgeloop.processes.conversation import Conversation
from edgeloop.processes.frames import Header, pack, serve, unpack
from edgeloop.runtime.agent.child_model import PROGRAM

LARGE_BYTES = 2 << 20  # of a body: some 0.2 s of reading, for which no process is started
LARGE_VALUES = 1 << 17  # of a response
TIMEOUT_S = 300.0  # a small device needs minutes for the largest body
NICE = 10


class LargeRequests:
    """Any thread may ask; `close` ends what is at work."""

    def __init__(self) -> None:
        self._lock, self._closed = threading.Lock(), False
        self._child: subprocess.Popen | None = None

    def read(self, body: bytes, specs: Sequence[TensorSpec]) -> PredictRequest:
        """As `read_request`. Raises DeviceError where the process does not start, ends or takes too long."""
        reply, data = self._ask("read", {"specs": _to_json(specs)}, body)
        return PredictRequest(unpack(data), reply["row_format"], reply["signature"])

    def write(self, specs: Sequence[TensorSpec], outputs: Mapping[str, np.ndarray], row_format: bool) -> bytes:
        """As `write_predictions`. Raises DeviceError where the process does not start, ends or takes too long."""
        return self._ask("write", {"specs": _to_json(specs), "row_format": row_format}, pack(outputs))[1]

    def close(self) -> None:
        self._closed = True
        child = self._child
        if child is not None:
            child.kill()

    def _ask(self, op: str, fields: Mapping[str, Any], payload: bytes) -> tuple[Mapping[str, Any], bytes]:
        command = [sys.executable, "-I", *PROGRAM, "edge.on_device.serving.large_requests"]
        with self._lock, contextlib.ExitStack() as stack:
            if self._closed:
                raise DeviceError("the service is ending", advice="Send the request again later.")
            pipe = subprocess.PIPE
            try:
                log = stack.enter_context(log_file())
                self._child = stack.enter_context(owned(command, stdin=pipe, stdout=pipe, stderr=log, grace_s=0.2))
            except OSError as e:
                raise DeviceError(
                    f"no process can be started for a large request ({e.strerror})",
                    advice="Send fewer samples, or try again later.",
                ) from e
            try:
                return Conversation(self._child, "", TIMEOUT_S, log).ask(op, fields, payload)
            except DeviceError as e:
                raise DeviceError(f"a large request was given up ({e.clause})", advice="Send fewer samples.") from e
            finally:
                self._child = None


def _to_json(specs: Sequence[TensorSpec]) -> list[list[Any]]:
    return [[spec.name, list(spec.shape), spec.dtype] for spec in specs]


def _specs(header: Header) -> list[TensorSpec]:
    return [TensorSpec(name, tuple(shape), dtype) for name, shape, dtype in header["specs"]]


def _read(header: Header, payload: bytes) -> tuple[Mapping[str, Any], bytes]:
    request = read_request(payload, _specs(header))
    return {"row_format": request.row_format, "signature": request.signature}, pack(request.inputs)


def _write(header: Header, payload: bytes) -> tuple[Mapping[str, Any], bytes]:
    return {}, write_predictions(_specs(header), unpack(payload), header["row_format"])


def main(arguments: list[str]) -> None:
    os.nice(NICE)
    serve({"read": _read, "write": _write})
