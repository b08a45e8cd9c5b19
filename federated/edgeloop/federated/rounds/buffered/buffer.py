"""Updates of several versions of the weights, folded into one step as they come."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict

from edgeloop.federated.device.metrics import EXAMPLES, LOSS
from edgeloop.federated.rounds.aggregation.exact_sum import ExactSum
from edgeloop.federated.rounds.buffered.buffered_grid import Taken
from edgeloop.federated.rounds.buffered.options import staleness_weight

WEIGHT_BITS = 20  # the exact sum takes whole weights: those of staleness are rounded to multiples of 2^-20


class Buffer:
    """Takes `size` updates; then `replies` is what a strategy of the mean makes new weights of.

    The step is the sum of s(t) (trained - base) over the updates, over `size`, times the server's learning rate, with
    `base` the weights that a device was sent and s its staleness weight: algorithm 1 of FedBuff. Updates count alike,
    whatever number of examples they report.

    Args:
        weights: Those of the newest version, that the step starts from.
    """

    def __init__(self, weights: Mapping[str, np.ndarray], learning_rate: float) -> None:
        self.weights, self.learning_rate = weights, learning_rate
        self._sums = {name: ExactSum(array.shape) for name, array in weights.items()}
        self._losses: list[float] = []
        self._reply: Message | None = None

    def __len__(self) -> int:
        return len(self._losses)

    def add_stale(self, taken: Taken, version: int) -> int:
        """Count an update while `version` is the newest; its staleness."""
        staleness = version - taken.version
        weight = round(staleness_weight(staleness) * 2**WEIGHT_BITS)
        for name, array in taken.update.arrays.items():
            self._sums[name].add(array - taken.base[name], weight)
        self._losses.append(taken.update.train_loss)
        self._reply = taken.reply
        return staleness

    def replies(self) -> list[Message]:
        """One reply: the weights after the step."""
        if self._reply is None:
            return []
        count = len(self._losses)
        arrays = {}
        for name, total in self._sums.items():
            rate = self.learning_rate * total.total / (count * 2**WEIGHT_BITS)
            arrays[name] = Array((self.weights[name] + rate * total.mean().astype(np.float64)).astype(np.float32))
        metrics = MetricRecord({EXAMPLES: count, LOSS: math.fsum(self._losses) / count})
        self._reply.content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics})
        return [self._reply]
