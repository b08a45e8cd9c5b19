"""The verb `distill`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeloop.cloud.commands.changes import Changes
from edgeloop.cloud.train.config.read_config import read_config
from edgeloop.cloud.train.distill.distill import DistillResult, Student, train_students
from edgeloop.cloud.train.distill.options import DistillOptions
from edgeloop.result import CommandResult, Table


def distill(
    ctx: typer.Context,
    teachers: Annotated[
        list[Path], typer.Argument(metavar="TEACHER...", help="Use these models, bundles or run folders as teachers.")
    ],
    student: Annotated[
        Path, typer.Option(metavar="FILE", help="Train the student that this TOML file of edgeloop train describes.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Write the students here; DIR must be new.")],
    changes: Changes = None,
    temperature: Annotated[
        float, typer.Option(metavar="T", help="Divide logits by T before the softmax of teachers and student.")
    ] = 4.0,
    alpha: Annotated[
        float, typer.Option(metavar="WEIGHT", help="Give the teachers this weight and the labels the rest, 0 to 1.")
    ] = 0.7,
    students: Annotated[
        int, typer.Option(metavar="N", help="Train N students from different seeds, and write their mean as a model.")
    ] = 1,
    fine_tune: Annotated[
        int, typer.Option(metavar="EPOCHS", help="Train the student on the labels alone for EPOCHS more epochs.")
    ] = 0,
    iterations: Annotated[
        int, typer.Option(metavar="N", help="Train N times, each time with the last student as the teacher.")
    ] = 1,
    compare: Annotated[
        bool, typer.Option("--compare", help="Train the same student without teachers too, and show both.")
    ] = False,
) -> CommandResult:
    """Train a small model on the answers of larger ones: knowledge distillation."""
    options = DistillOptions(
        teachers=tuple(teachers),
        temperature=temperature,
        alpha=alpha,
        students=students,
        fine_tune=fine_tune,
        iterations=iterations,
        compare=compare,
    )
    console = ctx.obj
    result = train_students(read_config(student, changes or ()), out, options, progress=console, say=console.say)
    return CommandResult(
        result.to_json(), [_table(result)], [f"The best student is {result.model}: edgeloop convert takes it."]
    )


def _table(result: DistillResult) -> Table:
    rows = [_row(student, result.metric) for student in (*result.students, *([result.alone] if result.alone else []))]
    return Table("students, judged on the examples held out", ("model", result.metric.replace("_", " "), "file"), rows)


def _row(student: Student, metric: str) -> tuple[str, ...]:
    score = f"{student.score:.2%}" if metric == "accuracy" else f"{student.score:.4g}"
    return student.name, score, str(student.model)
