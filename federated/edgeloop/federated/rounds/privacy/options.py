"""How updates are made private: clipping, noise, and how much privacy a run may spend."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from edgeloop.errors import OptionsError
from edgeloop.quantities import above_zero


class PrivacyMode(enum.StrEnum):
    """Where an update is clipped, and where noise is added."""

    NONE = "none"
    CENTRAL_FIXED = "central-fixed"  # the server clips each update and adds noise to their mean: McMahan et al. 2018
    CENTRAL_ADAPTIVE = "central-adaptive"  # the same, with a norm that follows a quantile: Andrew et al. 2021
    LOCAL = "local"  # each device clips its update and adds noise before it leaves the device


class Sampling(enum.StrEnum):
    """What is assumed of the choice of devices; the words are Flower's."""

    NO_AMPLIFICATION = "no-amplification"  # nothing: the choice may depend on anything
    WITHOUT_REPLACEMENT = "without-replacement"  # so many of those connected, uniformly, secretly; all of them count


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyOptions:
    """`[privacy]`. The unit that is protected is a device: everything it contributes to a round.

    Attributes:
        mode: Where an update is clipped and noise added.
        noise_multiplier: Standard deviation of the noise, in clipping norms: on the sum of a round's updates in the
            central modes, on each update in local mode.
        clipping_norm: L2 norm that an update is scaled down to; in central-adaptive mode that of round 1.
        delta: Probability that the bound of epsilon does not hold. Well below 1 / number of devices.
        max_epsilon: The run ends before the round that would spend more. None: it is only told.
        sampling: What is assumed of the choice of devices.
        target_quantile: Of central-adaptive: share of the updates that are to stay unclipped. None: 0.5.
        clipping_learning_rate: Of central-adaptive: how fast the norm follows that quantile. None: 0.2.
        clip_count_stddev: Of central-adaptive: noise on the number of unclipped updates. None: a twentieth of the
            wanted updates.
    """

    mode: PrivacyMode = PrivacyMode.NONE
    noise_multiplier: float | None = None
    clipping_norm: float | None = None
    delta: float | None = None
    max_epsilon: float | None = None
    sampling: Sampling = Sampling.NO_AMPLIFICATION
    target_quantile: float | None = None
    clipping_learning_rate: float | None = None
    clip_count_stddev: float | None = None

    def __post_init__(self) -> None:
        given = [key for key in self.__slots__ if key != "mode" and getattr(self, key) not in (None, Sampling(UNSAID))]
        foreign = [key for key in given if key not in OWN[self.mode]]
        if foreign:
            own = ", ".join(map(_toml, OWN[self.mode])) or "no other key"
            raise OptionsError(
                f"[privacy] {_toml(foreign[0])} is not a key of mode {self.mode.value}",
                advice=f"{self.mode.value} takes {own}.",
            )
        missing = [key for key in REQUIRED if key not in given and self.mode is not PrivacyMode.NONE]
        if missing:
            raise OptionsError(f"[privacy] lacks {', '.join(map(_toml, missing))}", advice="Add it.")
        for key in {*given} & {*REQUIRED, "max_epsilon", "clipping_learning_rate", "clip_count_stddev"}:
            above_zero(getattr(self, key), f"[privacy] {_toml(key)}")
        for key in {*given} & {"delta", "target_quantile"}:
            if not 0 < getattr(self, key) < 1:
                raise OptionsError(
                    f"[privacy] {_toml(key)} is {getattr(self, key):g}", advice="It must be above 0, and below 1."
                )

    @property
    def central(self) -> bool:
        return self.mode in (PrivacyMode.CENTRAL_FIXED, PrivacyMode.CENTRAL_ADAPTIVE)

    @property
    def sensitivity(self) -> float:
        """How far one device moves what the noise is added to, in clipping norms.

        1 where a device's update is there or is not; 2 where it is replaced by another: what sampling without
        replacement compares, and what local privacy means.
        """
        return 1.0 if self.central and self.sampling is Sampling.NO_AMPLIFICATION else 2.0


UNSAID = Sampling.NO_AMPLIFICATION.value
REQUIRED = ("noise_multiplier", "clipping_norm", "delta")
_CENTRAL = (*REQUIRED, "max_epsilon", "sampling")
OWN = {
    PrivacyMode.NONE: (),
    PrivacyMode.CENTRAL_FIXED: _CENTRAL,
    PrivacyMode.CENTRAL_ADAPTIVE: (*_CENTRAL, "target_quantile", "clipping_learning_rate", "clip_count_stddev"),
    PrivacyMode.LOCAL: (*REQUIRED, "max_epsilon"),
}


def update_noise(options: PrivacyOptions, wanted: int) -> tuple[float, float]:
    """(noise multiplier of the updates, standard deviation of the noise on the count of unclipped updates).

    Adaptive clipping releases that count too. Both together cost what one release with `noise_multiplier` does, for
    the updates get the multiplier (z^-2 - (2 sigma_b)^-2)^(-1/2): Andrew et al. 2021, theorem 1.

    Args:
        wanted: Updates of a round.

    Raises:
        OptionsError: The noise on the count is too small for that.
    """
    z = options.noise_multiplier or 0.0
    if options.mode is not PrivacyMode.CENTRAL_ADAPTIVE:
        return z, 0.0
    stddev = options.clip_count_stddev or wanted / 20
    if z >= 2 * stddev:
        raise OptionsError(
            f"[privacy] noise-multiplier is {z:g}, and the count of unclipped updates has noise of {stddev:g}",
            advice=f"Set clip-count-stddev above {z / 2:g}, or a smaller noise-multiplier.",
        )
    return 1 / math.sqrt(z**-2 - (2 * stddev) ** -2), stddev


def _toml(key: str) -> str:
    return key.replace("_", "-")
