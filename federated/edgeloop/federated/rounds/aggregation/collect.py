"""Updates of a round, one at a time, as the replies that a Flower strategy aggregates.

A strategy of the mean (FedAvg, and FedAdam and FedYogi, which step from the mean) gets ONE reply: the exact
mean, with the sum of the examples as its weight. Flower's own weighted mean of one reply is that reply, to the bit, so
the strategy goes on from there unchanged. Memory is that of the model. Other strategies get every reply.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict

from edgeloop.federated.device.metrics import EXAMPLES, LOSS
from edgeloop.federated.rounds.aggregation.exact_sum import ExactSum
from edgeloop.federated.rounds.guard.update import Update


class Collector(Protocol):
    """Takes the updates that count, in the order of their arrival."""

    def add(self, reply: Message, update: Update) -> None: ...

    def replies(self) -> list[Message]:
        """What the strategy aggregates; empty where nothing was added."""


class StreamedMean:
    """Folds updates into their exact mean as they come."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._sums = {name: ExactSum(shape) for name, shape in shapes.items()}
        self._losses: list[tuple[int, float]] = []
        self._reply: Message | None = None

    def add(self, reply: Message, update: Update) -> None:
        for name, array in update.arrays.items():
            self._sums[name].add(array, update.examples)
        self._losses.append((update.examples, update.train_loss))
        self._reply = reply

    def replies(self) -> list[Message]:
        if self._reply is None:
            return []
        arrays = ArrayRecord({name: Array(exact.mean()) for name, exact in self._sums.items()})
        examples = sum(weight for weight, _ in self._losses)
        loss = math.fsum(weight * loss for weight, loss in self._losses) / examples
        metrics = MetricRecord({EXAMPLES: examples, LOSS: loss})
        self._reply.content = RecordDict({"arrays": arrays, "metrics": metrics})
        return [self._reply]


class AllReplies:
    """Keeps every reply; they come out in an order that does not depend on that of their arrival."""

    def __init__(self) -> None:
        self._kept: list[tuple[tuple[int, int], Message]] = []

    def add(self, reply: Message, update: Update) -> None:
        metrics = MetricRecord({EXAMPLES: update.examples, LOSS: update.train_loss})
        arrays = ArrayRecord({name: Array(array) for name, array in update.arrays.items()})
        reply.content = RecordDict({"arrays": arrays, "metrics": metrics})
        self._kept.append(((update.device, update.node), reply))

    def replies(self) -> list[Message]:
        return [reply for _, reply in sorted(self._kept, key=lambda pair: pair[0])]


def as_float32(arrays: ArrayRecord) -> dict[str, np.ndarray]:
    """The arrays of a strategy's result; Flower's FedAdam and FedYogi give float64 for float32."""
    return {name: np.asarray(array.numpy(), np.float32) for name, array in arrays.items()}
