"""A mix of schemes in, what it measured out: from the journal where it was measured before, else by making and
running it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgeloop.bundle import Scheme
from edgeloop.canonical import canonical_json
from edgeloop.convert.search.journal import Journal
from edgeloop.convert.search.metric import SourceScore
from edgeloop.errors import DeviceError, ModelError, TargetError
from edgeloop.hashes import digest_of
from edgeloop.progress import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class MixMeasurement:
    """What running a mix gave.

    Attributes:
        value: Of the metric that the budget is on: 0..1, or an RMSE.
        latency_ms: Median of one call at the model's own batch; of no use without the ratio on a shared machine.
        latency_ratio: To float32, both measured in one interleaved run.
        snr_db: Of the worst output against the source. None: exact.
        passed: The floors that the proof will ask of it (parity.py).
    """

    value: float
    latency_ms: float
    latency_ratio: float
    snr_db: float | None
    passed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MixCandidate:
    """A mix that was measured: `scheme` for all operators but those in `keep` {first output tensor: scheme}."""

    scheme: Scheme
    keep: Mapping[str, Scheme]
    bytes: int
    sha256: str
    measured: MixMeasurement

    @property
    def label(self) -> str:
        """`int8`, or `int8 + 2 float16 + 1 int16x8`."""
        kept = Counter(scheme.value for scheme in self.keep.values())
        return " + ".join([self.scheme.value, *(f"{count} {name}" for name, count in sorted(kept.items()))])


@dataclass(frozen=True, slots=True, kw_only=True)
class MixRefusal:
    """A mix that the quantizer or the runtime would not have, and why."""

    scheme: Scheme
    keep: Mapping[str, Scheme]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """At most `max_drop` worse than the source: percentage points, or per cent of an RMSE."""

    source: SourceScore
    max_drop: float

    def drop(self, candidate: MixCandidate) -> float:
        return self.source.drop(candidate.measured.value)

    def holds(self, candidate: MixCandidate) -> bool:
        # 1e-9: 92.5 - 92 is 0.5000000000000004 points
        return candidate.measured.passed and self.drop(candidate) <= self.max_drop + 1e-9


Quantize = Callable[[Scheme, Mapping[str, Scheme]], bytes]
Measure = Callable[[bytes, Scheme], MixMeasurement]


class SearchLimitReached(Exception):
    """The evaluations are used up: the search ends and takes the best so far. No error, so not of that tree."""


class Candidates:
    """Every mix tried so far by its id: none is measured twice, and no more than `limit` are tried."""

    def __init__(
        self, quantize: Quantize, measure: Measure, budget: Budget, limit: int, journal: Journal, progress: Progress
    ) -> None:
        self._quantize, self._measure, self._journal, self._progress = quantize, measure, journal, progress
        self.budget, self.limit = budget, limit
        self.measured: dict[str, MixCandidate] = {}
        self.refusals: dict[str, MixRefusal] = {}
        self.resumed = 0

    def __len__(self) -> int:
        return len(self.measured) + len(self.refusals)

    def holds(self, scheme: Scheme, keep: Mapping[str, Scheme]) -> bool:
        """Whether this mix is within the budget; one that is refused is not.

        Raises:
            SearchLimitReached: It would be one evaluation too many.
            WriteError: The journal cannot be written.
        """
        keep = dict(sorted(keep.items()))
        id = canonical_json([scheme.value, {name: kept.value for name, kept in keep.items()}]).decode()
        if id not in self.measured and id not in self.refusals:
            self._try(id, scheme, keep)
        return id in self.measured and self.budget.holds(self.measured[id])

    def _try(self, id: str, scheme: Scheme, keep: Mapping[str, Scheme]) -> None:
        if len(self) >= self.limit:
            raise SearchLimitReached
        record = self._journal.get(id)
        if record is None:
            record = self._evaluate(scheme, keep)
            self._journal.add(id, record)
        else:
            self.resumed += 1
        if "refused" in record:
            self.refusals[id] = MixRefusal(scheme=scheme, keep=keep, reason=record["refused"])
        else:
            measured = MixMeasurement(**record["measured"])
            self.measured[id] = MixCandidate(
                scheme=scheme, keep=keep, bytes=record["bytes"], sha256=record["sha256"], measured=measured
            )
        self._progress("search", len(self), self.limit)

    def _evaluate(self, scheme: Scheme, keep: Mapping[str, Scheme]) -> dict[str, Any]:
        try:
            data = self._quantize(scheme, keep)
            measured = self._measure(data, Scheme.MIXED if keep else scheme)
        except (ModelError, TargetError, DeviceError) as e:  # about this mix: it may crash a runtime others run on
            return {"refused": str(e)}
        return {"bytes": len(data), "sha256": digest_of(data), "measured": asdict(measured)}
