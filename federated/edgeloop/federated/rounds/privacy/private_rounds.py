"""Privacy of one run: what a round is allowed, how its updates are collected, what it has spent."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeloop.errors import OptionsError
from edgeloop.federated.device.local_noise import CLIPPING, NOISE
from edgeloop.federated.rounds.aggregation.collect import Collector
from edgeloop.federated.rounds.guard.options import GuardOptions
from edgeloop.federated.rounds.privacy.budget import PrivacyBudget, to_json
from edgeloop.federated.rounds.privacy.options import PrivacyMode, PrivacyOptions, Sampling, update_noise
from edgeloop.federated.rounds.privacy.private_mean import EqualWeights, PrivateMean, next_norm
from edgeloop.federated.rounds.records import PrivacyRecord

QUANTILE, CLIPPING_RATE = 0.5, 0.2  # Andrew et al. 2021 recommend both


@dataclass(frozen=True)
class Chosen:
    """How many devices a round chose, of how many that were connected."""

    sample: int
    connected: int


class PrivateRounds:
    """Keeps the budget and the clipping norm of a run.

    Args:
        devices, wanted: Of the run, and the updates that a round of it wants.
        charge: Writes one release to the journal before it is made public.
        released: Releases of an earlier process, from the journal.
        last: The record of the last committed round, if it has one.
        trained: Names of the weights that steps move; empty: all. The others stay as they are: noise would make the
            variances of a batch norm negative, and blur what is frozen.
        counts_noise: As `PrivacyBudget` takes it.
    """

    def __init__(
        self,
        options: PrivacyOptions,
        devices: int,
        wanted: int,
        charge: Callable[[Mapping[str, Any]], None] = lambda event: None,
        released: Iterable[Mapping[str, Any]] = (),
        last: PrivacyRecord | None = None,
        trained: Collection[str] = (),
        counts_noise: float | None = None,
    ) -> None:
        self.options, self._charge, self.trained = options, charge, trained
        self.budget = PrivacyBudget(options, devices, released, counts_noise)
        self.noise_multiplier, self.count_stddev = update_noise(options, wanted)
        self.norm = last.next_clipping_norm if last else options.clipping_norm or 0.0
        self._chosen = Chosen(wanted, devices)
        self._mean: PrivateMean | None = None
        self.budget.check(self.budget.event(wanted, devices))

    def allows(self, chosen: Chosen | None = None) -> bool:
        """Whether the budget has room for a round of these devices; None: as many as the run wants, of all."""
        self._chosen = chosen or self._chosen
        return self.budget.allows(self._event())

    @property
    def _each_attempt_costs(self) -> bool:
        """Local noise is released by the devices, whatever becomes of the round. A sample whose devices fail is drawn
        again until all of one answer, so those that answer are chosen more often than a single sample says: each
        sample counts."""
        return self.options.mode is PrivacyMode.LOCAL or self.options.sampling is Sampling.WITHOUT_REPLACEMENT

    def before_asking(self) -> None:
        """Charge an attempt where each one costs."""
        if self._each_attempt_costs:
            self._release()

    def _before_the_mean(self, _: int) -> None:
        if not self._each_attempt_costs:
            self._release()

    def for_devices(self) -> dict[str, float]:
        """Keys of a train message: what devices are to do themselves."""
        if self.options.mode is not PrivacyMode.LOCAL:
            return {}
        return {CLIPPING: self.norm, NOISE: self.noise_multiplier}

    def collector(self, inner: Collector, base: Mapping[str, np.ndarray]) -> Collector:
        """For the updates of an attempt that starts from `base`; `inner` where the server adds no noise."""
        if not self.options.central:
            return EqualWeights(inner)
        self._mean = PrivateMean(base, self.norm, self.noise_multiplier, self._before_the_mean, trained=self.trained)
        return self._mean

    def record(self, count: int) -> PrivacyRecord:
        """Of the round whose `count` updates were just released. Moves the clipping norm on."""
        used, options = self.norm, self.options
        if options.mode is PrivacyMode.CENTRAL_ADAPTIVE and self._mean is not None:
            quantile = options.target_quantile or QUANTILE
            rate = options.clipping_learning_rate or CLIPPING_RATE
            self.norm = next_norm(used, self._mean.within, count, quantile, rate, self.count_stddev)
        stddev = self.noise_multiplier * used / (count if options.central else 1)
        spent = self.budget.epsilon, options.delta or 0.0, self.budget.releases
        return PrivacyRecord(*spent, clipping_norm=used, next_clipping_norm=self.norm, noise_stddev=stddev)

    def check_guard(self, base: Mapping[str, np.ndarray], guard: GuardOptions) -> None:
        """See that the guard lets noise of devices pass.

        Raises:
            OptionsError: It would refuse about every update.
        """
        if self.options.mode is not PrivacyMode.LOCAL:
            return
        norm = math.sqrt(math.fsum(float(np.vdot(a, a)) for a in base.values()))
        limit = min(guard.max_norm or math.inf, guard.max_norm_ratio * max(norm, 1.0))
        size = sum(array.size for name, array in base.items() if name in (self.trained or base))
        noise = self.noise_multiplier * self.norm * math.sqrt(size)
        if self.norm + noise > limit:
            raise OptionsError(
                f"the noise of a device adds about {noise:.3g} to the weights (L2), and the guard allows {limit:.3g}",
                advice="Raise [guard] max-norm-ratio or max-norm, or lower noise-multiplier or clipping-norm.",
            )

    def _event(self) -> Any:
        return self.budget.event(self._chosen.sample, self._chosen.connected)

    def _release(self) -> None:
        event = self._event()
        self._charge(to_json(event))
        self.budget.spent[event] += 1
