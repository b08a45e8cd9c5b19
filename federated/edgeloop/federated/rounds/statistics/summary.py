"""What the devices of a round told of their data, added up as their replies come."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.federated.rounds.statistics.options import StatisticsOptions
from edgeloop.federated.rounds.statistics.round_statistics import ClassCounts, RefusedStatistic, RoundStatistics
from edgeloop.federated.rounds.statistics.told import Labels, ToldCounts, ToldLabels, told_in

if TYPE_CHECKING:
    from flwr.app import Message

    from edgeloop.federated.rounds.guard.update import Update

LISTED = 2000  # counts of single devices in the record of a round; beyond it there are the sums alone. And refusals


class Summary:
    """Adds up what the replies of an attempt tell.

    A statistic that makes no sense is refused; the update of the same reply counts all the same. Memory does not grow
    with the number of devices beyond `LISTED`.
    """

    def __init__(self, labels: Labels, asked: StatisticsOptions) -> None:
        self.labels, self.asked = labels, asked
        self._devices = 0
        self._sums: dict[str, np.ndarray] = {}
        self._moments = Moments()
        self._listed: list[ClassCounts] = []
        self._fits = True
        self._refused: list[RefusedStatistic] = []

    def add(self, reply: Message, update: Update) -> None:
        """What one reply tells, if anything."""
        told = told_in(reply, update, self.labels, self.asked)
        if told is None:
            return
        if isinstance(told, str):
            if len(self._refused) < LISTED:
                self._refused.append(RefusedStatistic(str(update.node), told))
            return
        self._devices += 1
        if isinstance(told, ToldLabels):
            self._moments.add(update.examples, told.mean, told.variance)
        else:
            self._add(told, update)

    def record(self) -> RoundStatistics | None:
        """None: nobody told anything."""
        if not (self._devices or self._refused):
            return None
        sums: dict[str, Any] = {key: tuple(counts.tolist()) for key, counts in self._sums.items()}
        mean, variance = self._moments.together()
        listed = tuple(sorted(self._listed, key=lambda one: (one.device, one.node)))
        refused = tuple(sorted(self._refused, key=lambda one: one.node))
        return RoundStatistics(
            self._devices, **sums, label_mean=mean, label_variance=variance, clients=listed, refused=refused
        )

    def _add(self, told: ToldCounts, update: Update) -> None:
        found = {"examples": told.examples, "correct": told.correct, "personal_correct": told.personal_correct}
        counts = {key: one for key, one in found.items() if one is not None}
        personal = {} if told.personal_correct is None else {"personal_examples": told.examples}
        for key, one in {**counts, **personal}.items():
            self._sums[key] = self._sums.get(key, 0) + one
        self._fits = self._fits and sum(map(len, counts.values())) * (len(self._listed) + 1) <= LISTED
        lists: dict[str, Any] = {key: tuple(one.tolist()) for key, one in counts.items()}
        self._listed = [*self._listed, ClassCounts(update.device, str(update.node), **lists)] if self._fits else []


class Moments:
    """Mean and variance of the labels of all devices. The sums are exact, so the order of the replies is of no matter;
    a sum of squares less the square of the mean loses all digits in floats."""

    def __init__(self) -> None:
        self.count, self.sum, self.squares = 0, Fraction(), Fraction()

    def add(self, count: int, mean: float, variance: float) -> None:
        """Of one device: how many labels, their mean and variance."""
        self.count += count
        self.sum += count * Fraction(mean)
        self.squares += count * (Fraction(variance) + Fraction(mean) ** 2)

    def together(self) -> tuple[float | None, float | None]:
        """(mean, variance); (None, None): of no label."""
        if not self.count:
            return None, None
        mean = self.sum / self.count
        return float(mean), float(self.squares / self.count - mean**2)
