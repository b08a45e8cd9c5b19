"""A search space as a TOML file describes it: for keys of train.toml the values to try.

"optimizer.learning-rate" = { low = 1e-4, high = 1e-1, scale = "log" }
"pipeline.batch" = [16, 32, 64]
"loop.epochs" = { low = 5, high = 20 }
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeloop import settings
from edgeloop.errors import OptionsError

Value = int | float | str | bool


class Scale(enum.StrEnum):
    """How values between two limits are spaced."""

    LINEAR = "linear"
    LOG = "log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Between:
    """Numbers from `low` to `high`, whole ones where both are."""

    low: float
    high: float
    scale: Scale = Scale.LINEAR

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.scale is Scale.LOG and self.low <= 0):
            least = "0 < low < high" if self.scale is Scale.LOG else "low < high"
            raise OptionsError(f"low is {self.low:g} and high is {self.high:g}", advice=f"Choose {least}.")


Space = Mapping[str, tuple[Value, ...] | Between]


def read_space(path: Path) -> Space:
    """The keys of a file and what to try for each.

    Raises:
        DataError: The file cannot be read, or is no TOML.
        OptionsError: A key without values, or limits that contradict each other.
    """
    given = settings.read_toml(path)
    if not given:
        raise OptionsError(f"{path} names no key to search", advice='Write e.g. "pipeline.batch" = [16, 32, 64].')
    return {key: _values(key, value, path) for key, value in given.items()}


def _values(key: str, value: Any, path: Path) -> tuple[Value, ...] | Between:
    if isinstance(value, Mapping) and "low" in value:
        between = settings.build(Between, value, f"{path}: {key}")
        whole = all(isinstance(value.get(name), int) for name in ("low", "high"))
        return between if not whole else Between(low=int(between.low), high=int(between.high), scale=between.scale)
    if isinstance(value, list) and len(value) > 1 and all(isinstance(one, Value) for one in value):
        return tuple(value)
    raise OptionsError(
        f"{path}: {key} has nothing to choose from",
        advice='Write a list of values, or { low = ..., high = ... }, and put the key in quotes: "pipeline.batch".',
    )
