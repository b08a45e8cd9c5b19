"""Where a node leaves work for its tab and waits for the answer; the page's server reads and writes it for the tab.

One piece of work at a time. A tab that says nothing for AWAY_S, because it was closed or its machine sleeps, has left.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeloop.errors import DeviceError

AWAY_S = 75.0  # a busy tab says so every 5 s; in a tab that is hidden for long, timers run once a minute
WORK_S = 3600.0  # for one training in a tab


@dataclass(frozen=True)
class Work:
    """One thing to do.

    Attributes:
        kind: `train` or `evaluate`.
        config: Of the training: epochs, lr, seed and the round's number.
        base: Hash of `row`; the answer repeats it.
        row: The weights, float32 little-endian, one after the other in `get_weights` order.
    """

    kind: str
    config: Mapping[str, Any]
    base: str
    row: bytes
    id: str = field(default_factory=lambda: secrets.token_hex(8))


@dataclass(frozen=True)
class Answer:
    """What a tab gave for a piece of work: numbers by name, and weights as in `Work` after a training; `failed`: why
    there are none."""

    numbers: Mapping[str, float]
    row: bytes
    failed: str = ""


class Desk:
    """Of one tab. Its node asks in one thread, the page's server in others."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._changed = clock, threading.Condition()
        self._heard, self._left, self._answered = clock(), "", ""
        self._work: Work | None = None
        self._answer: Answer | None = None

    def ask(self, work: Work) -> Answer:
        """Leave `work` and wait for its answer, for WORK_S at most.

        Raises:
            DeviceError: The tab has left, failed, or takes too long.
        """
        with self._changed:
            self._work, self._answer, deadline = work, None, self._clock() + WORK_S
            self._changed.notify_all()
            try:
                while self._answer is None and not self.left and self._clock() < deadline:
                    self._changed.wait(1.0)
                answer = self._answer
            finally:
                self._work = self._answer = None
        if answer is None:
            raise DeviceError(
                self.left or f"the tab did not answer within {WORK_S:g} s", advice="Keep the tab open until the end."
            )
        if answer.failed:
            raise DeviceError(f"the training failed in the tab: {answer.failed}", advice="Look at the page.")
        return answer

    def next_work(self, wait_s: float) -> Work | None:
        """What there is to do; waits for it."""
        with self._changed:
            self.hear()
            self._changed.wait_for(lambda: self._open is not None or bool(self._left), wait_s)
            self.hear()
            return self._open

    def give(self, id: str, base: str, answer: Answer) -> bool:
        """The answer to the work of that id and base; whether it was waited for. The same one may come again, from a
        tab that did not hear so."""
        with self._changed:
            self.hear()
            work = self._open
            if work is not None and (work.id, work.base) == (id, base):
                self._answer, self._answered = answer, id
                self._changed.notify_all()
            return self._answered == id

    def hear(self, working_at: str = "") -> bool:
        """The tab is there; whether the work that it is at is still wanted."""
        self._heard = self._clock()
        work = self._open
        return work is not None and work.id == working_at

    def leave(self, reason: str) -> None:
        """The tab goes; its first reason holds."""
        with self._changed:
            self._left = self._left or reason
            self._changed.notify_all()

    @property
    def _open(self) -> Work | None:
        """What is still to be done."""
        return self._work if self._answer is None else None

    @property
    def left(self) -> str:
        """Why the tab takes no part any more; empty while it does."""
        if not self._left and self._clock() - self._heard > AWAY_S:
            self._left = f"the tab was not heard of for {AWAY_S:g} s"
        return self._left
