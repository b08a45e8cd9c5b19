"""A lock that its waiters get in the order in which they came. Python 3.9 syntax, the standard library.

`threading.Lock` mostly goes back to the thread that released it a moment ago: a request of many samples, which takes
it again and again, would hold up all others.
"""

from __future__ import annotations

import threading
import time


class RequestQueue:
    """Entered and left as a lock. `waiting` and `longest_wait_s` tell how busy the model is."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._came: dict[int, float] = {}  # ticket -> when; the first one has the turn
        self._tickets = 0

    def __enter__(self) -> None:
        with self._changed:
            self._tickets += 1
            ticket = self._tickets
            self._came[ticket] = time.monotonic()
            self._changed.wait_for(lambda: next(iter(self._came)) == ticket)

    def __exit__(self, *error: object) -> None:
        with self._changed:
            del self._came[next(iter(self._came))]
            self._changed.notify_all()

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn."""
        with self._changed:
            return max(0, len(self._came) - 1)

    @property
    def longest_wait_s(self) -> float:
        """For how long the next in line has waited; 0: nobody waits."""
        with self._changed:
            waiting = list(self._came.values())[1:]
        return time.monotonic() - waiting[0] if waiting else 0.0
