"""The verbs `tune search`, `tune ablate` and `tune forecast`."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from edgeloop.cloud.commands.changes import Changes
from edgeloop.cloud.input.readers import open_examples
from edgeloop.cloud.train.config.read_config import read_config
from edgeloop.cloud.train.config.train_config import TrainConfig, with_own_place
from edgeloop.cloud.train.config.write_config import to_toml
from edgeloop.cloud.train.data.data_config import plain_options
from edgeloop.cloud.train.run.run_folder import check_same, holds_run
from edgeloop.cloud.train.run.run_result import RunResult
from edgeloop.cloud.train.study.ablation import ablate as ablate_features
from edgeloop.cloud.train.study.forecast import ForecastOptions, forecast_data
from edgeloop.cloud.train.study.search import Method, SearchOptions, Trial
from edgeloop.cloud.train.study.search import changes as setting_texts
from edgeloop.cloud.train.study.search import search as search_space
from edgeloop.cloud.train.study.space import read_space
from edgeloop.cloud.train.trainer import train_run
from edgeloop.result import CommandResult, Table

Training = Annotated[Path, typer.Argument(metavar="FILE", help="Train what this TOML file describes, in variations.")]
Out = Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Write the trainings into this folder.")]


def search(
    ctx: typer.Context,
    training: Training,
    space: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help='Read the values to try from this TOML file, e.g. "pipeline.batch" = [16, 32].'
        ),
    ],
    out: Out,
    trials: Annotated[int, typer.Option(metavar="N", help="Train at most N times.")] = 10,
    method: Annotated[
        Method, typer.Option(metavar="NAME", help="Find the next trial by this method.")
    ] = Method.BAYESIAN,
    changes: Changes = None,
) -> CommandResult:
    """Search hyperparameters with KerasTuner; a search that was interrupted goes on in the same folder."""
    options = SearchOptions(trials=trials, method=method)
    config = read_config(training, changes or ())
    found = search_space(
        lambda more: read_config(training, [*(changes or ()), *more]),
        _trainer(ctx),
        read_space(space),
        out,
        options,
        config.loop.seed,
    )
    names = sorted({key for trial in found for key in trial.changes})
    rows = [
        (trial.number, *(_text(trial.changes.get(key)) for key in names), _loss(trial), str(trial.run))
        for trial in found
    ]
    best = found[0]
    document = {
        "trials": [
            {"number": t.number, "changes": t.changes, "validation_loss": t.loss, "error": t.error, "run": str(t.run)}
            for t in found
        ]
    }
    again = " ".join(f"--set {shlex.quote(change)}" for change in [*(changes or ()), *setting_texts(best.changes)])
    return CommandResult(
        document,
        [Table("trials, the best first", ("trial", *names, "validation loss", "run"), rows)],
        [f"Train with the best values: edgeloop train {shlex.quote(str(training))} -o DIR {again}"],
    )


def ablate(
    ctx: typer.Context,
    training: Training,
    out: Out,
    changes: Changes = None,
) -> CommandResult:
    """Measure how much each feature is worth: train once with all features, and once without each."""
    config = read_config(training, changes or ())
    features = config.data.features or tuple(open_examples(plain_options(config.data)).features)
    metric, rows = ablate_features(config, features, _trainer(ctx), out)
    document = {"metric": metric, "rows": [{"without": r.feature, "loss": r.loss, "score": r.score} for r in rows]}
    table = [(r.feature or "none", f"{r.loss:.4f}", f"{r.loss - rows[0].loss:+.4f}", f"{r.score:.4g}") for r in rows]
    columns = ("left out", "validation loss", "change", metric.replace("_", " "))
    return CommandResult(document, [Table("features, the most valuable first", columns, table)])


def forecast(
    ctx: typer.Context,
    training: Training,
    out: Out,
    factor: Annotated[
        list[float] | None,
        typer.Option(metavar="TIMES", show_default="2, 4", help="Show the error to expect with TIMES as much data."),
    ] = None,
    changes: Changes = None,
) -> CommandResult:
    """Forecast what more data would buy: train on parts of the data, and extend the curve of the errors."""
    options = ForecastOptions(factors=tuple(factor)) if factor else ForecastOptions()
    found = forecast_data(read_config(training, changes or ()), _trainer(ctx), out, options)
    measured = [(f"{n:,}", f"{error:.2%}", "measured") for n, error in zip(found.sizes, found.errors, strict=True)]
    expected = [(f"{f.size:,}", f"{f.error:.2%}", f"{f.low:.2%} to {f.high:.2%}") for f in found.expected]
    table = Table("error by examples trained on", ("examples", "error", "95% interval"), [*measured, *expected])
    judged = f"Errors are measured on {found.judged_on:,} examples held out."
    limits = "An interval holds what that number of examples leaves open, not whether the curve goes on as it began."
    return CommandResult(found.to_json(), [table], [f"{judged} {limits}"])


def _trainer(ctx: typer.Context) -> Callable[[TrainConfig, Path], RunResult]:
    """Trains into a folder; what an interrupted command began there goes on."""

    def train(config: TrainConfig, out: Path) -> RunResult:
        own = with_own_place(config, out.name)
        begun = holds_run(out)
        if begun:
            check_same(out, to_toml(own))
        return train_run(own, out, resume=begun, progress=ctx.obj, say=ctx.obj.say)

    return train


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _loss(trial: Trial) -> str:
    return trial.error if trial.loss is None else f"{trial.loss:.4f}"
