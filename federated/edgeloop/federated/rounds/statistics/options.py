"""What devices are asked to tell of their data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from edgeloop.errors import OptionsError
from edgeloop.federated.device.statistics import LABEL_MOMENTS, STATISTICS, Tell
from edgeloop.quantities import above_zero


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticsOptions:
    """`[statistics]`. A device may refuse all of it.

    Attributes:
        tell: Of a classifier, by class. None: `evaluation`; with [privacy] and without `noise_multiplier` `none`.
        label_moments: Of a model that predicts numbers: mean and variance of the labels of each device.
        noise_multiplier: Of private rounds: standard deviation of the noise on the sums of a round, in clipping norms.
        clipping_norm: Of private rounds: L2 norm that all counts of a device together are scaled down to.
    """

    tell: Tell | None = None
    label_moments: bool = False
    noise_multiplier: float | None = None
    clipping_norm: float | None = None

    def __post_init__(self) -> None:
        given = {"noise-multiplier": self.noise_multiplier, "clipping-norm": self.clipping_norm}
        missing = [key for key, value in given.items() if value is None]
        if len(missing) == len(given):
            return
        if missing:
            raise OptionsError(f"[statistics] lacks {missing[0]}", advice="Noise on counts needs both keys: add it.")
        for key, value in given.items():
            above_zero(value or 0.0, f"[statistics] {key}")
        if self.tell is Tell.NONE:
            raise OptionsError(
                "[statistics] noise-multiplier is given, and tell = none asks for no counts",
                advice="Set tell to examples or evaluation, or leave noise-multiplier and clipping-norm out.",
            )
        if self.label_moments:
            raise OptionsError(
                "[statistics] noise-multiplier is given, and label-moments asks for exact means and variances",
                advice="Leave label-moments out: only counts by class get noise.",
            )

    @property
    def noisy(self) -> bool:
        """Only sums with noise are kept."""
        return self.noise_multiplier is not None

    @property
    def noise_stddev(self) -> float:
        """Standard deviation of the noise on each sum; 0 without noise."""
        return (self.noise_multiplier or 0.0) * (self.clipping_norm or 0.0)

    def resolved(self, private: bool) -> StatisticsOptions:
        """With `tell` chosen; `private`: the run has a [privacy] mode."""
        usual = Tell.NONE if private and not self.noisy else Tell.EVALUATION
        return replace(self, tell=self.tell or usual)

    @property
    def asks(self) -> bool:
        """Whether the file asks devices for anything."""
        return self.tell not in (None, Tell.NONE) or self.label_moments or self.noisy

    def for_devices(self) -> dict[str, Any]:
        """Keys of a train message."""
        told = {STATISTICS: self.tell.value} if self.tell not in (None, Tell.NONE) else {}
        return {**told, **({LABEL_MOMENTS: True} if self.label_moments else {})}
