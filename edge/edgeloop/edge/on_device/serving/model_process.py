"""A model in a child, as child_model.py has it, that stays: its time limit is per request, and its log is cut short.

Start it from a thread that lives as long as the model is wanted: Linux ends a child with the thread that forked it
(prctl PR_SET_PDEATHSIG, process.py). Python 3.9 syntax.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from edgeloop.errors import DeviceError, EdgeloopError, TargetError
from edgeloop.processes.children import owned
from edgeloop.runtime.agent.child_model import PROGRAM, ChildModel, words_file

LOG_LIMIT_BYTES = 1 << 20  # a runtime that prints at every call must not fill the memory


class ModelProcess(ChildModel):
    """Made by `model_process`; not thread-safe. `version` is the runtime's; `dead`: it died, or was too slow."""

    version = ""
    dead = False

    def ask(
        self, op: str, fields: Mapping[str, Any], payload: bytes, refused: type[EdgeloopError]
    ) -> tuple[dict[str, Any], bytes]:
        """As `ChildModel.ask`, with `timeout_s` for this question."""
        if os.fstat(self._log.fileno()).st_size > LOG_LIMIT_BYTES:
            os.ftruncate(self._log.fileno(), 0)
        watch = threading.Timer(self._timeout_s, self.stop)
        watch.daemon = True
        watch.start()
        try:
            return super().ask(op, fields, payload, refused)
        finally:
            watch.cancel()
            self.dead = self._process.poll() is not None


@contextlib.contextmanager
def model_process(runtime: str, folder: str, entry: str, threads: int, timeout_s: float) -> Iterator[ModelProcess]:
    """`folder/entry` loaded in a child that ends with the block. Raises as `child.loaded`, and DeviceError where no
    process can be started."""
    command = [sys.executable, "-I", *PROGRAM, "runtime.agent.serve_model", runtime, folder]
    pipe = subprocess.PIPE
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(words_file())
        try:
            process = stack.enter_context(owned(command, stdin=pipe, stdout=pipe, stderr=log, grace_s=1))
        except OSError as e:
            raise DeviceError(f"no process for the model ({e.strerror})", advice="Is the memory full?") from e
        model = ModelProcess(process, log, f"{entry} on {runtime}", timeout_s)
        model.version = str(model.ask("probe", {}, b"", DeviceError)[0]["version"])
        prepared = model.ask("prepare", {"path": entry, "threads": threads}, b"", TargetError)
        model.signatures = prepared[0]["signatures"]
        yield model
