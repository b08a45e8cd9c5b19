"""The same work on many devices at once, each in a thread; its steps and Ctrl-C arrive in the calling thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

from edgeloop.errors import DeviceError, OptionsError
from edgeloop.processes.children import interrupt_children
from edgeloop.runtime.device import Device

log = logging.getLogger(__name__)
T = TypeVar("T")
AT_ONCE = 16  # threads wait for devices, so more than this machine's cores; each holds an ssh and some files


class Step(Protocol):
    """A worker names the step it begins, and how far it is in it."""

    def __call__(self, name: str, done: int = 0, total: int = 0) -> None:
        """`done` of `total`: of whatever the step counts; 0: of nothing. Raises DeviceError where the work was
        interrupted."""


class InterruptedRun(KeyboardInterrupt, Generic[T]):
    """Ctrl-C. `results`: of every worker that had begun, in the devices' order."""

    def __init__(self, results: Sequence[T]) -> None:
        super().__init__()
        self.results = results


def run_on_all(
    devices: Sequence[Device], work: Callable[[Device, Step], T], tell: Callable[[Device, str, int, int], None]
) -> list[T]:
    """Results of `work` on every device, in their order; `tell` is called at each step, in the calling thread.

    `work` handles the errors it expects: any other ends with the call, after the other devices.

    Raises:
        InterruptedRun: Ctrl-C. Children were ended, and with them the workers.
    """
    events: SimpleQueue[tuple[Device, str, int, int] | None] = SimpleQueue()
    stop = threading.Event()

    def step(device: Device, name: str, done: int = 0, total: int = 0) -> None:
        if stop.is_set():
            raise DeviceError(f"interrupted before the step {name}", advice="Run the command again.", where=device.name)
        log.info("%s: %s", device.label, name)
        events.put((device, name, done, total))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = [pool.submit(work, device, partial(step, device)) for device in devices]
        for future in futures:
            future.add_done_callback(lambda _: events.put(None))
        try:
            left = len(futures)
            while left:
                found = events.get()
                if found is None:
                    left -= 1
                else:
                    tell(*found)
        except KeyboardInterrupt as e:
            for future in futures:  # first: a worker that sees `stop` makes room for the next device
                future.cancel()
            stop.set()
            _end(futures)
            raise InterruptedRun([future.result() for future in futures if not future.cancelled()]) from e
    return [future.result() for future in futures]


def refuse_twice(devices: Sequence[Device]) -> None:
    """Refuse two names of one machine: one folder there holds its releases, whatever Python serves them.

    Raises:
        OptionsError: No device, or two names of one machine.
    """
    if not devices:
        raise OptionsError(
            "no device was named", advice="Expected local, local:PYTHON or ssh://[USER@]HOST[:PORT][/PATH/TO/PYTHON]."
        )
    seen: dict[Any, Device] = {}
    for device in devices:
        if device.ssh in seen:
            first = seen[device.ssh].name
            raise OptionsError(
                f"{first} and {device.name} are the same machine, which has one set of releases", advice="Name it once."
            )
        seen[device.ssh] = device


def _end(futures: Sequence[Future]) -> None:
    """Until all have ended: a worker between two children starts another before it looks at `stop`."""
    while wait(futures, timeout=0.2).not_done:
        interrupt_children()
