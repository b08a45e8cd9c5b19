"""A loaded model on the reference inputs of its bundle, in the process that runs the model.

reference.npz comes with the bundle, and so from whoever made it: the program that keeps a device's releases never opens
it. Python 3.9 syntax.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgeloop.bundle import MANIFEST, Bundle, parse_manifest
from edgeloop.runtime.parity.compare import Parity, RunContext, reason
from edgeloop.runtime.parity.reference import read_reference, reference_of
from edgeloop.runtime.parity.self_check import batch_of, inference, sample, self_check


class TimedRun(Protocol):
    """What one run gave, and how long it took."""

    @property
    def outputs(self) -> Mapping[str, np.ndarray]: ...

    @property
    def wall_ms(self) -> float: ...


class TimedModel(Protocol):
    """A loaded model, which says how long each run takes."""

    def run(self, inputs: Mapping[str, np.ndarray], signature: str) -> TimedRun: ...


@dataclass(frozen=True)
class ReferencePass:
    """One pass over the reference, or one run on random inputs where the bundle has none.

    Attributes:
        parity: One record an output; none without a reference.
        wrong: Why the outputs are not right; None: they are.
        wall_ms: Of every run, in order.
    """

    parity: Sequence[Parity]
    wrong: str | None
    wall_ms: Sequence[float]


class ReferenceRuns:
    """One variant of the bundle in `folder`, whose model is loaded. Made once: the reference is read here.

    Raises:
        ModelError: The manifest there is none, or has no such variant.
        DataError: reference.npz is not what it should be.
    """

    def __init__(self, model: TimedModel, signatures: Mapping[str, Any], folder: str, where: RunContext) -> None:
        with open(os.path.join(folder, MANIFEST), "rb") as file:
            bundle = Bundle(Path(folder), parse_manifest(file.read()), "")
        self.model, self.where, real = _Noting(model), where, read_reference(bundle)
        self.reference = reference_of(bundle, bundle.variant(where.variant), real) if real else None
        self.signature, self.specs = inference(signatures, self.reference)

    def first(self) -> ReferencePass:
        """One run alone, which is slower than those that follow."""
        self._run_sample()
        return ReferencePass((), None, self.model.taken())

    def check(self) -> ReferencePass:
        """A whole pass. Raises TargetError where the runtime refuses an input."""
        if self.reference is None:
            return ReferencePass((), _not_finite(self._run_sample()), self.model.taken())
        rows = self_check(self.model, self.where, self.reference, self.signature, batch_of(self.specs))
        wrong = next((reason(row) for row in rows if not row.passed), None)
        return ReferencePass(rows, wrong, self.model.taken())

    def _run_sample(self) -> Mapping[str, np.ndarray]:
        return self.model.run(sample(self.specs, self.reference), self.signature).outputs


class _Noting:
    """A model that notes how long its runs took."""

    def __init__(self, model: TimedModel) -> None:
        self.model = model
        self.wall_ms: list[float] = []

    def run(self, inputs: Mapping[str, np.ndarray], signature: str) -> TimedRun:
        ran = self.model.run(inputs, signature)
        self.wall_ms.append(ran.wall_ms)
        return ran

    def taken(self) -> list[float]:
        """The times since they were last asked for."""
        taken, self.wall_ms = self.wall_ms, []
        return taken


def _not_finite(outputs: Mapping[str, np.ndarray]) -> str | None:
    odd = [name for name, value in outputs.items() if value.dtype.kind == "f" and not np.isfinite(value).all()]
    return f"output {odd[0]!r} holds NaN or infinity for a random input" if odd else None
