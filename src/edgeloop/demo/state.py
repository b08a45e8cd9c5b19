"""One run of the loop, as its steps see it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgeloop.progress import Progress, Say


@dataclass(frozen=True, kw_only=True)
class DemoRun:
    """Where files go, how a step reports what it does, and the seconds that each step took."""

    out: Path
    seed: int
    say: Say
    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 1)
