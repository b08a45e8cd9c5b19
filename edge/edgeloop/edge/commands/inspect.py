"""The verb `inspect`. It stands alone because it must answer within half a second: numpy alone would take a third."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeloop.edge.commands.facts_tables import facts_notes, facts_tables
from edgeloop.edge.commands.target_tables import target_answer
from edgeloop.errors import OptionsError
from edgeloop.files.inspect import inspect as read_facts
from edgeloop.files.targets.target import Target, inspect_for_target
from edgeloop.result import CommandResult


def inspect(
    ctx: typer.Context,
    model: Annotated[
        Path, typer.Argument(help="Inspect this bundle, .tflite, .keras, .h5 or .onnx file, or SavedModel folder.")
    ],
    target: Annotated[
        Target | None,
        typer.Option(metavar="CHIP", help="Show which operators this chip runs, and why it does not run the others."),
    ] = None,
    variant: Annotated[
        str | None, typer.Option(metavar="ID", help="Inspect only this .tflite variant of a bundle (needs --target).")
    ] = None,
) -> CommandResult:
    """Show what a model file or bundle holds, without running it."""
    if target is not None:
        return target_answer(model, target, inspect_for_target(model, target, variant))
    if variant is not None:
        raise OptionsError("--variant needs --target, which is missing", advice="Add --target, or leave --variant out.")
    found = read_facts(model)
    return CommandResult(found, facts_tables(found), facts_notes(model, found))
