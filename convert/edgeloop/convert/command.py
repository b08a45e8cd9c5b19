"""The verbs `convert`, `verify` and `cache`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeloop.bundle import Bundle, Format, Scheme, read_bundle
from edgeloop.convert.parse_options import byte_count, choice, choices, label_file, numbers, pair, size
from edgeloop.convert.proof.parity import passed_on
from edgeloop.errors import OptionsError
from edgeloop.result import CommandResult, Table

if TYPE_CHECKING:
    from edgeloop.runtime.parity.compare import Parity

app = typer.Typer()
DATA, SHRINK, INSIDE, PROOF, TRAIN = "Data", "Smaller", "Preprocessing inside", "Proof", "Training on devices"


@app.command()
def convert(
    ctx: typer.Context,
    model: Annotated[Path, typer.Argument(help="A .keras or .h5 file, a SavedModel folder, a .onnx or .tflite file.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The bundle folder to write.")],
    to: Annotated[list[str] | None, typer.Option(help="tflite, onnx, tfjs; default: all the source allows.")] = None,
    schemes: Annotated[
        list[str] | None, typer.Option(help="float32, float16, dynamic, int8, int16x8, int4; auto: with --max-drop.")
    ] = None,
    io: Annotated[list[str] | None, typer.Option(help="What int8 files take and give: float32, int8.")] = None,
    tfjs_weights: Annotated[str, typer.Option(help="float32, float16 or uint8.")] = "float32",
    tfjs_shard_mb: Annotated[float, typer.Option(help="Size of TF.js weight files.")] = 4.0,
    signature: Annotated[str | None, typer.Option(help="Which signature of a SavedModel or .tflite.")] = None,
    release: Annotated[int, typer.Option(help="Version of the bundle.")] = 1,
    name: Annotated[str | None, typer.Option(help="Name of the bundle; default: the file's.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Names of the classes, one a line.")] = None,
    reference: Annotated[bool, typer.Option(help="Keep up to 16 inputs and the source's answers in it.")] = True,
    calibration: Annotated[
        Path | None, typer.Option(help="Real inputs (.npz): needed by int8.", rich_help_panel=DATA)
    ] = None,
    evaluation: Annotated[
        Path | None, typer.Option("--eval", help="Inputs to prove on; labels y if any (.npz).", rich_help_panel=DATA)
    ] = None,
    train_data: Annotated[
        Path | None, typer.Option(help="Inputs and labels y for --prune, --cluster, --qat.", rich_help_panel=DATA)
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Find the smallest mix that loses at most so many points.", metavar="POINTS", rich_help_panel=SHRINK
        ),
    ] = None,
    prune: Annotated[
        float | None,
        typer.Option(help="Share of each kernel to make zero.", metavar="SPARSITY", rich_help_panel=SHRINK),
    ] = None,
    cluster: Annotated[
        int | None, typer.Option(help="Different values a kernel may have.", metavar="N", rich_help_panel=SHRINK)
    ] = None,
    qat: Annotated[
        int | None, typer.Option(help="Train so many epochs as if quantized.", metavar="EPOCHS", rich_help_panel=SHRINK)
    ] = None,
    input_range: Annotated[
        str | None, typer.Option(help="What devices give, mapped to 0..1: 0,255.", rich_help_panel=INSIDE)
    ] = None,
    mean: Annotated[
        str | None, typer.Option(help="Then subtracted: one number, or one a channel.", rich_help_panel=INSIDE)
    ] = None,
    std: Annotated[str | None, typer.Option(help="Then divided by.", rich_help_panel=INSIDE)] = None,
    resize: Annotated[
        str | None, typer.Option(help="Height,width of the images that devices give.", rich_help_panel=INSIDE)
    ] = None,
    trainable: Annotated[
        bool, typer.Option("--trainable", help="Also a .tflite that devices can train.", rich_help_panel=TRAIN)
    ] = False,
    train_batch: Annotated[
        int | None, typer.Option(help="Samples of one training step on a device; default: 16.", rich_help_panel=TRAIN)
    ] = None,
    train_last: Annotated[
        int | None, typer.Option(help="Train only the last N layers.", metavar="N", rich_help_panel=TRAIN)
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="sgd, momentum or adam; default: sgd.", rich_help_panel=TRAIN)
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(help="sparse, binary or mse; default: by what the model answers.", rich_help_panel=TRAIN),
    ] = None,
    prove_on: Annotated[
        list[str] | None, typer.Option(help="One more device: local:PYTHON or ssh://HOST.", rich_help_panel=PROOF)
    ] = None,
    unproved: Annotated[
        list[str] | None, typer.Option(help="Write this format without proof, marked so.", rich_help_panel=PROOF)
    ] = None,
    min_snr: Annotated[
        float | None, typer.Option(help="Least output SNR of quantized files.", metavar="DB", rich_help_panel=PROOF)
    ] = None,
    memory: Annotated[float, typer.Option(help="GiB that reading a model may take.", metavar="GIB")] = 2.0,
    allow_unsafe: Annotated[
        bool, typer.Option("--allow-unsafe", help="Load models that run code or touch files; says what.")
    ] = False,
    sign: Annotated[Path | None, typer.Option(help="Sign the manifest with this OpenSSH key.", metavar="KEY")] = None,
    cache: Annotated[bool, typer.Option(help="Take an unchanged conversion from the cache.")] = True,
) -> CommandResult:
    """Turn a model (.keras, .h5, SavedModel, .onnx, .tflite) into every form a device runs, and prove each one."""
    from edgeloop.convert.compression.compress import CompressOptions
    from edgeloop.convert.convert import convert as run
    from edgeloop.convert.forms.preprocess import Preprocessing
    from edgeloop.convert.forms.recipes import Io
    from edgeloop.convert.forms.tfjs import TfjsOptions, Weights
    from edgeloop.convert.options import ConvertOptions
    from edgeloop.convert.proof.prove import ProveOptions
    from edgeloop.convert.search.search import SearchOptions
    from edgeloop.convert.training.losses import Loss
    from edgeloop.convert.training.optimizers import Optimizer
    from edgeloop.convert.training.trainable import TrainableOptions
    from edgeloop.processes.job import Limits
    from edgeloop.registry.signatures.sign import sign_bundle
    from edgeloop.runtime.device import parse_device

    weights = choice(Weights, tfjs_weights, "--tfjs-weights")
    automatic = schemes == ["auto"]
    if automatic and max_drop is None:
        raise OptionsError("--schemes auto needs a budget. Pass --max-drop POINTS, e.g. 0.5.")
    how = {"--train-batch": train_batch, "--train-last": train_last, "--optimizer": optimizer, "--loss": loss}
    for option, given in how.items():
        if given is not None and not trainable:
            raise OptionsError(f"{option} is about the .tflite that devices can train. Pass --trainable with it.")
    read_bytes = byte_count(memory, 2**30, "--memory")
    options = ConvertOptions(
        to=choices(Format, to, "--to"),
        schemes=(Scheme.FLOAT32,) if automatic else choices(Scheme, schemes, "--schemes"),
        io=choices(Io, io, "--io") or (Io.FLOAT32,),
        tfjs=TfjsOptions(weights=weights, shard_bytes=byte_count(tfjs_shard_mb, 2**20, "--tfjs-shard-mb")),
        calibration=calibration,
        evaluation=evaluation,
        train_data=train_data,
        compress=None
        if prune is cluster is qat is None
        else CompressOptions(prune=prune, cluster=cluster, qat_epochs=qat),
        preprocess=Preprocessing(
            input_range=pair(input_range, "--input-range"),
            mean=numbers(mean, "--mean") or (0.0,),
            std=numbers(std, "--std") or (1.0,),
            resize=size(resize, "--resize"),
        )
        if any(given is not None for given in (input_range, mean, std, resize))
        else None,
        search=SearchOptions(max_drop_pp=max_drop) if max_drop is not None else None,
        trainable=TrainableOptions(
            batch=16 if train_batch is None else train_batch,
            optimizer=choice(Optimizer, optimizer or "sgd", "--optimizer"),
            loss=choice(Loss, loss, "--loss") if loss else None,
            train_last=train_last,
        )
        if trainable
        else None,
        signature=signature,
        release=release,
        name=name,
        reference=reference,
        labels=label_file(labels),
        prove=ProveOptions(
            on=tuple(parse_device(text) for text in prove_on or ()),
            unproved=frozenset(choices(Format, unproved, "--unproved") or ()),
            min_snr_db=min_snr,
        ),
        limits=Limits(read_bytes=read_bytes, work_bytes=4 * read_bytes),
        allow_unsafe=allow_unsafe,
        cache=cache,
    )
    made = run(model, out, options, ctx.obj)
    if sign is not None:
        sign_bundle(made.bundle, sign)
    return _answer(made.bundle, made.parity, made.notes, made.search)


@app.command()
def verify(
    ctx: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="A bundle folder.")],
    on: Annotated[list[str] | None, typer.Option(help="One more device: local:PYTHON or ssh://HOST.")] = None,
    signers: Annotated[
        Path | None, typer.Option(help="An OpenSSH allowed_signers file: one of them must have signed it.")
    ] = None,
) -> CommandResult:
    """Check a bundle again: every hash, and every variant against the source's answers, in its own runtime."""
    from edgeloop.convert.proof.verify import verify as run
    from edgeloop.registry.signatures.sign import verify_signature
    from edgeloop.registry.signatures.signers import read_signers
    from edgeloop.runtime.device import parse_device

    notes = []
    if signers is not None:
        read_signers(signers)
        notes.append(f"signed by {verify_signature(read_bundle(bundle), signers)}")
    checked = run(bundle, ctx.obj, tuple(parse_device(text) for text in on or ()))
    return _answer(checked.bundle, checked.parity, notes)


@app.command("cache")
def show_cache(
    ctx: typer.Context,
    prune: Annotated[bool, typer.Option("--prune", help="Remove all, or what the next two say.")] = False,
    older_than: Annotated[float | None, typer.Option(help="What was not used so long.", metavar="DAYS")] = None,
    keep_mb: Annotated[float | None, typer.Option(help="The oldest, until so much is left.", metavar="MB")] = None,
) -> CommandResult:
    """List the conversions that are kept, or remove some: an unchanged convert takes its bundle from here."""
    from edgeloop.convert import cache

    if not prune and (older_than is not None or keep_mb is not None):
        raise OptionsError("--older-than and --keep-mb say what to remove. Pass --prune with them.")
    removed = []
    if prune:
        everything = older_than is None and keep_mb is None
        removed = cache.prune(
            limit_bytes=0 if everything else None if keep_mb is None else int(keep_mb * 1e6),
            older_than_s=None if older_than is None else older_than * 86400,
        )
    kept = cache.entries()
    rows = [{"key": e.key, "model": e.model, "bytes": e.bytes, "used_s": e.used_s} for e in kept]
    document = {"folder": str(cache.cache_folder()), "entries": rows, "removed": [e.key for e in removed]}
    cells = [
        (e.key[:12], e.model, f"{e.bytes / 1e6:,.1f} MB", f"{(time.time() - e.used_s) / 86400:.1f} days ago")
        for e in kept
    ]
    table = Table(str(cache.cache_folder()), ("key", "model", "size", "last used"), cells)
    return CommandResult(document, [table], [f"{len(removed)} removed"] if prune else [])


def variant_rows(bundle: Bundle, parity: Sequence[Parity]) -> list[dict[str, Any]]:
    """One JSON object a variant; its parity is the worst over the runtimes it may run on, and their outputs."""
    rows = []
    for variant in bundle.manifest.variants:
        own = [row for row in parity if row.variant == variant.id and row.passed]
        tried = dict.fromkeys(row.runtime for row in parity if row.variant == variant.id)
        good = passed_on(parity, variant.id)
        rows.append(
            {
                "id": variant.id,
                "format": variant.format.value,
                "scheme": variant.scheme.value,
                "bytes": sum(bundle.manifest.files[name].bytes for name in variant.files),
                "parity": _worst(own) if own else None,
                "accuracy": next((row.accuracy for row in own if row.accuracy is not None), None),
                "runtimes": list(good),
                "not_on": [name for name in tried if name not in good],
            }
        )
    return rows


def _worst(rows: Sequence[Parity]) -> dict[str, Any]:
    worst = min(rows, key=lambda row: float("inf") if row.snr_db is None else row.snr_db)
    return {
        "max_abs": max(row.max_abs for row in rows),
        "snr_db": worst.snr_db,
        "top1_agreement": worst.top1_agreement,
        "passed": True,
    }


def variant_table(title: str, rows: Sequence[dict[str, Any]]) -> Table:
    """`variant_rows` for people."""
    columns = ("variant", "format", "size", "max abs", "SNR dB", "top-1", "accuracy", "proved on")
    return Table(title, columns, [_cells(row) for row in rows])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    parity = row["parity"]
    figures = ("-", "-", "-")
    if parity is not None:
        snr = "exact" if parity["snr_db"] is None else f"{parity['snr_db']:.1f}"
        figures = (f"{parity['max_abs']:.1e}", snr, _percent(parity["top1_agreement"]))
    proved = ", ".join([*row["runtimes"], *(f"NOT {name}" for name in row["not_on"])])
    return (
        row["id"],
        row["format"],
        f"{row['bytes'] / 1e3:,.1f} kB",
        *figures,
        _percent(row["accuracy"]),
        proved or "unproved",
    )


def _answer(
    bundle: Bundle, parity: Sequence[Parity], notes: Sequence[str], search: Mapping[str, Any] | None = None
) -> CommandResult:
    rows = variant_rows(bundle, parity)
    document = {
        "bundle": str(bundle.path),
        "name": bundle.manifest.name,
        "version": bundle.manifest.version,
        "variants": rows,
        "proof": [asdict(row) for row in parity],
        "notes": list(notes),
    }
    if search is not None:
        document["search"] = search
    title = f"{bundle.path}: {bundle.manifest.name}, release {bundle.manifest.version}"
    return CommandResult(document, [variant_table(title, rows)], notes)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
