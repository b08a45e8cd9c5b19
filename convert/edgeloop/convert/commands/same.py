"""The verb `same`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edgeloop.convert.parse_options import READ_MB, memory_limits
from edgeloop.convert.same.same import SameOptions, SameResult
from edgeloop.convert.same.same import same as run
from edgeloop.result import CommandResult, Table


def same(
    ctx: typer.Context,
    first: Annotated[
        Path,
        typer.Argument(
            help="Compare with this model: a .keras, .h5, .tflite or .onnx file, a SavedModel or TF.js "
            "folder, or a bundle, of which the float32 .tflite is taken."
        ),
    ],
    second: Annotated[Path, typer.Argument(help="Compare this model, of any of these kinds, with the first.")],
    evaluation: Annotated[
        Path | None,
        typer.Option(
            "--eval",
            metavar="F.npz",
            show_default="made-up inputs",
            help="Compare the answers to these inputs, under the names that the first model gives its inputs.",
        ),
    ] = None,
    signature: Annotated[
        str | None, typer.Option(metavar="NAME", help="Compare this signature of a SavedModel or .tflite file.")
    ] = None,
    min_snr: Annotated[
        float | None,
        typer.Option(
            metavar="DB",
            show_default="what the coarser scheme can reach",
            help="Require this signal-to-noise ratio of every output.",
        ),
    ] = None,
    memory_mb: Annotated[
        float, typer.Option(metavar="MB", help="Refuse models that take more memory than this to read.")
    ] = READ_MB,
    allow_unsafe: Annotated[
        bool, typer.Option("--allow-unsafe", help="Load models that run code of their own or use files.")
    ] = False,
    imports: Annotated[
        list[Path] | None,
        typer.Option(
            "--import",
            metavar="F.py",
            show_default="none",
            help="Load the models' own layers by running this Python file, which defines them (implies "
            "--allow-unsafe).",
        ),
    ] = None,
) -> CommandResult:
    """Compare two models of any format: whether they compute the same, and where they differ."""
    options = SameOptions(
        evaluation=evaluation,
        signature=signature,
        min_snr_db=min_snr,
        allow_unsafe=allow_unsafe,
        imports=tuple(imports or ()),
        limits=memory_limits(memory_mb),
    )
    return comparison(run(first, second, options, ctx.obj))


def comparison(found: SameResult) -> CommandResult:
    """{same, first, second, samples, real, outputs, transposed, by_position, first_difference, notes}, and a table."""
    document = {
        "same": found.same,
        "first": dict(found.first),
        "second": dict(found.second),
        "samples": found.samples,
        "real": found.real,
        "outputs": [asdict(row) for row in found.parity],
        "transposed": list(found.transposed),
        "by_position": [list(pair) for pair in found.by_position],
        "first_difference": found.first_difference,
        "notes": list(found.notes),
    }
    rows = []
    for row in found.parity:
        snr = "exact" if row.snr_db is None else f"{row.snr_db:.1f}"
        agreement = "-" if row.top1_agreement is None else f"{row.top1_agreement:.1%}"
        rows.append((row.output, "yes" if row.passed else "no", snr, f"{row.max_abs:.1e}", agreement))
    what = "inputs" if found.real else "made-up inputs"
    title = f"{Path(found.first['model']).name} ({found.first['runtime']}) and "
    title += f"{Path(found.second['model']).name} ({found.second['runtime']}) on {found.samples} {what}"
    notes = [*found.notes]
    notes += [f"The channels of {name} stand at another place in the second model." for name in found.transposed]
    if found.by_position:
        pairs = ", ".join(f"{a} with {b}" for a, b in found.by_position)
        notes.append(f"Neither names nor shapes tell which tensors belong together, so their order decided: {pairs}.")
    columns = ("output", "same", "SNR dB", "max error", "top-1")
    return CommandResult(document, [Table(title, columns, rows)], notes, found.error)
