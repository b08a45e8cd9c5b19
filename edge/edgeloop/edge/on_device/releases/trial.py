"""A bundle's reference inputs through a child on this device: whether the outputs are right, and how long it takes.

Python 3.9 syntax, the standard library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from edgeloop.bundle import Bundle, Variant
from edgeloop.edge.on_device.percentiles import FEWEST_RUNS, percentile
from edgeloop.edge.on_device.releases.protocol import P90_RUNS, Probation
from edgeloop.errors import BudgetError, EdgeloopError, ParityError
from edgeloop.runtime.agent.child_model import ChildModel

P50_RUNS = FEWEST_RUNS[50]
TRIAL_MS = 2000.0  # a trial of this length at most goes on until it supports a p90

# (runtime, folder, entry, threads, timeout_s) -> a loaded model; `model_in_child`, or a test's own
Start = Callable[[str, str, str, int, float], AbstractContextManager[ChildModel]]


@dataclass(frozen=True)
class TrialResult:
    """The outputs and times of the runs.

    Attributes:
        parity: One record an output; none where the bundle has no reference.
        wrong: Why the outputs are not right; None: they are.
        wall_ms: Of every run but the first.
    """

    parity: Sequence[Mapping[str, Any]]
    wrong: str | None
    wall_ms: Sequence[float]
    rss_peak_bytes: int | None

    @property
    def p50_ms(self) -> float | None:
        return percentile(self.wall_ms, 50)

    @property
    def p90_ms(self) -> float | None:
        return percentile(self.wall_ms, 90)


@dataclass(frozen=True)
class TrialOptions:
    """How to run a variant; `runs` None: as many as support a p90 where that is quick, else a p50."""

    runtime: str
    threads: int = 1
    timeout_s: float = 120.0
    runs: int | None = None


def run_trial(start: Start, bundle: Bundle, variant: Variant, how: TrialOptions) -> TrialResult:
    """Run whole passes over the reference, or one random input again and again where the bundle has none. The child
    alone reads the reference.

    Raises:
        TargetError: The runtime refuses the model, or the child died of a signal.
        DeviceError: The child did not end within the time, or the runtime does not load here.
        DataError: reference.npz is not what it should be.
    """
    with start(how.runtime, str(bundle.path), variant.entry, how.threads, how.timeout_s) as model:
        (first_ms,) = model.self_check(variant.id, first=True).wall_ms  # a first run is none of the steady ones
        enough = how.runs or (P90_RUNS if first_ms * P90_RUNS <= TRIAL_MS else P50_RUNS)
        wall_ms: list[float] = []
        while True:
            done = model.self_check(variant.id)
            wall_ms += done.wall_ms
            if done.wrong is not None or len(wall_ms) >= enough:
                return TrialResult(done.parity, done.wrong, wall_ms, done.rss_peak_bytes)


def objection(probation: Probation, seen: TrialResult) -> EdgeloopError | None:
    """Why the release must be rolled back after its probation; None: it passed."""
    if seen.wrong is not None:
        return ParityError(seen.wrong, advice="Deploy another variant or runtime.")
    if probation.p90_budget_ms is not None and seen.p90_ms is not None and seen.p90_ms > probation.p90_budget_ms:
        return BudgetError(
            f"p90 latency is {seen.p90_ms:.3g} ms, above the budget of {probation.p90_budget_ms:g} ms",
            advice="Deploy a faster variant, or allow more with --p90-budget-ms.",
        )
    return None
