"""The table `[cloud]` of federation.toml: which rounds become releases, and what a release must be worth."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from edgeloop.convert.options import ConvertOptions
from edgeloop.errors import OptionsError
from edgeloop.hashes import digest
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

    def resolved(self) -> dict[str, Any]:
        """JSON values of what decides about a release; files by the hash of their content."""
        own = {key: _json(getattr(self.convert, key)) for key in _changed(self.convert)}
        names = ("every", "launch", "distill", "max_drop", "train", "eval")
        found = {name.replace("_", "-"): _json(getattr(self, name)) for name in names}
        return {**{name: value for name, value in found.items() if value is not None}, "convert": own}


def _changed(options: ConvertOptions) -> list[str]:
    return [one.name for one in fields(options) if getattr(options, one.name) != getattr(DEFAULTS, one.name)]


def _json(value: Any) -> Any:
    if isinstance(value, Path):
        return digest(value) if value.is_file() else value.name
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: _json(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, (tuple, frozenset)):
        return [_json(part) for part in (sorted(value) if isinstance(value, frozenset) else value)]
    return value.value if isinstance(value, enum.Enum) else value
