"""Batches made by the workers of a tf.data service, read with a bound on every wait."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import Any

from edgeloop.errors import DeviceError
from edgeloop.extras import need

AHEAD = 4  # batches that are read before they are asked for
LOOK_S = 0.5  # between two looks at whether a reader is still there
END = object()


def through_service(dataset: Any, address: str, timeout_s: float) -> Any:
    """The same batches, made by the workers of the service at HOST:PORT; each batch once, in any order.

    Work is handed out dynamically: a killed worker loses at most the batch it was making, and nothing comes twice. The
    order is not that of the steps, so two runs of one seed see the same batches in different orders.

    Raises:
        DeviceError: While it is read: nothing came for `timeout_s`.
    """
    tf = need("tensorflow", extra="cloud")
    service = tf.data.experimental.service
    made = dataset.apply(
        service.distribute(processing_mode=service.ShardingPolicy.DYNAMIC, service=f"grpc://{address}")
    )
    return tf.data.Dataset.from_generator(lambda: bounded(made, timeout_s, address), output_signature=made.element_spec)


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
                raise DeviceError(
                    f"the tf.data service at {address} sent nothing for {timeout_s:g} s",
                    advice="See that its dispatcher and workers run.",
                ) from None
            if item is END:
                return
            if isinstance(item, Exception):
                raise DeviceError(
                    f"the tf.data service at {address} failed: {item}", advice="Start it again."
                ) from item
            yield item
    finally:
        stopped.set()


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
