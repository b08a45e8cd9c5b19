"""The weights a trainable .tflite was made with, read by the runtime that will train it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeloop.errors import DeviceError
from edgeloop.runtime.agent.trainer import TRAINERS
from edgeloop.runtime.client import agent
from edgeloop.runtime.device import Device


def initial_weights(model: Path, device: Device) -> dict[str, np.ndarray]:
    """Every weight by name (w000, w001, ...), float32.

    Raises:
        TargetError: The file has no `get_weights`, or the runtime refuses it.
        DeviceError: No runtime that trains is installed there, or it died.
    """
    refusals = []
    for runtime in TRAINERS:
        with agent(device, runtime, model.parent) as running:
            try:
                running.probe()
            except DeviceError as e:  # this runtime is not there: the next one may be
                refusals.append(e)
                continue
            running.prepare(model.name)
            return dict(running.run({"dummy": np.zeros((), np.float32)}, "get_weights").outputs)
    raise refusals[0].at(f"{device.name} has no runtime that trains")
