"""Flower's strategies by name: how each is made, whether it needs all replies, and what it keeps between rounds.

A new strategy is one line of STRATEGIES.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.errors import OptionsError
from edgeloop.quantities import above_zero, at_least

if TYPE_CHECKING:
    from flwr.serverapp.strategy import FedAvg


class StrategyName(enum.StrEnum):
    """How the server makes new weights of a round's updates."""

    FED_AVG = "fed-avg"  # the mean, weighted by examples: McMahan et al. 2017
    FED_PROX = "fed-prox"  # the mean; devices are pulled back to the server's weights: Li et al. 2018
    SCAFFOLD = (
        "scaffold"  # the mean, unweighted; devices correct their drift by control variates: Karimireddy et al. 2020
    )
    FED_ADAM = "fed-adam"  # Adam on the mean: Reddi et al. 2020
    FED_YOGI = "fed-yogi"  # Yogi on the mean: the same
    KRUM = "krum"  # the update that is nearest to the others: Blanchard et al. 2017
    MULTI_KRUM = "multi-krum"  # the mean of several such: the same
    TRIMMED_MEAN = "trimmed-mean"  # without the extremes of each weight: Yin et al. 2018
    MEDIAN = "median"  # of each weight: the same


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyOptions:
    """Which strategy, and its own numbers; a number of another strategy is refused.

    Attributes:
        name: The strategy.
        proximal_mu: Of fed-prox: how strongly, e.g. 0.01.
        server_learning_rate: Step of fed-adam and fed-yogi on the mean update. None: 0.1 and 0.01, as Flower has it.
        beta_1, beta_2: Decay of their two moments. None: 0.9 and 0.99.
        tau: Added to the root of the second moment. None: 0.001.
        malicious: Of krum and multi-krum: how many devices of a round may be hostile.
        select: Of multi-krum: how many updates are averaged. None: all but the hostile ones.
        trim: Of trimmed-mean: share of the updates that is left out at each end, below 0.5.
    """

    name: StrategyName = StrategyName.FED_AVG
    proximal_mu: float | None = None
    server_learning_rate: float | None = None
    beta_1: float | None = None
    beta_2: float | None = None
    tau: float | None = None
    malicious: int | None = None
    select: int | None = None
    trim: float | None = None

    def __post_init__(self) -> None:
        given = {field for field in self.__slots__ if field != "name" and getattr(self, field) is not None}
        foreign = sorted(given - set(OWN.get(self.name, ())))
        if foreign:
            own = ", ".join(key.replace("_", "-") for key in OWN.get(self.name, ())) or "no key"
            raise OptionsError(
                f"[strategy] {foreign[0].replace('_', '-')} is not a key of {self.name.value}",
                advice=f"{self.name.value} takes {own}.",
            )
        if self.name is StrategyName.FED_PROX and self.proximal_mu is None:
            raise OptionsError(
                "[strategy] fed-prox lacks proximal-mu", advice="Try 0.001, 0.01, 0.1 and 1; fed-avg is as 0."
            )
        for field in given & {"proximal_mu", "server_learning_rate", "tau"}:
            above_zero(getattr(self, field), f"[strategy] {field.replace('_', '-')}")
        for field in given & {"beta_1", "beta_2", "trim"}:
            most = 0.5 if field == "trim" else 1.0
            if not 0 <= getattr(self, field) < most:
                raise OptionsError(
                    f"[strategy] {field.replace('_', '-')} is {getattr(self, field):g}",
                    advice=f"It must be 0 or more, and below {most:g}.",
                )
        for field, least in {"malicious": 0, "select": 1}.items():
            if field in given:
                at_least(getattr(self, field), least, f"[strategy] {field}")

    @property
    def corrects_steps(self) -> bool:
        """Devices correct each of their steps, which has to be one of plain SGD."""
        return self.name in {StrategyName.FED_PROX, StrategyName.SCAFFOLD}

    def check_rate(self, lr: float, lr_decay: float = 1.0, rounds: int = 1) -> None:
        """See that the devices' learning rates go with the strategy: `lr` in round 1, times `lr_decay` after each.

        Raises:
            OptionsError: A step would throw the weights beyond those that it pulls them to.
        """
        with np.errstate(over="ignore"):  # an infinite rate is above any bound
            largest = float(lr * max(1.0, np.float64(lr_decay) ** (rounds - 1)))
        if self.proximal_mu is not None and largest * self.proximal_mu > 1:
            where = f" in round {rounds}" if largest > lr else ""
            raise OptionsError(
                f"learning-rate {largest:g}{where} times proximal-mu {self.proximal_mu:g} is above 1",
                advice="Lower one of them: such steps move away from the server's weights.",
            )


_ADAPTIVE = ("server_learning_rate", "beta_1", "beta_2", "tau")
OWN = {
    StrategyName.FED_PROX: ("proximal_mu",),
    StrategyName.FED_ADAM: _ADAPTIVE,
    StrategyName.FED_YOGI: _ADAPTIVE,
    StrategyName.KRUM: ("malicious",),
    StrategyName.MULTI_KRUM: ("malicious", "select"),
    StrategyName.TRIMMED_MEAN: ("trim",),
}
FLOWER = {
    "server_learning_rate": "eta",
    "malicious": "num_malicious_nodes",
    "select": "num_nodes_to_select",
    "trim": "beta",
}


@dataclass(frozen=True)
class StrategyKind:
    """How Flower makes it.

    Attributes:
        make: From the options and the number of updates that a round needs.
        streams: The strategy starts from the weighted mean, so updates need not be kept.
        moments: Names of its attributes that live between rounds: {weight: array}, or None before the first round.
    """

    make: Callable[[StrategyOptions, int], FedAvg]
    streams: bool = True
    moments: tuple[str, ...] = ()


def make_strategy(options: StrategyOptions, replies: int) -> FedAvg:
    """Flower's strategy. It takes every node that its Grid shows, and evaluates on no device."""
    return STRATEGIES[options.name].make(options, replies)


def moments_of(strategy: Any, options: StrategyOptions) -> dict[str, np.ndarray]:
    """What the strategy keeps between rounds, as MOMENT/WEIGHT."""
    found = {}
    for moment in STRATEGIES[options.name].moments:
        for name, array in (getattr(strategy, moment) or {}).items():
            found[f"{moment}/{name}"] = np.asarray(array)
    return found


def restore_moments(strategy: Any, options: StrategyOptions, arrays: dict[str, np.ndarray]) -> None:
    """Give a new strategy what `moments_of` took from an earlier one."""
    for moment in STRATEGIES[options.name].moments:
        prefix = f"{moment}/"
        kept = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        setattr(strategy, moment, kept or None)


def _flower(kind: str) -> Callable[[StrategyOptions, int], Any]:
    def make(options: StrategyOptions, replies: int) -> Any:
        import flwr.serverapp.strategy as flower

        own = {key: getattr(options, key) for key in OWN.get(options.name, ())}
        if options.name is StrategyName.MULTI_KRUM and options.select is None:
            own["select"] = max(1, replies - (options.malicious or 0))
        given = {FLOWER.get(key, key): value for key, value in own.items() if value is not None}
        nodes = {"min_train_nodes": 1, "min_available_nodes": 1, "fraction_evaluate": 0.0}
        return getattr(flower, kind)(**nodes, **given)

    return make


STRATEGIES = {
    StrategyName.FED_AVG: StrategyKind(_flower("FedAvg")),
    StrategyName.FED_PROX: StrategyKind(_flower("FedProx")),
    StrategyName.SCAFFOLD: StrategyKind(_flower("FedAvg")),  # of equal weights: scaffold.py
    StrategyName.FED_ADAM: StrategyKind(_flower("FedAdam"), moments=("m_t", "v_t")),
    StrategyName.FED_YOGI: StrategyKind(_flower("FedYogi"), moments=("m_t", "v_t")),
    StrategyName.KRUM: StrategyKind(_flower("Krum"), streams=False),
    StrategyName.MULTI_KRUM: StrategyKind(_flower("MultiKrum"), streams=False),
    StrategyName.TRIMMED_MEAN: StrategyKind(_flower("FedTrimmedAvg"), streams=False),
    StrategyName.MEDIAN: StrategyKind(_flower("FedMedian"), streams=False),
}
