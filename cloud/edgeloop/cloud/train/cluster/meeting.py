"""The tasks of a cluster find each other before TensorFlow connects them.

TensorFlow's own start has no bound that holds: the constructor of MultiWorkerMirroredStrategy waits for ever for a
worker that nobody starts, and keeps Python's lock meanwhile. So each task first listens at its own address, and asks at
all others, in plain Python: a port in use or a missing task is one line. A task that has seen all others leaves; from
then on TensorFlow's server answers at its address, so that those who still ask find it too.
"""

from __future__ import annotations

import contextlib
import math
import signal
import socket
import threading
from collections.abc import Iterator

from edgeloop.cloud.train.cluster.cluster import Cluster, Role
from edgeloop.errors import DeviceError
from edgeloop.http.loopback import is_loopback_host
from edgeloop.processes.ports import LOOPBACK, wait_until_all_accept

START_TIMEOUT_S = 120.0  # the tasks of one cluster may begin so far apart


def meet(cluster: Cluster, timeout_s: float = START_TIMEOUT_S) -> None:
    """Return when every other synchronous worker accepts connections.

    Raises:
        DeviceError: This task's port is in use, or another task did not start within `timeout_s`.
    """
    with _listening(cluster):
        wait_for(cluster, timeout_s)


def wait_for(cluster: Cluster, timeout_s: float = START_TIMEOUT_S) -> None:
    """Until all other tasks accept connections; what the coordinator of parameter servers calls, which nobody asks for.

    Raises:
        DeviceError: One did not start within `timeout_s`.
    """
    others = {
        address: f"{role.value} {index}"
        for role, addresses in cluster.addresses.items()
        for index, address in enumerate(addresses)
        if role != Role.EVALUATOR and (role, index) != (cluster.role, cluster.index)
    }
    silent = wait_until_all_accept(list(others), timeout_s)
    if silent:
        missing = " and ".join(f"{others[address]} ({address})" for address in silent)
        raise DeviceError(
            f"{cluster.name} waited {timeout_s:g} s for {missing}, which did not start",
            advice="Start all tasks that TF_CONFIG names, and check that the network lets them connect.",
        )


def check_own_port(cluster: Cluster) -> None:
    """Refuse a port that another program uses: TensorFlow's server would say so in forty lines.

    Raises:
        DeviceError: It is in use, or not an address of this machine.
    """
    with _listening(cluster):
        return


@contextlib.contextmanager
def _listening(cluster: Cluster) -> Iterator[None]:
    address = cluster.addresses[cluster.role][cluster.index]
    host, _, port = address.rpartition(":")
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TensorFlow takes the same port right after
        try:
            server.bind((LOOPBACK if is_loopback_host(host) else "", int(port)))
            server.listen(128)
        except OSError as e:
            raise DeviceError(
                f"{cluster.name} cannot listen at {address}: {e.strerror or e}",
                advice="End the program that uses the port, or give the task another port in TF_CONFIG.",
            ) from e
        yield


@contextlib.contextmanager
def bounded_start(timeout_s: float = START_TIMEOUT_S) -> Iterator[None]:
    """End this process (signal SIGALRM) when the block, in which TensorFlow connects the tasks, takes longer: a task
    that was lost after all had met. It holds Python's lock meanwhile, so that nothing gentler would run."""
    if threading.current_thread() is not threading.main_thread():  # which alone may set what a signal does
        yield
        return
    previous = signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(math.ceil(timeout_s))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
