"""Parameter servers and their workers as processes, and the strategy of the coordinator that uses them."""

from __future__ import annotations

import signal
from typing import Any

from edgeloop.cloud.train.cluster.cluster import Cluster
from edgeloop.cloud.train.cluster.meeting import check_own_port, wait_for
from edgeloop.cloud.train.servers.partitioned import partitioner
from edgeloop.extras import need


def serve_cluster(cluster: Cluster) -> None:
    """Be a parameter server or a worker of one, until this process is ended.

    Raises:
        DeviceError: The port is in use.
    """
    tf = need("tensorflow", extra="cloud")
    check_own_port(cluster)
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    _server = tf.distribute.Server(
        resolver.cluster_spec(),
        job_name=cluster.role.value,
        task_index=cluster.index,
        protocol="grpc",
        start=True,
    )
    while True:  # its own `join` lets no signal but SIGKILL end it
        signal.pause()


def make_parameter_server_strategy(cluster: Cluster, timeout_s: float) -> Any:
    """The strategy of the coordinator, once all parameter servers and workers listen: before they do, connecting took
    48 s instead of 0.3 s.

    Raises:
        DeviceError: One did not start within `timeout_s`.
    """
    tf = need("tensorflow", extra="cloud")
    wait_for(cluster, timeout_s)
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    return tf.distribute.ParameterServerStrategy(resolver, variable_partitioner=partitioner(cluster.parameter_servers))
