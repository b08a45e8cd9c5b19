"""A model in a child, as child_model.py has it, that stays: the time is that of each question, and its log stays short.

Start it from a thread that lives as long as the model is wanted: Linux ends a child with the thread that forked it
(prctl PR_SET_PDEATHSIG, children.py). Python 3.9 syntax.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from edgeloop.errors import DeviceError, EdgeloopError
from edgeloop.runtime.agent.child_model import ChildModel, started_agent

LOG_LIMIT_BYTES = 1 << 20  # a runtime that prints at every call must not fill the memory


class ModelProcess(ChildModel):
    """Made by `model_process`; not thread-safe. `dead`: it died, or was ended as too slow."""

    dead = False

    def ask(
        self,
        op: str,
        fields: Mapping[str, Any] | None = None,
        payload: bytes = b"",
        refused: type[EdgeloopError] = DeviceError,
    ) -> tuple[dict[str, Any], bytes]:
        """As `Conversation.ask`."""
        if os.fstat(self.log.fileno()).st_size > LOG_LIMIT_BYTES:
            os.ftruncate(self.log.fileno(), 0)
            os.lseek(self.log.fileno(), 0, os.SEEK_SET)  # the child's end of the file has the same position
        try:
            return super().ask(op, fields, payload, refused)
        finally:
            self.dead = self.child.poll() is not None


@contextlib.contextmanager
def model_process(runtime: str, folder: str, entry: str, threads: int, timeout_s: float) -> Iterator[ModelProcess]:
    """`folder/entry` loaded in a child that ends with the block. Raises as `model_in_child`."""
    with started_agent(runtime, folder) as (child, log):
        model = ModelProcess(child, f"{entry} on {runtime}", timeout_s, log)
        model.load(entry, threads)
        yield model
