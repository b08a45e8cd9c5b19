"""The weights a trainable .tflite was made with, read by the runtime that will train it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgeloop.errors import DeviceError
from edgeloop.runtime.agent.protocol import PrepareReply
from edgeloop.runtime.agent.trainer import TRAINERS
from edgeloop.runtime.client import RuntimeClient, agent
from edgeloop.runtime.device import Device


def initial_weights(model: Path, device: Device) -> dict[str, np.ndarray]:
    """Every weight by name (w000, w001, ...), float32.

    Raises:
        TargetError: The file has no `get_weights`, or the runtime refuses it.
        DeviceError: No runtime that trains is installed there, or it died.
    """
    with trainer_of(model, device) as (running, _):
        return dict(running.run({"dummy": np.zeros((), np.float32)}, "get_weights").outputs)


@contextlib.contextmanager
def trainer_of(model: Path, device: Device) -> Iterator[tuple[RuntimeClient, PrepareReply]]:
    """A trainable .tflite in the best runtime of a device that trains, for as long as the block.

    Raises as `initial_weights`.
    """
    refusals = []
    for runtime in TRAINERS:
        with contextlib.ExitStack() as stack:
            running = stack.enter_context(agent(device, runtime, model.parent))
            try:
                running.probe()
            except DeviceError as e:  # this runtime is not there: the next one may be
                refusals.append(e)
                continue
            yield running, running.prepare(model.name)
            return
    raise refusals[0].at(f"{device.name} has no runtime that trains")
