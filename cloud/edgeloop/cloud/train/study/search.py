"""Hyperparameters by KerasTuner: each trial is a training with some keys of train.toml set to other values."""

from __future__ import annotations

import contextlib
import enum
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeloop.cloud.train.config.train_config import TrainConfig
from edgeloop.cloud.train.run.run_result import RunResult
from edgeloop.cloud.train.study.space import Between, Space, Value
from edgeloop.errors import DataError, ModelError, OptionsError, TargetError, one_line
from edgeloop.extras import need
from edgeloop.quantities import at_least

RUNS, OBJECTIVE = "trials", "validation_loss"
SETTINGS_TO_BLAME = (OptionsError, DataError, ModelError, TargetError)
CHANGE = "Change the values to try in the file of --space."


class Method(enum.StrEnum):
    """Which of KerasTuner's oracles proposes the next trial."""

    RANDOM = "random"
    BAYESIAN = "bayesian"  # KerasTuner's grid search does not go on after an interruption (1.4.8: KeyError)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """How long, and by which method.

    Attributes:
        trials: Trainings at most; fewer where the space has fewer points.
    """

    trials: int = 10
    method: Method = Method.BAYESIAN

    def __post_init__(self) -> None:
        at_least(self.trials, 1, "--trials")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One training of a search.

    Attributes:
        changes: Keys of train.toml and what they were set to.
        loss: The lowest validation loss; None: the training failed.
        error: Why it failed.
    """

    number: str
    changes: dict[str, Value]
    loss: float | None
    error: str
    run: Path


def search(
    configure: Callable[[list[str]], TrainConfig],
    train: Callable[[TrainConfig, Path], RunResult],
    space: Space,
    out: Path,
    options: SearchOptions = SearchOptions(),
    seed: int = 0,
) -> tuple[Trial, ...]:
    """The trials, the best first. A search that was interrupted goes on in the same `out`.

    Args:
        configure: `TABLE.KEY=VALUE` texts to a training.
        train: Runs a training into a folder, or goes on with the one that was interrupted there.

    Raises:
        OptionsError: A key or value that no training takes, or every trial failed.
        Exception: What a training raised, unless its settings are to blame, which is the answer of that trial.
        MissingExtra: KerasTuner is not installed.
    """
    configure(changes({key: first_value(values) for key, values in space.items()}))  # an unknown key ends here
    errors: dict[str, str] = {}
    tuner = _tuner(space, out, options, seed)

    def run_trial(trial: Any, **_: Any) -> dict[str, float]:
        try:
            run = train(configure(changes(trial.hyperparameters.values)), out / RUNS / trial.trial_id)
        except SETTINGS_TO_BLAME as e:  # an answer, not the end of the search
            errors[trial.trial_id] = one_line(e)
            raise
        except Exception as e:  # KerasTuner takes every other class for a failed trial
            raise fatal() from e
        return {OBJECTIVE: run.best.validation_loss}

    tuner.run_trial = run_trial
    fatal = need("keras_tuner", extra="cloud").errors.FatalError
    try:
        tuner.search(verbose=0)
    except RuntimeError as e:  # KerasTuner ends after three failures in a row
        reason = next(reversed(errors.values()), one_line(e))
        raise OptionsError(f"three trials in a row failed; the last one: {reason}", advice=CHANGE) from e
    except fatal as e:
        assert e.__cause__ is not None
        raise e.__cause__ from None
    found = [_trial(trial, errors, out) for trial in tuner.oracle.trials.values()]
    ranked = sorted(found, key=lambda trial: (trial.loss is None, trial.loss or 0.0))
    if not ranked or ranked[0].loss is None:
        reason = ranked[0].error if ranked else "there was none"
        raise OptionsError(f"every trial failed; the first one: {reason}", advice=CHANGE)
    return tuple(ranked)


def changes(values: dict[str, Value]) -> list[str]:
    """What `read_config` takes: `TABLE.KEY=VALUE`, in TOML's spelling."""
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def first_value(values: tuple[Value, ...] | Between) -> Value:
    return values.low if isinstance(values, Between) else values[0]


def _tuner(space: Space, out: Path, options: SearchOptions, seed: int) -> Any:
    """KerasTuner's own, which keeps its state in `out` and goes on there."""
    kt = need("keras_tuner", extra="cloud")
    wanted = kt.HyperParameters()
    for key, values in space.items():
        if not isinstance(values, Between):
            wanted.Choice(key, list(values))
        elif isinstance(values.low, int) and isinstance(values.high, int):
            wanted.Int(key, values.low, values.high, sampling=values.scale.value)
        else:
            wanted.Float(key, values.low, values.high, sampling=values.scale.value)
    oracles = {
        Method.RANDOM: kt.oracles.RandomSearchOracle,
        Method.BAYESIAN: kt.oracles.BayesianOptimizationOracle,
    }
    objective = kt.Objective(OBJECTIVE, direction="min")
    oracle = oracles[options.method](objective=objective, max_trials=options.trials, hyperparameters=wanted, seed=seed)
    out.mkdir(parents=True, exist_ok=True)
    with contextlib.redirect_stdout(sys.stderr):  # it prints that it goes on
        tuner = kt.engine.base_tuner.BaseTuner(oracle, directory=str(out), project_name="tuner")
    tuner.oracle.max_trials = options.trials  # going on, it has the number of the search before
    return tuner


def _trial(trial: Any, errors: dict[str, str], out: Path) -> Trial:
    return Trial(
        number=trial.trial_id,
        changes=dict(trial.hyperparameters.values),
        loss=None if trial.score is None else float(trial.score),
        error=errors.get(trial.trial_id, "" if trial.score is not None else "failed in an earlier search"),
        run=out / RUNS / trial.trial_id,
    )
