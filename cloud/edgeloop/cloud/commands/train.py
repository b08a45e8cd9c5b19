"""The verb `train`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edgeloop.cloud.commands.changes import Changes
from edgeloop.cloud.train.cluster.cluster import Role, read_cluster
from edgeloop.cloud.train.cluster.evaluator import EvaluationRecord, evaluate_checkpoints
from edgeloop.cloud.train.cluster.task import launch_run
from edgeloop.cloud.train.config.read_config import read_config
from edgeloop.cloud.train.config.starter import write_starter
from edgeloop.cloud.train.run.beat import no_beat
from edgeloop.cloud.train.run.epoch_record import EpochRecord
from edgeloop.cloud.train.run.run_result import RunResult
from edgeloop.cloud.train.trainer import train_run
from edgeloop.errors import OptionsError
from edgeloop.quantities import above_zero
from edgeloop.result import CommandResult, Table


def train(
    ctx: typer.Context,
    training: Annotated[Path, typer.Argument(metavar="FILE", help="Train what this TOML file describes.")] = Path(
        "train.toml"
    ),
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", metavar="DIR", show_default="none", help="Write the run into this folder, which must be new."
        ),
    ] = None,
    changes: Changes = None,
    max_time_s: Annotated[
        float | None,
        typer.Option(metavar="S", show_default="no limit", help="End before an epoch that would go beyond S seconds."),
    ] = None,
    max_cost: Annotated[
        float | None,
        typer.Option(
            metavar="COST",
            show_default="no limit",
            help="End before an epoch that would cost more than this by the prices in [budget.prices].",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Read the last checkpoint of an interrupted run, and go on.")
    ] = False,
    init: Annotated[
        Path | None,
        typer.Option(
            "--init",
            metavar="DATA",
            show_default="none",
            help="Write FILE anew, with comments, for this data (a folder or file), and train nothing.",
        ),
    ] = None,
    launch: Annotated[
        str | None,
        typer.Option(
            "--launch",
            metavar="TASKS",
            show_default="none",
            help="Run a cluster on this machine: a number of workers, or e.g. ps=2,worker=2 or worker=2,evaluator=1.",
        ),
    ] = None,
) -> CommandResult:
    """Train a model in the cloud: on one device, several, or several hosts, as a TOML file says."""
    limits = []
    for key, value in (("max-time-s", max_time_s), ("max-cost", max_cost)):
        if value is not None:
            above_zero(value, f"--{key}")
            limits.append(f"budget.{key}={value}")
    console = ctx.obj
    if init is not None:
        found = write_starter(init, training)
        return CommandResult({"file": str(training), "found": found}, notes=[found, f"Now: {_next(training)}"])
    if out is None:
        raise OptionsError("edgeloop train lacks -o DIR", advice=f"Write {_next(training)}")
    config = read_config(training, [*(changes or ()), *limits])
    cluster = read_cluster() if launch is None else None
    if cluster is not None and cluster.role == Role.EVALUATOR:
        return _evaluations(evaluate_checkpoints(config, out, console.say, no_beat))
    if launch is None:
        result = train_run(config, out, resume=resume, progress=console, say=console.say)
    else:
        result = launch_run(config, out, launch, resume=resume, progress=console, say=console.say)
    return CommandResult(
        result.to_json(), [_table(result)], [*result.notes, result.stopped, _bound(result), _best(result)]
    )


def _evaluations(records: Sequence[EvaluationRecord]) -> CommandResult:
    """What the evaluator of a cluster, one of the tasks of TF_CONFIG, came to."""
    rows = [(str(one.step), f"{one.loss:.4f}", f"{one.score:.4g}", one.metric.replace("_", " ")) for one in records]
    table = Table("evaluations", ("step", "validation loss", "score", "metric"), rows)
    return CommandResult({"evaluations": [asdict(one) for one in records]}, [table])


def _next(training: Path) -> str:
    return f"edgeloop train {training} -o run/"


def _best(result: RunResult) -> str:
    return f"The model of epoch {result.best_epoch} is in {result.model}."


def _bound(result: RunResult) -> str:
    last = result.epochs[-1]
    advice = " See what helps: edgeloop doctor." if last.bound == "input" else ""
    return f"Steps waited {last.waited_share:.0%} of the time for input: the training is bound by {last.bound}.{advice}"


def _table(result: RunResult) -> Table:
    metric = result.metric.replace("_", " ")
    columns = ("epoch", "loss", "validation loss", metric, "examples/s", "waiting for input", "s")
    return Table("epochs", columns, [_row(record, result.metric) for record in result.epochs])


def _row(record: EpochRecord, metric: str) -> tuple[str, ...]:
    score = f"{record.score:.1%}" if metric == "accuracy" else f"{record.score:.4g}"
    return (
        str(record.epoch),
        f"{record.loss:.4f}",
        f"{record.validation_loss:.4f}",
        score,
        f"{record.examples_per_s:,.0f}",
        f"{record.waited_share:.0%}",
        f"{record.seconds:.1f}",
    )
