"""A sign of life of a training, for whoever supervises it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

# told how many steps are done: after each call of the step function and batch of validation, and while `beating`
Beat = Callable[[int], None]
EVERY_S = 0.2


def no_beat(step: int) -> None:
    """The `beat` of a training that nobody supervises."""


@contextlib.contextmanager
def beating(beat: Beat, step: int, limit_s: float) -> Iterator[None]:
    """Give signs of life while the block does something else than steps, for `limit_s` at most: after that it hangs."""
    ended, deadline = threading.Event(), time.monotonic() + limit_s

    def go_on() -> None:
        while time.monotonic() < deadline and not ended.wait(EVERY_S):
            beat(step)

    thread = threading.Thread(target=go_on, daemon=True)
    beat(step)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    beat(step)
