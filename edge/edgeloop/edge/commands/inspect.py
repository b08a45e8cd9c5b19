"""The verb `inspect`. It stands alone because it must answer within half a second: numpy alone would take a third."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeloop.edge.targets.target import Target
from edgeloop.edge.targets.target import inspect_for_target as look_at_target
from edgeloop.edge.targets.target_tables import target_answer
from edgeloop.errors import OptionsError
from edgeloop.files.inspect import inspect as inspect_for_target
from edgeloop.result import CommandResult, Table

app = typer.Typer()


@app.command()
def inspect(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(help="A bundle, a .tflite, .keras or .onnx file, or a SavedModel folder.")],
    target: Annotated[Target | None, typer.Option(help="Say which operators this chip would run, and why not.")] = None,
    variant: Annotated[str | None, typer.Option(help="With --target: this .tflite variant of a bundle alone.")] = None,
) -> CommandResult:
    """Say what a file holds, without running it; with --target, what a chip would make of it."""
    if target is not None:
        return target_answer(path, target, look_at_target(path, target, variant))
    if variant is not None:
        raise OptionsError("--variant says what --target looks at. Add --target, or leave it out.")
    found = inspect_for_target(path)
    tables = [_signatures(name, signature) for name, signature in found.get("signatures", {}).items()]
    counts = found.get("operators") or Counter(layer["kind"] for layer in found.get("layers", ()))
    if counts:
        what = "operator" if "operators" in found else "layer"
        rows = [(name, str(count)) for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
        tables.append(Table(f"{what}s", (what, "count"), rows))
    if "variants" in found:
        ids = [(v["id"], v["format"], v["scheme"], ", ".join(v["requires"]["runtimes"])) for v in found["variants"]]
        tables.append(Table("variants", ("variant", "format", "scheme", "proved on"), ids))
    title = f"{path}: {found['format']}, {found['bytes'] / 1e3:,.1f} kB"
    return CommandResult(found, tables, [title])


def _signatures(name: str, signature: dict[str, Any]) -> Table:
    rows = [
        (side[:-1], t["name"], "[" + ", ".join("any" if d is None else str(d) for d in t["shape"]) + "]", t["dtype"])
        for side in ("inputs", "outputs")
        for t in signature[side]
    ]
    return Table(f"signature {name or '(none)'}", ("", "tensor", "shape", "dtype"), rows)
