"""What TensorFlow raises when another task of the cluster is gone, as one line; and how tasks leave together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from edgeloop.cloud.train.cluster.cluster import Cluster
from edgeloop.errors import DeviceError, one_line
from edgeloop.extras import need


@contextlib.contextmanager
def lost_tasks_named(cluster: Cluster | None) -> Iterator[None]:
    """Within a cluster, an error of TensorFlow's runtime that means a lost connection becomes a DeviceError.

    Source of the classes: each was seen when a worker or a parameter server was killed or stopped.
    """
    if cluster is None:
        yield
        return
    errors = need("tensorflow", extra="cloud").errors
    lost = (errors.UnavailableError, errors.DeadlineExceededError, errors.AbortedError, errors.CancelledError)
    try:
        yield
    except lost as e:
        raise DeviceError(
            f"the connection to another task was lost: {one_line(e.message, 160)}",
            advice="Start all tasks again with --resume: training goes on after the last checkpoint.",
        ) from e


def leave_together(strategy: Any, cluster: Cluster | None) -> None:
    """Wait until every synchronous worker is here: one that left while the first still writes would count as lost."""
    if cluster is None or cluster.parameter_servers or cluster.workers < 2:
        return
    tf = need("tensorflow", extra="cloud")
    strategy.reduce("SUM", strategy.run(lambda: tf.constant(1.0)), axis=None)
