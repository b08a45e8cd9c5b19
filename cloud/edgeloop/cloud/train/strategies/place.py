"""Where a training runs: the devices of this process, and the cluster."""

from __future__ import annotations

from dataclasses import dataclass

from edgeloop.cloud.train.cluster.cluster import Cluster
from edgeloop.errors import OptionsError
from edgeloop.extras import need


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a training runs.

    Attributes:
        devices: Names of this process's devices, e.g. `("CPU:0", "CPU:1")`: its GPUs, or its CPUs where it has none.
        cluster: The tasks of TF_CONFIG; None: this process alone.
        tpu: Name or address of a TPU for its resolver; empty: the local one.
        start_timeout_s: For the other tasks of the cluster to start.
        heartbeat_s: A worker of the cluster that sends no sign of life for so long is lost.
    """

    devices: tuple[str, ...]
    cluster: Cluster | None = None
    tpu: str = ""
    start_timeout_s: float = 120.0
    heartbeat_s: float = 10.0

    @property
    def workers(self) -> int:
        return 1 if self.cluster is None else self.cluster.workers


def use_virtual_cpus(count: int) -> None:
    """Split the CPU into `count` logical devices, so that a strategy for several devices runs without GPUs.

    Raises:
        OptionsError: TensorFlow has made its devices already, with another count.
    """
    tf = need("tensorflow", extra="cloud")
    (cpu,) = tf.config.list_physical_devices("CPU")[:1]
    split = [tf.config.LogicalDeviceConfiguration() for _ in range(count)]
    try:
        tf.config.set_logical_device_configuration(cpu, split)
    except RuntimeError as e:
        if len(tf.config.list_logical_devices("CPU")) != count:
            raise OptionsError(
                f"the CPU cannot be split into {count} devices: TensorFlow runs in this process already",
                advice="Train in a new process.",
            ) from e


def local_devices() -> tuple[str, ...]:
    """`("GPU:0", ...)`, or `("CPU:0", ...)` where there is no GPU."""
    tf = need("tensorflow", extra="cloud")
    found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tuple(one.name.removeprefix("/device:") for one in found)
