"""Two pipelines measured in turns, and whether one is faster than the other beyond what repeats differ by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

LEAST = 1.03  # a smaller gain is not worth another setting
Measure = Callable[[], float]  # examples per second of one short run


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """Examples per second, new over old, of runs in turns.

    Attributes:
        low, median, high: Quartiles of the pairs' ratios.
        pairs: Runs of each.
    """

    low: float
    median: float
    high: float
    pairs: int

    @property
    def helps(self) -> bool:
        """Faster, and three of four pairs say so."""
        return self.median >= LEAST and self.low > 1

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.median:.2f}x [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One remedy.

    Attributes:
        change: Fields of the pipeline, as TOML has them.
        gain: None: not measured.
        kept: Whether the pipeline goes on with the change.
        why: One sentence.
    """

    remedy: str
    change: dict[str, Any]
    gain: Gain | None
    kept: bool
    why: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def gain_of(old: Sequence[float], new: Sequence[float]) -> Gain:
    """From examples per second of runs in turns, equally many of each."""
    ratios = np.array(new) / np.array(old)
    low, median, high = np.percentile(ratios, [25, 50, 75])
    return Gain(low=float(low), median=float(median), high=float(high), pairs=len(ratios))


def in_turns(old: Measure, new: Measure, pairs: int) -> Gain:
    """Runs of each, one after the other; which goes first changes from pair to pair."""
    rates: tuple[list[float], list[float]] = ([], [])
    for k in range(pairs):
        for which in (0, 1) if k % 2 == 0 else (1, 0):
            rates[which].append((old, new)[which]())
    return gain_of(*rates)
