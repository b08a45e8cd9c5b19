"""How much each feature is worth: the same training without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edgeloop.cloud.train.config.train_config import TrainConfig
from edgeloop.cloud.train.run.run_result import RunResult
from edgeloop.errors import OptionsError


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """A training without one feature; `feature` is empty for the one with all. `loss` is the validation loss."""

    feature: str
    loss: float
    score: float


def ablate(
    config: TrainConfig, features: tuple[str, ...], train: Callable[[TrainConfig, Path], RunResult], out: Path
) -> tuple[str, tuple[Ablation, ...]]:
    """The metric's name; then the training with all features, and one without each, the most valuable feature first.

    Args:
        features: All that the model takes; the model must be one that is built for the features there are.

    Raises:
        OptionsError: Fewer than two features.
    """
    if len(features) < 2:
        raise OptionsError(
            f"the data has the feature {', '.join(features)} alone",
            advice='Ablation leaves one of several out. Of a table, name the columns: --set data.features=["a","b"].',
        )
    whole = train(replace(config, data=replace(config.data, features=features)), out / "all")
    rows = []
    for left_out in features:
        rest = tuple(name for name in features if name != left_out)
        run = train(replace(config, data=replace(config.data, features=rest)), out / f"without-{left_out}")
        rows.append(Ablation(feature=left_out, loss=run.best.validation_loss, score=run.best.score))
    rows.sort(key=lambda row: -row.loss)
    return whole.metric, (Ablation(feature="", loss=whole.best.validation_loss, score=whole.best.score), *rows)
