"""The table `[cloud]` of federation.toml: which rounds become releases, and what a release must be worth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from edgeloop.convert.options import ConvertOptions
from edgeloop.errors import OptionsError
from edgeloop.quantities import above_zero, at_least

DEFAULTS = ConvertOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudOptions:
    """What is made of the weights of a round, beside the rounds, which go on from the same weights whatever it is.

    Attributes:
        eval: .npz of the server with the model's inputs and labels y. The Keras model and every variant answer all of
            it.
        every: The weights of every so many rounds are folded back, and those of the last round.
        train: A train.toml to go on with from these weights, on data of the server. None: they stay as they are.
        launch: A cluster of processes for that training, as `edgeloop train --launch` has it, e.g. `ps=2,worker=2`.
            None: one process.
        distill: So many device models of the round, at most, teach the model on the data of `train`; 0: none. Their
            mean is the teacher: Lin et al. 2020, https://arxiv.org/abs/2006.07242, algorithm 1.
        max_drop: Percentage points of accuracy or AUC that a variant may lose against the Keras model, or per cent by
            which its RMSE may grow.
        sign: The OpenSSH key that releases are signed with. None: they are not, and enrolled devices take none.
        timeout_s: Of the training of one round.
        convert: What `edgeloop convert` is to write; formats, schemes and classes that are not given are the bundle's.
    """

    eval: Path
    every: int = 1
    train: Path | None = None
    launch: str | None = None
    distill: int = 0
    max_drop: float = 1.0
    sign: Path | None = None
    timeout_s: float = 7200.0
    convert: ConvertOptions = DEFAULTS

    def __post_init__(self) -> None:
        at_least(self.every, 1, "[cloud] every")
        at_least(self.distill, 0, "[cloud] distill")
        above_zero(self.timeout_s, "[cloud] timeout-s")
        if not 0 <= self.max_drop < math.inf:
            raise OptionsError(f"[cloud] max-drop is {self.max_drop:g}", advice="It must be 0 or more.")
        for name in ("launch", "distill"):
            if getattr(self, name) and self.train is None:
                raise OptionsError(f"[cloud] {name} needs data to train on", advice='Add train = "train.toml".')
        if self.launch is not None and self.distill:
            raise OptionsError(
                "[cloud] distill trains in one process, and launch starts several", advice="Leave one of them out."
            )
        self._check_convert()

    def _check_convert(self) -> None:
        for name, instead in (
            ("evaluation", "Use [cloud] eval."),
            ("release", "Leave it out: a release has the number after the newest one."),
            ("name", "Leave it out: releases have the name of the bundle."),
        ):
            if getattr(self.convert, name) != getattr(DEFAULTS, name):
                raise OptionsError(f"[cloud.convert] has {name}, which the run sets itself", advice=instead)

    def due(self, number: int, rounds: int) -> bool:
        """Whether the weights of round `number` of `rounds` are folded back."""
        return number % self.every == 0 or number == rounds
