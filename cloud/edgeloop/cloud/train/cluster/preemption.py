"""SIGTERM, as a cluster manager sends it before it takes a machine away, and Ctrl-C: training stops after the step that
runs, and keeps a checkpoint of it. A second signal ends it at once.

Synchronous workers have to stop after the same step. The one that was asked puts the number of that step, the next one,
into the key-value store of TensorFlow's coordination service and goes on when all others have read it. None of them can
be further than that step, for it needs every worker.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Protocol

from edgeloop.cloud.train.cluster.cluster import Cluster, Role
from edgeloop.extras import need

SIGNALS = (signal.SIGTERM, signal.SIGINT)
AGREE_TIMEOUT_S = 5.0  # for the others to answer; after that the last checkpoint is what remains


class Stop(Protocol):
    def after(self, call: int) -> bool:
        """Whether training ends now, after call number `call` of the step function; every worker asks after each."""


class Asked:
    """Whether this process was asked to stop; the `Stop` of one process."""

    def __init__(self) -> None:
        self.asked = False

    def listen(self) -> None:
        """Hear the signals from now on: TensorFlow takes SIGTERM for itself when it connects to a cluster."""
        if threading.current_thread() is threading.main_thread():  # which alone hears signals
            for number in SIGNALS:
                signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def after(self, call: int) -> bool:
        return self.asked


@contextlib.contextmanager
def asked_to_stop() -> Iterator[Asked]:
    """While the block runs, the first SIGTERM or SIGINT asks, and the second interrupts."""
    asked = Asked()
    previous = {number: signal.getsignal(number) for number in SIGNALS}
    asked.listen()
    try:
        yield asked
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in previous.items():
                signal.signal(number, handler)


def stop_of(asked: Asked, cluster: Cluster | None) -> Stop:
    """Who decides when the tasks of a cluster stop."""
    return WorkersStop(asked, cluster) if cluster is not None and cluster.workers > 1 and not cluster.serves else asked


class WorkersStop:
    """The `Stop` of synchronous workers: all of them after the same call."""

    def __init__(self, asked: Asked, cluster: Cluster) -> None:
        chiefs = len(cluster.addresses.get(Role.CHIEF, ()))
        self._asked, self._workers = asked, cluster.workers
        self._worker = cluster.index + (chiefs if cluster.role == Role.WORKER else 0)
        self._last: int | None = None
        self._store = need("tensorflow.python.eager.context", extra="cloud").context()
        self._errors = need("tensorflow", extra="cloud").errors.OpError
        threading.Thread(target=self._listen, name="edgeloop-stop", daemon=True).start()

    def after(self, call: int) -> bool:
        if self._asked.asked and self._last is None:
            self._announce(call + 1)
        return self._last is not None and call >= self._last

    def _listen(self) -> None:
        with contextlib.suppress(self._errors):  # the service ends with the training
            last = int(self._store.get_config_key_value(_STOP))  # waits until somebody sets it
            self._last = last
            self._store.set_config_key_value(_read_by(self._worker), "1")

    def _announce(self, last: int) -> None:
        with contextlib.suppress(self._errors):  # another worker was asked too, and was first
            self._store.set_config_key_value(_STOP, str(last))
        self._await(_STOP)
        for worker in range(self._workers):
            self._await(_read_by(worker))

    def _await(self, key: str) -> None:
        with contextlib.suppress(self._errors):  # a worker that is lost is noticed by the next step
            self._store.get_config_key_value(key, int(AGREE_TIMEOUT_S * 1000))


_STOP = "edgeloop/stop"


def _read_by(worker: int) -> str:
    return f"{_STOP}/{worker}"


def watch_heartbeats(cluster: Cluster, heartbeat_s: float) -> None:
    """Configure TensorFlow's coordination service, before the strategy is made, which keeps it: a worker that sends no
    heartbeat for `heartbeat_s`, a stopped one too, is lost, and the others fail."""
    # not among tensorflow's public names: 2.21 has it under compiler/xla
    config = need("tensorflow.compiler.xla.tsl.protobuf.coordination_config_pb2", extra="cloud")
    context = need("tensorflow.python.eager.context", extra="cloud").context()
    roles = [role for role in (Role.CHIEF, Role.WORKER) if role in cluster.addresses]
    context.configure_coordination_service(
        "standalone",
        service_leader=f"/job:{roles[0].value}/replica:0/task:0",
        heartbeat_timeout_in_ms=int(heartbeat_s * 1000),
        coordinated_jobs=[
            config.CoordinatedJob(name=role.value, num_tasks=len(cluster.addresses[role])) for role in roles
        ],
    )
