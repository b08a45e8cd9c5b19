"""The server's half of SCAFFOLD: the control variate c, the mean of what the gradients of all devices are.

    x <- x + 1/|S| sum (y_i - x)          every device of the round counts the same, whatever its number of examples
    c <- c + 1/N   sum (c_i+ - c_i),      c_i+ - c_i = -c + (x - y_i) / (K_i * lr)

over the devices S of a round, of N. No difference of variates travels: the server knows c, x, lr and y_i, and the steps
K_i follow from the number of examples. Sums are exact, so they do not depend on the order of arrival.

Source: Karimireddy et al. 2020 (arXiv:1910.06378), algorithm 1 with option II and a global step size of 1
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from flwr.app import Array, ArrayRecord, Message

from edgeloop.federated.device.corrections import CONTROL, COUNTED
from edgeloop.federated.rounds.aggregation.collect import Collector
from edgeloop.federated.rounds.aggregation.exact_sum import ExactSum
from edgeloop.federated.rounds.guard.update import Update
from edgeloop.federated.rounds.records import RoundRecord
from edgeloop.quantities import at_least

PREFIX = f"{CONTROL}/"  # of its names among the moments of a round


@dataclass(frozen=True)
class StepCount:
    """How many steps a device takes with so many examples: `epochs` times the batches, the last one filled."""

    epochs: int
    batch: int

    def __post_init__(self) -> None:
        at_least(self.epochs, 1, "the number of epochs")
        at_least(self.batch, 1, "the number of samples of a step")

    def of(self, examples: int) -> int:
        return self.epochs * math.ceil(examples / self.batch)


class Scaffold:
    """The variate c of a run.

    Args:
        shapes: Of the weights that are trained.
        devices: N, all of the run.
        moments: What an earlier server of the run stored.
    """

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]], devices: int, steps: StepCount, moments: Mapping[str, np.ndarray]
    ) -> None:
        self.devices, self.steps = devices, steps
        zeros = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        self.control = {name: moments.get(f"{PREFIX}{name}", zero) for name, zero in zeros.items()}
        self._gradients: dict[str, ExactSum] = {}
        self._came = 0

    def add_to(self, messages: Iterable[Message], records: Sequence[RoundRecord]) -> list[Message]:
        """The messages of a round with the variate, and which update of each device was the last to count."""
        told, counted = list(messages), [0] * self.devices
        for record in records:
            for client in record.clients:
                if 0 <= client.device < self.devices:
                    counted[client.device] = record.round
        control = ArrayRecord({name: Array(array) for name, array in self.control.items()})
        for message in told:
            message.content[CONTROL] = control
            message.content.config_records["config"][COUNTED] = counted
        return told

    def collector(self, inner: Collector, base: Mapping[str, np.ndarray], lr: float) -> Collector:
        """Takes the updates of one attempt at a round whose weights are `base`."""
        self._gradients = {name: ExactSum(array.shape) for name, array in self.control.items()}
        self._came = 0
        return _Controlled(inner, lambda update: self._fold(update, base, lr))

    def step(self) -> None:
        """The round of the last collector has its quorum."""
        share = self._came / self.devices
        for name, exact in self._gradients.items():
            old = self.control[name].astype(np.float64)
            self.control[name] = (old + share * (exact.mean() - old)).astype(np.float32)

    def moments(self) -> dict[str, np.ndarray]:
        """What the journal keeps of it."""
        return {f"{PREFIX}{name}": array for name, array in self.control.items()}

    def _fold(self, update: Update, base: Mapping[str, np.ndarray], lr: float) -> None:
        """Adds the mean gradient of a device's steps, (x - y) / (K * lr)."""
        way = self.steps.of(update.examples) * lr
        for name, exact in self._gradients.items():
            exact.add(((base[name].astype(np.float64) - update.arrays[name]) / way).astype(np.float32), 1)
        self._came += 1


class _Controlled:
    def __init__(self, inner: Collector, fold: Callable[[Update], None]) -> None:
        self.inner, self.fold = inner, fold

    def add(self, reply: Message, update: Update) -> None:
        self.fold(update)
        self.inner.add(reply, replace(update, examples=1))

    def replies(self) -> list[Message]:
        return self.inner.replies()
