"""A bundle's reference inputs through a child on this device: whether the outputs are right, and how long it takes.

Python 3.9 syntax, NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from edgeloop.bundle import Bundle, Variant
from edgeloop.edge.on_device.percentiles import FEWEST_RUNS, percentile
from edgeloop.edge.on_device.releases.protocol import P90_RUNS, Probation
from edgeloop.errors import BudgetError, EdgeloopError, ParityError
from edgeloop.runtime.agent.child_model import ChildModel, ChildRun
from edgeloop.runtime.parity.compare import Parity, RunContext, bounded_outputs, judged_as, reason
from edgeloop.runtime.parity.reference import has_whole_calls, read_reference
from edgeloop.runtime.parity.self_check import Reference, batch_of, inference, sample, self_check

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

    parity: Sequence[Parity]
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
    """Run whole passes over the reference, or one random input again and again where the bundle has none.

    Raises:
        TargetError: The runtime refuses the model, or the child died of a signal.
        DeviceError: The child did not end within the time, or the runtime does not load here.
        DataError: reference.npz is not what it should be.
    """
    real = read_reference(bundle)
    reference = None
    if real:
        source, whole = bundle.manifest.source, has_whole_calls(bundle, real[0])
        scheme = judged_as(variant.scheme, source)
        reference = Reference(*real, scheme, variant.io, whole=whole, bounded=bounded_outputs(source))
    with start(how.runtime, str(bundle.path), variant.entry, how.threads, how.timeout_s) as model:
        where = RunContext(variant.id, how.runtime, model.version)
        timed = _TimedModel(model)
        signature, specs = inference(model.signatures, reference)
        first_ms = timed.run(sample(specs, reference), signature).wall_ms
        timed.wall_ms.clear()  # a first run is none of the steady ones
        enough = how.runs or (P90_RUNS if first_ms * P90_RUNS <= TRIAL_MS else P50_RUNS)
        rows: Sequence[Parity] = ()
        wrong = None
        while wrong is None and len(timed.wall_ms) < enough:
            if reference is not None:
                rows = self_check(timed, where, reference, signature, batch_of(specs))
                wrong = next((reason(row) for row in rows if not row.passed), None)
            else:
                wrong = _not_finite(timed.run(sample(specs, None), signature).outputs)
    return TrialResult(rows, wrong, timed.wall_ms, timed.rss_peak_bytes)


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


class _TimedModel:
    """A model that notes how long its runs took."""

    def __init__(self, model: ChildModel) -> None:
        self.model = model
        self.wall_ms: list[float] = []
        self.rss_peak_bytes: int | None = None

    def run(self, inputs: Mapping[str, np.ndarray], signature: str) -> ChildRun:
        ran = self.model.run(inputs, signature)
        self.wall_ms.append(ran.wall_ms)
        self.rss_peak_bytes = ran.rss_peak_bytes
        return ran


def _not_finite(outputs: Mapping[str, np.ndarray]) -> str | None:
    odd = [name for name, value in outputs.items() if value.dtype.kind == "f" and not np.isfinite(value).all()]
    return f"output {odd[0]!r} holds NaN or infinity for a random input" if odd else None
