"""The strategies of tf.distribute by name, each made for the devices and the cluster there are."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any

from edgeloop.cloud.train.cluster.meeting import bounded_start, meet
from edgeloop.cloud.train.cluster.preemption import watch_heartbeats
from edgeloop.cloud.train.servers.servers import make_parameter_server_strategy
from edgeloop.cloud.train.strategies.place import Place
from edgeloop.errors import OptionsError, TargetError, one_line
from edgeloop.extras import need


class Strategy(enum.StrEnum):
    """How a training is spread over devices; AUTO lets `choose` decide."""

    AUTO = "auto"
    ONE_DEVICE = "one-device"
    MIRRORED = "mirrored"
    CENTRAL_STORAGE = "central-storage"
    MULTI_WORKER_MIRRORED = "multi-worker-mirrored"
    PARAMETER_SERVER = "parameter-server"
    PIPELINE = "pipeline"
    TENSOR_SPLIT = "tensor-split"
    TPU = "tpu"


def make_strategy(name: Strategy, place: Place) -> Any:
    """The `tf.distribute.Strategy` of that name.

    Raises:
        OptionsError: The strategy needs a cluster and there is none, or the reverse.
        TargetError: No TPU can be reached.
    """
    if name in CLUSTERED and place.cluster is None:
        raise OptionsError(
            f"the strategy {name.value} needs several processes, and TF_CONFIG is not set",
            advice="Set TF_CONFIG in every process, or start them here with --launch.",
        )
    if name not in CLUSTERED and place.cluster is not None and place.cluster.workers > 1:
        raise OptionsError(
            f"the strategy {name.value} trains in one process, but TF_CONFIG names {place.cluster.workers} workers",
            advice="Use strategy = 'auto', or unset TF_CONFIG.",
        )
    return STRATEGIES[name](place)


def _one_device(place: Place) -> Any:
    return need("tensorflow", extra="cloud").distribute.OneDeviceStrategy(f"/{place.devices[0].lower()}")


def _host(place: Place) -> Any:
    """The whole model lies in the host's memory; its stages or parts lie on the devices."""
    return need("tensorflow", extra="cloud").distribute.OneDeviceStrategy("/cpu:0")


def _mirrored(place: Place) -> Any:
    return need("tensorflow", extra="cloud").distribute.MirroredStrategy(_several(place.devices, Strategy.MIRRORED))


def _central_storage(place: Place) -> Any:
    devices = _several(place.devices, Strategy.CENTRAL_STORAGE)
    return need("tensorflow", extra="cloud").distribute.experimental.CentralStorageStrategy(devices, "CPU:0")


def _multi_worker(place: Place) -> Any:
    distribute = need("tensorflow", extra="cloud").distribute
    assert place.cluster is not None  # `make_strategy` has looked
    meet(place.cluster, place.start_timeout_s)
    watch_heartbeats(place.cluster, place.heartbeat_s)
    with bounded_start(place.start_timeout_s):
        resolver = distribute.cluster_resolver.TFConfigClusterResolver()
        return distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)


def _parameter_server(place: Place) -> Any:
    assert place.cluster is not None  # `make_strategy` has looked
    return make_parameter_server_strategy(place.cluster, place.start_timeout_s)


def _tpu(place: Place) -> Any:
    tf = need("tensorflow", extra="cloud")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=place.tpu or "local")
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, RuntimeError, OSError, tf.errors.OpError) as e:
        raise TargetError(
            f"no TPU can be used here ({one_line(str(e).partition(':')[0])})",
            advice="Run on a TPU machine, name the TPU in [strategy] tpu, or choose strategy = 'auto'.",
        ) from e
    return tf.distribute.TPUStrategy(resolver)


def _several(devices: Sequence[str], name: Strategy) -> list[str]:
    if len(devices) < 2:
        raise OptionsError(
            f"the strategy {name.value} needs two devices or more, and this machine has {devices[0]}",
            advice="Use strategy = 'auto', or set [strategy] virtual-cpus = 2 to try it on the CPU.",
        )
    return list(devices)


STRATEGIES: dict[Strategy, Callable[[Place], Any]] = {
    Strategy.ONE_DEVICE: _one_device,
    Strategy.MIRRORED: _mirrored,
    Strategy.CENTRAL_STORAGE: _central_storage,
    Strategy.MULTI_WORKER_MIRRORED: _multi_worker,
    Strategy.PARAMETER_SERVER: _parameter_server,
    Strategy.PIPELINE: _host,
    Strategy.TENSOR_SPLIT: _host,
    Strategy.TPU: _tpu,
}

CLUSTERED = frozenset({Strategy.MULTI_WORKER_MIRRORED, Strategy.PARAMETER_SERVER})
