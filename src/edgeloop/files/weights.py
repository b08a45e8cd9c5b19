"""Which arrays of a model file are its parameters, and how many numbers they hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

# a training's state lies in the same files: an optimizer's slots, counters, the states of random numbers
STATE = frozenset({"optimizer", "_optimizer", "optimizer_weights", ".OPTIMIZER_SLOT", "save_counter", "metrics"})
RANDOM = "seed_generator"


def with_weights(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """`parameters`, their number, and `weights`, the [{name, shape, dtype}] without the state of a training."""
    kept = [row for row in rows if not _is_state(row["name"])]
    return {"parameters": sum(math.prod(row["shape"]) for row in kept), "weights": kept}


def _is_state(name: str) -> bool:
    parts = name.split("/")
    return bool(STATE.intersection(parts)) or any(part.startswith(RANDOM) for part in parts)
