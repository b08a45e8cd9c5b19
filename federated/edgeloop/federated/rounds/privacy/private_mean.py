"""The mean of clipped updates with Gaussian noise, in the memory of one model.

Each update is scaled down to the clipping norm as it comes and goes into the exact sum, so no bit of the mean depends
on the order. All devices weigh the same: a weight of their own choice would be a sensitivity of their own choice.
The noise is Flower's `DifferentialPrivacyClientSideFixedClipping` around FedAvg, given the clipped mean as one
reply. Strategies get the mean after that, so what an optimizer of the server makes of it costs no more privacy.
Flower's wrappers that clip are not used: they keep all replies of a round, divide by zero where an update changes
nothing, and the adaptive ones move the norm away from its quantile (tried with Flower 1.42: the norm shrinks where
all updates are clipped, and grows where none is).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import DifferentialPrivacyClientSideFixedClipping, FedAvg

from edgeloop.federated.device.metrics import EXAMPLES, LOSS
from edgeloop.federated.rounds.aggregation.collect import Collector
from edgeloop.federated.rounds.aggregation.exact_sum import ExactSum
from edgeloop.federated.rounds.guard.sent_weights import squares
from edgeloop.federated.rounds.guard.update import Update
from edgeloop.federated.rounds.privacy.entropy import system_entropy


class PrivateMean:
    """A collector of one round.

    Args:
        base: The weights that the round starts from.
        clipping_norm: L2 norm that an update is scaled down to.
        noise_multiplier: Standard deviation of the noise on the sum of the updates, in clipping norms.
        release: Called with the number of updates before anything is made public: the release is charged.
        entropy: Seeds the noise of this round.
        trained: Names of the weights that get updates and noise; empty: all. The others stay those of `base`.

    Attributes:
        within: How many updates had the clipping norm at most, of the trained weights together.
    """

    def __init__(
        self,
        base: Mapping[str, np.ndarray],
        clipping_norm: float,
        noise_multiplier: float,
        release: Callable[[int], None],
        entropy: Callable[[], bytes] = system_entropy,
        trained: Collection[str] = (),
    ) -> None:
        self.base, self.clipping_norm, self.noise_multiplier = base, clipping_norm, noise_multiplier
        self.within = 0
        self._release, self._entropy = release, entropy
        self._sums = {name: ExactSum(base[name].shape) for name in trained or base}
        self._losses: list[float] = []
        self._reply: Message | None = None

    def add(self, reply: Message, update: Update) -> None:
        norm = math.sqrt(math.fsum(squares(update.arrays[name], self.base[name]) for name in self._sums))
        scale = min(1.0, self.clipping_norm / norm) if norm else 1.0
        self.within += norm <= self.clipping_norm
        for name, total in self._sums.items():
            change = update.arrays[name].astype(np.float64) - self.base[name]
            total.add((scale * change).astype(np.float32), 1)
        self._losses.append(update.train_loss)
        self._reply = reply

    def replies(self) -> list[Message]:
        if self._reply is None:
            return []
        count = len(self._losses)
        self._release(count)
        np.random.seed(np.frombuffer(self._entropy(), np.uint32))  # Flower draws from NumPy's global generator
        metrics = MetricRecord({EXAMPLES: count, LOSS: math.fsum(self._losses) / count})
        mean = {name: total.mean() for name, total in self._sums.items()}
        noisy = self._with_noise(mean, metrics, count)
        moved = {name: (self.base[name] + noisy[name]).astype(np.float32) for name in mean}
        self._reply.content = _content({**self.base, **moved}, metrics)
        return [self._reply]

    def _with_noise(self, mean: Mapping[str, np.ndarray], metrics: MetricRecord, count: int) -> dict[str, np.ndarray]:
        """The mean of `count` clipped updates changes by clipping norm / count where one of them does."""
        assert self._reply is not None
        around = FedAvg(fraction_evaluate=0.0)
        wrapper = DifferentialPrivacyClientSideFixedClipping(
            around, self.noise_multiplier, self.clipping_norm / count, num_sampled_clients=1
        )
        self._reply.content = _content(mean, metrics)
        arrays, _ = wrapper.aggregate_train(0, [self._reply])
        assert arrays is not None
        return {name: array.numpy() for name, array in arrays.items()}


class EqualWeights:
    """A collector whose updates all weigh the same, whatever number of examples they report."""

    def __init__(self, inner: Collector) -> None:
        self.inner = inner

    def add(self, reply: Message, update: Update) -> None:
        self.inner.add(reply, replace(update, examples=1))

    def replies(self) -> list[Message]:
        return self.inner.replies()


def next_norm(norm: float, within: int, count: int, quantile: float, rate: float, stddev: float) -> float:
    """The clipping norm of the next round: C exp(-rate (b - quantile)), with b the noised share of updates within C.

    Source: Andrew et al. 2021, "Differentially Private Learning with Adaptive Clipping", algorithm 1.
    """
    share = (within + float(np.random.normal(0.0, stddev))) / count
    return norm * math.exp(-rate * (share - quantile))


def _content(arrays: Mapping[str, np.ndarray], metrics: MetricRecord) -> RecordDict:
    record = ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})
    return RecordDict({"arrays": record, "metrics": metrics})
