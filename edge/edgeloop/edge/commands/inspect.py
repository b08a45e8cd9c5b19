"""The verb `inspect`. It stands alone because it must answer within half a second: numpy alone would take a third."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeloop.edge.commands.target_tables import target_answer
from edgeloop.errors import OptionsError
from edgeloop.files.inspect import inspect as read_facts
from edgeloop.files.targets.target import Target, inspect_for_target
from edgeloop.result import CommandResult, Table


def inspect(
    ctx: typer.Context,
    model: Annotated[
        Path, typer.Argument(help="Inspect this bundle, .tflite, .keras or .onnx file, or SavedModel folder.")
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
    tables = []
    if "variants" in found:
        ids = [(v["id"], v["format"], v["scheme"], ", ".join(v["requires"]["runtimes"])) for v in found["variants"]]
        tables.append(Table("variants", ("variant", "format", "scheme", "checked on"), ids))
    ends = {name: each for name, each in found.get("signatures", {}).items() if each["inputs"] or each["outputs"]}
    tables += [_signatures(name, signature) for name, signature in ends.items()]
    counts = found.get("operators") or Counter(layer["kind"] for layer in found.get("layers", ()))
    if counts:
        what = "operator" if "operators" in found else "layer"
        rows = [(name, str(count)) for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
        tables.append(Table(f"{what}s", (what, "count"), rows))
    title = f"{model}: {found['format']}, {found['bytes'] / 1e3:,.1f} kB"
    return CommandResult(found, tables, [title])


def _signatures(name: str, signature: dict[str, Any]) -> Table:
    rows = [
        (side[:-1], t["name"], "[" + ", ".join("any" if d is None else str(d) for d in t["shape"]) + "]", t["dtype"])
        for side in ("inputs", "outputs")
        for t in signature[side]
    ]
    return Table(f"signature {name or '(none)'}", ("", "tensor", "shape", "dtype"), rows)
