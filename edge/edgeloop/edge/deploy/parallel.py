"""The same work on many devices at once, each in a thread; news and Ctrl-C arrive in the one that asked for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from edgeloop.errors import DeviceError, OptionsError
from edgeloop.processes.children import interrupt_children
from edgeloop.runtime.device import Device

T = TypeVar("T")
Step = Callable[[str], None]  # a worker says what it begins; raises DeviceError where the work was interrupted
AT_ONCE = 16  # threads wait for devices, so more than this machine's cores; each holds an ssh and some files


class Interrupted(KeyboardInterrupt, Generic[T]):
    """Ctrl-C came. `results`: what every worker that had begun ended with, in the devices' order."""

    def __init__(self, results: Sequence[T]) -> None:
        super().__init__()
        self.results = results


def run_on_all(
    devices: Sequence[Device], work: Callable[[Device, Step], T], tell: Callable[[Device, str], None]
) -> list[T]:
    """`work` on every device, in their order; `tell` hears of each step, in the calling thread.

    `work` handles the errors it expects: any other ends with the call, after the other devices.

    Raises:
        Interrupted: Ctrl-C. Children were ended, and with them the workers.
    """
    news: SimpleQueue[tuple[Device, str] | None] = SimpleQueue()
    stop = threading.Event()

    def step(device: Device, name: str) -> None:
        if stop.is_set():
            raise DeviceError(f"{device.name}: interrupted before {name}.")
        news.put((device, name))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = [pool.submit(work, device, partial(step, device)) for device in devices]
        for future in futures:
            future.add_done_callback(lambda _: news.put(None))
        try:
            left = len(futures)
            while left:
                found = news.get()
                if found is None:
                    left -= 1
                else:
                    tell(*found)
        except KeyboardInterrupt as e:
            stop.set()
            _end(futures)
            raise Interrupted([future.result() for future in futures if not future.cancelled()]) from e
    return [future.result() for future in futures]


def refuse_twice(devices: Sequence[Device]) -> None:
    """One folder on a machine holds its releases, whatever Python serves them.

    Raises:
        OptionsError: No device at all, or two names of one machine.
    """
    if not devices:
        raise OptionsError("no device. Expected local, local:PYTHON or ssh://[USER@]HOST[:PORT][/PATH/TO/PYTHON].")
    seen: dict[Any, Device] = {}
    for device in devices:
        if device.ssh in seen:
            first = seen[device.ssh].name
            raise OptionsError(f"{first} and {device.name} are one machine with one set of releases. Name it once.")
        seen[device.ssh] = device


def _end(futures: Sequence[Future]) -> None:
    """A worker between two children starts another before it looks at `stop`: so again, until all have ended."""
    for future in futures:
        future.cancel()
    while wait(futures, timeout=0.2).not_done:
        interrupt_children()
