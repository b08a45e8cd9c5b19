"""The verb `doctor`."""

from __future__ import annotations

import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeloop.atomic import write_file
from edgeloop.cloud.commands.changes import Changes
from edgeloop.cloud.input.doctor.diagnose import Diagnosis, diagnose, run_seconds
from edgeloop.cloud.input.doctor.measure import Subject, accelerated
from edgeloop.cloud.input.options import Cache, PipelineOptions
from edgeloop.cloud.train.config.read_config import read_config
from edgeloop.cloud.train.config.train_config import TrainConfig
from edgeloop.cloud.train.config.write_config import to_toml
from edgeloop.cloud.train.prepare import Prepared, prepare
from edgeloop.cloud.train.step.loop import distributed, never, untold
from edgeloop.cloud.train.strategies.strategies import CLUSTERED
from edgeloop.errors import ModelError, OptionsError
from edgeloop.quantities import above_zero
from edgeloop.result import CommandResult, Table


def doctor(
    ctx: typer.Context,
    training: Annotated[Path, typer.Argument(metavar="FILE", help="Measure the training that this TOML file says.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="Write the TOML with the changes that help into this file."),
    ] = None,
    changes: Changes = None,
    timeout_s: Annotated[float, typer.Option(metavar="S", help="Stop trying remedies after S seconds.")] = 60.0,
) -> CommandResult:
    """Measure what a training waits for, and find the settings of its input that make it faster on this machine."""
    above_zero(timeout_s, "--timeout-s")
    config = read_config(training, changes or ())
    found, prepared = examine(config, timeout_s, ctx.obj)
    chosen = to_toml(replace(config, pipeline=found.options))
    if out is not None:
        write_file(out, chosen.encode())
    document = {**to_json(found, config.pipeline), "toml": chosen, "strategy": prepared.choice.strategy.value}
    notes = [f"Bound by {found.verdict.bound.value}: {found.verdict.reason}", *_summary(found, config.pipeline)]
    return CommandResult(document, [_figures(found), _trials(found)], notes)


def examine(config: TrainConfig, timeout_s: float, progress: Any) -> tuple[Diagnosis, Prepared]:
    """The diagnosis of a training with its own step; caches are filled by the doctor, so that it can do without.

    Raises:
        OptionsError: The strategy is of several processes.
        ModelError: The loss is not finite after some steps.
    """
    if config.strategy.name in CLUSTERED:
        raise OptionsError(
            f"edgeloop doctor measures one process, and the strategy {config.strategy.name.value} needs several",
            advice="Measure the input and the step of one worker: add --set strategy.name=one-device.",
        )
    plain = replace(config, pipeline=replace(config.pipeline, cache=Cache.NONE, cache_folder=None))
    prepared = prepare(plain)
    began = time.monotonic()
    subject = subject_of(prepared, run_seconds(timeout_s))
    whole = replace(config.pipeline, batch=prepared.batch)
    found = diagnose(subject, whole, deadline_s=began + timeout_s, progress=progress)
    return replace(found, options=replace(found.options, batch=config.pipeline.batch)), prepared


def subject_of(prepared: Prepared, seconds: float) -> Subject:
    """The training's own step, to be measured in runs of about so many seconds; its weights change."""

    def take_steps(iterator: Any, count: int) -> None:
        taken = prepared.engine.run(iterator, count, 1, untold, never)
        if len(taken.losses) < count:
            raise ModelError("the loss is not finite after some steps", advice="Lower [optimizer] learning-rate.")

    return Subject(
        examples=prepared.training,
        take_steps=take_steps,
        seconds=seconds,
        accelerator=accelerated(),
        place=lambda dataset: distributed(prepared.strategy, dataset),
    )


def difference(before: PipelineOptions, after: PipelineOptions) -> dict[str, Any]:
    """The fields of `after` that differ, by their names in TOML."""
    pairs = ((f.name, getattr(before, f.name), getattr(after, f.name)) for f in fields(PipelineOptions))
    return {name.replace("_", "-"): new for name, old, new in pairs if old != new}


def to_json(found: Diagnosis, given: PipelineOptions) -> dict[str, Any]:
    """What `--json` prints, without the TOML."""
    return {
        "bound": found.verdict.bound.value,
        "reason": found.verdict.reason,
        "figures": found.before.to_json(),
        "trials": [trial.to_json() for trial in found.trials],
        "changes": difference(given, found.options),
        "gain": None if found.gain is None else found.gain.to_json(),
    }


def _summary(found: Diagnosis, given: PipelineOptions) -> list[str]:
    changes = difference(given, found.options)
    if not changes:
        tried = "" if found.gain is None else f" What helped by itself came to {found.gain} together."
        return [f"Keep [pipeline] as it is: nothing tried is faster beyond its spread.{tried}"]
    lines = ", ".join(f"{name} = {_toml(value)}" for name, value in changes.items())
    return [
        f"Change [pipeline]: {lines}",
        f"Together: {found.gain} the examples/s of now (median of pairs [quartiles]).",
    ]


def _toml(value: Any) -> str:
    if value is None:
        return "left out (AUTOTUNE)"
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)


def _figures(found: Diagnosis) -> Table:
    figures = found.before
    rows = [
        (name, f"{seconds * 1e3:.2f}", f"{figures.batch / seconds:,.0f}", cores)
        for name, seconds, cores in (
            ("input alone", figures.input_s, f"{figures.input_cpu_share:.0%}"),
            ("step on one batch", figures.step_s, ""),
            ("both", figures.both_s, f"{figures.cpu_share:.0%}"),
        )
    ]
    return Table(f"batches of {figures.batch} now", ("measured", "ms/batch", "examples/s", "cores busy"), rows)


def _trials(found: Diagnosis) -> Table:
    rows = [
        (
            trial.remedy,
            ", ".join(f"{name.replace('_', '-')} = {_toml(value)}" for name, value in trial.change.items()) or "-",
            "-" if trial.gain is None else str(trial.gain),
            "kept" if trial.kept else "not kept",
            trial.why,
        )
        for trial in found.trials
    ]
    return Table("remedies, each in turns with what was kept before", ("remedy", "change", "gain", "", "why"), rows)
