"""Batches made by the workers of a tf.data service, read with a bound on every wait."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import Any

from edgeloop.errors import DeviceError, one_line
from edgeloop.extras import need

AHEAD = 4  # batches that are read before they are asked for
LOOK_S = 0.5  # between two looks at whether a reader is still there
END = object()
_failures: list[DeviceError] = []  # of the readings of this process, the last one last


def through_service(dataset: Any, address: str, timeout_s: float) -> Any:
    """The same batches, made by the workers of the service at HOST:PORT; each batch once, in any order.

    Work is handed out dynamically: a killed worker loses at most the batch it was making, and nothing comes twice. The
    order is not that of the steps, so two runs of one seed see the same batches in different orders.

    Raises:
        DeviceError: Nobody answers at the address within `timeout_s`; while it is read: nothing came for so long.
    """
    tf = need("tensorflow", extra="cloud")
    service = tf.data.experimental.service
    distribute = service.distribute(processing_mode=service.ShardingPolicy.DYNAMIC, service=f"grpc://{address}")
    registered: queue.Queue = queue.Queue()
    # in a thread, for TensorFlow waits without end for a dispatcher that is not there
    threading.Thread(target=lambda: registered.put(dataset.apply(distribute)), daemon=True).start()
    try:
        made = registered.get(timeout=timeout_s)
    except queue.Empty:
        raise DeviceError(
            f"no tf.data service answers at {address} within {timeout_s:g} s",
            advice="Start its dispatcher, or leave [pipeline] service out.",
        ) from None
    return tf.data.Dataset.from_generator(lambda: bounded(made, timeout_s, address), output_signature=made.element_spec)


def service_failure() -> DeviceError | None:
    """Why the last reading of a service ended; None: it did not fail. TensorFlow raises an error of its own for it."""
    return _failures[-1] if _failures else None


def bounded(batches: Any, timeout_s: float, address: str) -> Iterator[Any]:
    """What `batches` yields. Another thread waits for the service, for its own waits have no end.

    Raises:
        DeviceError: Nothing came for `timeout_s`, or the service failed.
    """
    arrived: queue.Queue = queue.Queue(AHEAD)
    stopped = threading.Event()
    threading.Thread(target=_read, args=(batches, arrived, stopped), name="edgeloop-service", daemon=True).start()
    try:
        while True:
            try:
                item = arrived.get(timeout=timeout_s)
            except queue.Empty:
                raise _failed(
                    f"the tf.data service at {address} sent nothing for {timeout_s:g} s",
                    "See that its dispatcher and workers run.",
                ) from None
            if item is END:
                return
            if isinstance(item, Exception):
                raise _failed(f"the tf.data service at {address} failed: {one_line(item)}", "Start it again.") from item
            yield item
    finally:
        stopped.set()


def _failed(found: str, advice: str) -> DeviceError:
    _failures.append(DeviceError(found, advice=advice))
    return _failures[-1]


def _read(batches: Any, arrived: queue.Queue, stopped: threading.Event) -> None:
    """Everything that `batches` yields, into the queue; then END, or the exception."""
    last: Any = END
    try:
        for batch in batches:
            if not _put(batch, arrived, stopped):
                return
    except Exception as e:  # the reader raises it again
        last = e
    _put(last, arrived, stopped)


def _put(item: Any, arrived: queue.Queue, stopped: threading.Event) -> bool:
    """False: nobody wants it any more."""
    while not stopped.is_set():
        with contextlib.suppress(queue.Full):
            arrived.put(item, timeout=LOOK_S)
            return True
    return False
