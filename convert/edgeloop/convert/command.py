"""The verbs `convert` and `verify`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from edgeloop.answer import Answer, Table
from edgeloop.bundle import Bundle, Format, Scheme
from edgeloop.errors import OptionsError

if TYPE_CHECKING:
    from edgeloop.convert.parity import Parity

app = typer.Typer()
Choice = TypeVar("Choice", bound=Enum)


@app.command()
def convert(
    ctx: typer.Context,
    model: Annotated[Path, typer.Argument(help="A .keras or .h5 file, a SavedModel folder, or a .tflite file.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The bundle folder to write.")],
    to: Annotated[list[str] | None, typer.Option(help="tflite, onnx, tfjs; default: all the source allows.")] = None,
    schemes: Annotated[list[str] | None, typer.Option(help="float32, float16, dynamic, int8.")] = None,
    calibration: Annotated[Path | None, typer.Option(help="Real inputs (.npz): needed by int8.")] = None,
    evaluation: Annotated[Path | None, typer.Option("--eval", help="Inputs and labels y (.npz).")] = None,
    trainable: Annotated[bool, typer.Option("--trainable", help="Also a .tflite that devices can train.")] = False,
    train_batch: Annotated[int, typer.Option(help="Samples of one training step on a device.")] = 16,
    signature: Annotated[str | None, typer.Option(help="Which signature of a SavedModel or .tflite.")] = None,
    release: Annotated[int, typer.Option(help="Version of the bundle.")] = 1,
    name: Annotated[str | None, typer.Option(help="Name of the bundle; default: the file's.")] = None,
    reference: Annotated[bool, typer.Option(help="Keep up to 16 inputs and the source's answers in it.")] = True,
) -> Answer:
    """Turn a model into every form a device runs, and prove each one."""
    from edgeloop.convert.convert import ConvertOptions
    from edgeloop.convert.convert import convert as run
    from edgeloop.convert.trainable import TrainableOptions

    options = ConvertOptions(
        to=_choices(Format, to, "--to"),
        schemes=_choices(Scheme, schemes, "--schemes"),
        calibration=calibration,
        evaluation=evaluation,
        trainable=TrainableOptions(batch=train_batch) if trainable else None,
        signature=signature,
        release=release,
        name=name,
        reference=reference,
    )
    made = run(model, out, options, ctx.obj)
    return _answer(made.bundle, made.parity, made.notes)


@app.command()
def verify(
    ctx: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="A bundle folder.")],
) -> Answer:
    """Check a bundle again: every hash, and every variant against the source's answers, in its own runtime."""
    from edgeloop.convert.verify import verify as run

    checked = run(bundle, ctx.obj)
    return _answer(checked.bundle, checked.parity, ())


def variant_rows(bundle: Bundle, parity: Sequence[Parity]) -> list[dict[str, Any]]:
    """One JSON object a variant; its parity is the worst over runtimes and outputs."""
    rows = []
    for variant in bundle.manifest.variants:
        own = [row for row in parity if row.variant == variant.id]
        if not own:  # not here, or of a format that no runtime here runs
            continue
        worst = min(own, key=lambda row: float("inf") if row.snr_db is None else row.snr_db)
        rows.append(
            {
                "id": variant.id,
                "format": variant.format.value,
                "scheme": variant.scheme.value,
                "bytes": sum(bundle.manifest.files[name].bytes for name in variant.files),
                "parity": {
                    "max_abs": max(row.max_abs for row in own),
                    "snr_db": worst.snr_db,
                    "top1_agreement": worst.top1_agreement,
                    "passed": all(row.passed for row in own),
                },
                "accuracy": next((row.accuracy for row in own if row.accuracy is not None), None),
                "runtimes": list(dict.fromkeys(row.runtime for row in own)),
            }
        )
    return rows


def variant_table(title: str, rows: Sequence[dict[str, Any]]) -> Table:
    """`variant_rows` for people."""
    columns = ("variant", "format", "size", "max abs", "SNR dB", "top-1", "accuracy", "proved on")
    return Table(
        title,
        columns,
        [
            (
                row["id"],
                row["format"],
                f"{row['bytes'] / 1e3:,.1f} kB",
                f"{row['parity']['max_abs']:.1e}",
                "exact" if row["parity"]["snr_db"] is None else f"{row['parity']['snr_db']:.1f}",
                _percent(row["parity"]["top1_agreement"]),
                _percent(row["accuracy"]),
                ", ".join(row["runtimes"]),
            )
            for row in rows
        ],
    )


def _answer(bundle: Bundle, parity: Sequence[Parity], notes: Sequence[str]) -> Answer:
    rows = variant_rows(bundle, parity)
    document = {
        "bundle": str(bundle.path),
        "name": bundle.manifest.name,
        "version": bundle.manifest.version,
        "variants": rows,
        "proof": [asdict(row) for row in parity],
        "notes": list(notes),
    }
    title = f"{bundle.path}: {bundle.manifest.name}, release {bundle.manifest.version}"
    return Answer(document, [variant_table(title, rows)], notes)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _choices(kind: type[Choice], given: list[str] | None, option: str) -> tuple[Choice, ...] | None:
    """`--to a --to b` and `--to a,b` alike."""
    if not given:
        return None
    known = {choice.value: choice for choice in kind}
    words = [word.strip() for text in given for word in text.split(",")]
    for word in words:
        if word not in known:
            raise OptionsError(f"{option} {word!r} is not known. Choose from {', '.join(known)}.")
    return tuple(dict.fromkeys(known[word] for word in words))
