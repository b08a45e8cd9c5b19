"""What the devices of a round told of their data, as its record keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

Counts = tuple[int, ...]
Sums = tuple[float, ...]  # whole numbers where they have no noise


@dataclass(frozen=True)
class ClassCounts:
    """What one device told of its labels in a round, by class.

    Attributes:
        device, node: As in `ClientRecord`.
        examples: How many it holds.
        correct: How many of them the weights that it was sent got right; None: it was not asked.
        personal_correct: The same with the device's own personal layers; None: it has none.
    """

    device: int
    node: str
    examples: Counts
    correct: Counts | None = None
    personal_correct: Counts | None = None


@dataclass(frozen=True)
class RefusedStatistic:
    """A statistic that did not count; the update of the same reply did."""

    node: str
    detail: str


@dataclass(frozen=True)
class RoundStatistics:
    """What the counted devices of a round told of their data.

    Attributes:
        devices: How many told anything.
        examples, correct: By class, added up over these devices, as `ClassCounts` has them; empty: not told.
        personal_examples, personal_correct: The same of the devices that have personal layers.
        clipping_norm, noise_stddev: Of sums with noise: the L2 norm that all counts of a device were scaled down to,
            and the standard deviation of the noise on each sum.
        label_mean, label_variance: Of all labels together, where these are numbers.
        clients: Of each device, unless these are too many numbers, or the sums have noise.
    """

    devices: int
    examples: Sums = ()
    correct: Sums = ()
    personal_examples: Sums = ()
    personal_correct: Sums = ()
    clipping_norm: float | None = None
    noise_stddev: float | None = None
    label_mean: float | None = None
    label_variance: float | None = None
    clients: tuple[ClassCounts, ...] = ()
    refused: tuple[RefusedStatistic, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Without what was not told."""
        found = {key: value for key, value in asdict(self).items() if value not in (None, ())}
        if self.clients:
            found["clients"] = [{k: v for k, v in asdict(one).items() if v is not None} for one in self.clients]
        return found


def statistics_from_json(document: Mapping[str, Any]) -> RoundStatistics:
    """What `RoundStatistics.to_json` wrote."""
    found: dict[str, Any] = _with_tuples(document)
    found["clients"] = tuple(ClassCounts(**_with_tuples(one)) for one in document.get("clients", ()))
    found["refused"] = tuple(RefusedStatistic(**one) for one in document.get("refused", ()))
    return RoundStatistics(**found)


def _with_tuples(document: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in document.items()}
