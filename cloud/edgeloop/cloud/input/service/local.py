"""A tf.data service on this machine: a dispatcher and workers as processes that end with the block."""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edgeloop.errors import DeviceError, OptionsError
from edgeloop.leftovers import log_file, temporary_folder
from edgeloop.processes.children import owned
from edgeloop.processes.exit_status import exit_status

START_S = 180.0  # TensorFlow is imported once; on a busy machine that takes most of a minute


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalService:
    """A running service.

    Attributes:
        address: HOST:PORT of the dispatcher, for `PipelineOptions.service`.
        pids: Of the dispatcher and of each `worker K`, as they were started.
    """

    address: str
    pids: Mapping[str, int]


@contextlib.contextmanager
def local_service(workers: int, timeout_s: float = START_S) -> Iterator[LocalService]:
    """Start a dispatcher and so many workers on loopback; a server that dies is started again on its port.

    Raises:
        OptionsError: No worker.
        DeviceError: The servers did not start within `timeout_s`.
    """
    if workers < 1:
        raise OptionsError(f"{workers} workers of the data service", advice="Start 1 or more.")
    with temporary_folder() as folder, log_file() as log:
        command = [sys.executable, "-m", "edgeloop.cloud.input.service.nodes", str(workers), folder]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}
        with owned(command, stdout=-1, stderr=log, env=environment) as child:
            assert child.stdout is not None  # a pipe was asked for
            readable, _, _ = select.select([child.stdout], [], [], timeout_s)
            line = child.stdout.readline() if readable else b""
            if not line:
                how = exit_status(child, log).last_words or f"nothing was heard within {timeout_s:g} s"
                raise DeviceError(f"the tf.data service does not start: {how}", advice="Try again.")
            started = json.loads(line)
            yield LocalService(address=f"127.0.0.1:{started['dispatcher']}", pids=started["pids"])
