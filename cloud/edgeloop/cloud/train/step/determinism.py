"""What makes two runs alike: seeds, and operations that give the same bits."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from edgeloop.cloud.train.config.train_config import TrainConfig
from edgeloop.extras import need


def set_seeds(seed: int, deterministic: bool) -> None:
    """Python, NumPy and TensorFlow begin from one number.

    On CPUs TensorFlow's operations give the same bits in every run as they are; of GPUs that must be asked.
    """
    tf = need("tensorflow", extra="cloud")
    need("keras", extra="cloud").utils.set_random_seed(seed)
    if deterministic and tf.config.list_physical_devices("GPU"):
        tf.config.experimental.enable_op_determinism()


def host_clock(config: TrainConfig) -> Callable[[], Any] | None:
    """Seconds by Python's clock where TensorFlow's own is refused; None elsewhere, for asking Python costs more."""
    tf = need("tensorflow", extra="cloud")
    if not (config.loop.deterministic and tf.config.list_physical_devices("GPU")):
        return None
    return lambda: tf.numpy_function(time.time, [], tf.float64)
