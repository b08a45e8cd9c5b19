"""The model of this very process, as who checks outputs asks one. Python 3.9 syntax, NumPy."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class OwnRun:
    """The outputs of one run, and how long its invoke took."""

    outputs: Mapping[str, np.ndarray]
    wall_ms: float


class OwnModel:
    """`runtime` (runtimes.py) with its model loaded."""

    def __init__(self, runtime: Any) -> None:
        self.runtime = runtime

    def run(self, inputs: Mapping[str, np.ndarray], signature: str) -> OwnRun:
        call = self.runtime.ready(signature, inputs)
        start = time.perf_counter_ns()
        call.invoke()
        return OwnRun(call.outputs(), (time.perf_counter_ns() - start) / 1e6)
