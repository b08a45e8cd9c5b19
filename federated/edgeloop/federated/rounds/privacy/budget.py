"""Privacy that a run has spent: epsilon of all its releases together, by Flower's accountant.

Flower's `RdpAccountant` wraps Google's dp-accounting: Renyi differential privacy, composed over releases.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

from flwr.serverapp import GaussianPrivacyEvent, NeighboringRelation, PrivacyConfig, SamplingMethod

from edgeloop.errors import OptionsError
from edgeloop.extras import need
from edgeloop.federated.rounds.privacy.options import PrivacyOptions, Sampling

RELATIONS = {  # the one that each kind of sampling is accounted by
    Sampling.NO_AMPLIFICATION: NeighboringRelation.ADD_OR_REMOVE_ONE,
    Sampling.WITHOUT_REPLACEMENT: NeighboringRelation.REPLACE_ONE,
}


class PrivacyBudget:
    """What was released so far, and what that cost.

    Args:
        devices: All that may be chosen.
        released: Earlier releases of the run, as `to_json` gave them.
        counts_noise: Standard deviation of the noise on counts that are released beside the updates of a round, in
            their clipping norms; None: there are none.

    Raises:
        MissingExtra: dp-accounting is not installed.
    """

    def __init__(
        self,
        options: PrivacyOptions,
        devices: int,
        released: Iterable[Mapping[str, Any]] = (),
        counts_noise: float | None = None,
    ) -> None:
        need("dp_accounting.rdp", extra="privacy")
        self.options, self.devices, self.counts_noise = options, devices, counts_noise
        self.spent: Counter[GaussianPrivacyEvent] = Counter(GaussianPrivacyEvent(**event) for event in released)
        self._known: dict[frozenset[tuple[GaussianPrivacyEvent, int]], float] = {}

    @property
    def epsilon(self) -> float:
        """Of all releases together, at `delta`."""
        return self._epsilon(self.spent)

    @property
    def releases(self) -> int:
        return sum(self.spent.values())

    def event(self, sample: int, connected: int) -> GaussianPrivacyEvent:
        """A release made of `sample` of `connected` devices.

        Fewer connected devices than the run is for mean a larger share: of the run's devices it is rounded up.
        """
        size = min(self.devices, math.ceil(sample * self.devices / max(connected, sample)))
        noise = self.options.noise_multiplier or 0.0
        if self.counts_noise is not None:
            noise = composed_noise(noise, self.counts_noise)
        return GaussianPrivacyEvent(noise / self.options.sensitivity, size, self.devices)

    def allows(self, event: GaussianPrivacyEvent) -> bool:
        """Whether one more release keeps to max-epsilon."""
        limit = self.options.max_epsilon
        return limit is None or self._epsilon(self.spent + Counter([event])) <= limit

    def check(self, event: GaussianPrivacyEvent) -> None:
        """See that the budget allows one round at least.

        Raises:
            OptionsError: It does not.
        """
        if not self.spent and not self.allows(event):
            raise OptionsError(
                f"[privacy] max-epsilon is {self.options.max_epsilon:g}, and the first round alone spends "
                f"{self._epsilon(Counter([event])):.3g}",
                advice="Raise noise-multiplier or max-epsilon."
                if self.counts_noise is None
                else "Raise noise-multiplier, here or in [statistics], or max-epsilon.",
            )

    def _epsilon(self, releases: Mapping[GaussianPrivacyEvent, int]) -> float:
        """Kept once computed: sampling without replacement takes seconds."""
        key = frozenset(releases.items())
        if key not in self._known:
            self._known[key] = self._accounted(releases) if releases else 0.0
        return self._known[key]

    def _accounted(self, releases: Mapping[GaussianPrivacyEvent, int]) -> float:
        """Each release by the share of its own population: a run that went back may go on with other devices. An
        accountant takes one population, so all are written as shares of one that every population divides."""
        from flwr.serverapp import RdpAccountant

        sampling = self.options.sampling
        population = math.lcm(*(event.population_size for event in releases))
        config = PrivacyConfig(
            target_delta=self.options.delta or 0.0,
            population_size=population,
            neighboring_relation=RELATIONS[sampling],
            sampling_method=SamplingMethod(sampling.value),
        )
        accountant = RdpAccountant(config)
        for event, count in releases.items():
            sample = event.sample_size * (population // event.population_size)
            accountant.compose(replace(event, sample_size=sample, population_size=population), count)
        return accountant.get_epsilon(config.target_delta)


def composed_noise(*noise_multipliers: float) -> float:
    """The noise multiplier of one release that costs what Gaussian releases of the same devices do together.

    Each, in units of its own noise, is moved by 1 / z at most, and so all of them, as one vector, by the root of the
    sum of squares: (z1^-2 + z2^-2)^(-1/2) is Andrew et al. 2021, theorem 1, for the noise of updates and of a count.
    """
    return 1 / math.hypot(*(1 / z for z in noise_multipliers))


def to_json(event: GaussianPrivacyEvent) -> dict[str, Any]:
    return asdict(event)
