"""What the devices of a private round told of their data: sums with noise, and nothing of a single device.

All counts of a device are one vector (its labels by class, then those that the weights of the round got right), which
is scaled down to an L2 norm, as an update is. So one device moves the sum by that norm at most, and Gaussian noise on
the sum is a release like that of the weights: Dwork and Roth 2014, "The Algorithmic Foundations of Differential
Privacy", appendix A.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.federated.rounds.privacy.entropy import system_entropy
from edgeloop.federated.rounds.statistics.options import StatisticsOptions
from edgeloop.federated.rounds.statistics.round_statistics import RefusedStatistic, RoundStatistics
from edgeloop.federated.rounds.statistics.told import Labels, ToldCounts, told_in

if TYPE_CHECKING:
    from flwr.app import Message

    from edgeloop.federated.rounds.guard.update import Update

STEPS = 1 << 30  # of the clipping norm: whole steps add up in int64 exactly, in any order, for 2^33 devices
REFUSED = "its counts make no sense; why is not recorded where the sums have noise"


class NoisySummary:
    """Adds up the clipped counts of an attempt. Memory does not grow with the number of devices.

    A statistic that makes no sense is refused; the update of the same reply counts all the same. Counts with personal
    layers are left aside.

    Args:
        entropy: Seeds the noise. Not the bytes that seed the noise of the weights.
    """

    def __init__(self, labels: Labels, asked: StatisticsOptions, entropy: Callable[[], bytes] = system_entropy) -> None:
        self.labels, self.asked, self._entropy = labels, asked, entropy
        self._devices = 0
        self._steps: np.ndarray | None = None
        self._refused: list[RefusedStatistic] = []

    def add(self, reply: Message, update: Update) -> None:
        """What one reply tells, if anything."""
        told = told_in(reply, update, self.labels, self.asked)
        if isinstance(told, ToldCounts):
            self._devices += 1
            steps = self._clipped(told)
            self._steps = steps if self._steps is None else self._steps + steps
        elif told is not None:
            self._refused.append(RefusedStatistic(str(update.node), REFUSED))

    def record(self) -> RoundStatistics | None:
        """With noise, drawn anew at each call: it is called once, after the release was charged. None: nobody told
        anything."""
        if not (self._devices or self._refused):
            return None
        refused = tuple(sorted(self._refused, key=lambda one: one.node))
        if self._steps is None:
            return RoundStatistics(0, refused=refused)
        sums = self._steps * (self.asked.clipping_norm or 0.0) / STEPS
        chance = np.random.default_rng(np.frombuffer(self._entropy(), np.uint32))
        noisy = (sums + chance.normal(0.0, self.asked.noise_stddev, sums.size)).tolist()
        classes = self.labels.classes
        return RoundStatistics(
            self._devices,
            examples=tuple(noisy[:classes]),
            correct=tuple(noisy[classes:]),
            clipping_norm=self.asked.clipping_norm,
            noise_stddev=self.asked.noise_stddev,
            refused=refused,
        )

    def _clipped(self, told: ToldCounts) -> np.ndarray:
        """Whole steps, int64 [classes], or [2 classes] with the correct ones; rounded down, so never above the norm."""
        parts = [part for part in (told.examples, told.correct) if part is not None]
        counts, limit = np.concatenate(parts).astype(np.float64), self.asked.clipping_norm or 0.0
        return np.floor(counts * (STEPS / max(limit, float(np.linalg.norm(counts))))).astype(np.int64)
