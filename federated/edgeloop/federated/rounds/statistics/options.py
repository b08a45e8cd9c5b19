"""What devices are asked to tell of their data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeloop.federated.device.statistics import LABEL_MOMENTS, STATISTICS, Tell


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsOptions:
    """`[statistics]`. A device may refuse all of it.

    Attributes:
        tell: Of a classifier, by class. None: `evaluation`, and `none` with [privacy].
        label_moments: Of a model that predicts numbers: mean and variance of the labels of each device.
    """

    tell: Tell | None = None
    label_moments: bool = False

    def resolved(self, private: bool) -> StatisticsOptions:
        """With `tell` chosen; `private`: the run has a [privacy] mode."""
        usual = Tell.NONE if private else Tell.EVALUATION
        return StatisticsOptions(tell=self.tell or usual, label_moments=self.label_moments)

    @property
    def asks(self) -> bool:
        """Whether devices tell anything."""
        return self.tell not in (None, Tell.NONE) or self.label_moments

    def for_devices(self) -> dict[str, Any]:
        """Keys of a train message."""
        told = {STATISTICS: self.tell.value} if self.tell not in (None, Tell.NONE) else {}
        return {**told, **({LABEL_MOMENTS: True} if self.label_moments else {})}
