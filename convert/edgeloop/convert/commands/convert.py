"""The verb `convert`."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from edgeloop.bundle import Format, Scheme
from edgeloop.convert.compression.compress import CompressOptions
from edgeloop.convert.convert import convert as run
from edgeloop.convert.forms.recipes import Io
from edgeloop.convert.forms.tfjs import TfjsOptions, Weights
from edgeloop.convert.options import ConvertOptions
from edgeloop.convert.parse_options import (
    READ_MB,
    fixed_input,
    label_file,
    memory_limits,
    preprocessing,
    training,
)
from edgeloop.convert.present import conversion
from edgeloop.convert.proof.prove import ProveOptions
from edgeloop.convert.search.search import SearchOptions
from edgeloop.convert.training.losses import Loss
from edgeloop.convert.training.optimizers import Optimizer
from edgeloop.errors import OptionsError
from edgeloop.quantities import byte_count, input_shape
from edgeloop.registry.signatures.sign import sign_bundle
from edgeloop.result import CommandResult
from edgeloop.runtime.chosen_devices import FLEET_FORMS, parse_devices

DATA, SHRINK, INSIDE = "Data", "Shrink the model", "Preprocess inside the model"
TRAIN, PROOF = "Train on devices", "Check and sign"


class WritableFormat(enum.StrEnum):
    """The formats that are written."""

    TFLITE = Format.TFLITE.value
    ONNX = Format.ONNX.value
    TFJS = Format.TFJS.value


class SchemeChoice(enum.StrEnum):
    """The schemes that can be asked for; `auto` is a search."""

    FLOAT32 = Scheme.FLOAT32.value
    FLOAT16 = Scheme.FLOAT16.value
    DYNAMIC = Scheme.DYNAMIC.value
    INT8 = Scheme.INT8.value
    INT16X8 = Scheme.INT16X8.value
    INT4 = Scheme.INT4.value
    MIXED = Scheme.MIXED.value
    AUTO = "auto"


def convert(
    ctx: typer.Context,
    model: Annotated[
        Path,
        typer.Argument(
            help="Convert this model: a .keras, .h5, .onnx or .tflite file, a SavedModel folder, a TF.js model.json, "
            "or the folder of a training."
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="BUNDLE", help="Write the bundle to this folder.")],
    to: Annotated[
        list[WritableFormat] | None,
        typer.Option(metavar="FORMAT", show_default="every format the model allows", help="Write these formats."),
    ] = None,
    schemes: Annotated[
        list[SchemeChoice] | None,
        typer.Option(
            metavar="SCHEME",
            show_default="float32, float16, dynamic, and int8 or else mixed if --calibration is given or an .onnx "
            "file is quantized",
            help="Write one .tflite file for each of these schemes. mixed is int8 with the operators that have no "
            "integer kernel in float32. auto, given alone, writes float32 and the smallest mix of schemes (the variant "
            "mixed) within --max-drop.",
        ),
    ] = None,
    io: Annotated[
        list[Io] | None,
        typer.Option(
            metavar="TYPE",
            show_default="float32",
            help="Give int8 files inputs and outputs of this type; two types give two files.",
        ),
    ] = None,
    tfjs_weights: Annotated[
        Weights, typer.Option(metavar="TYPE", help="Store TF.js weights as this type; TF.js computes in float32.")
    ] = Weights.FLOAT32,
    tfjs_shard_mb: Annotated[
        float, typer.Option(metavar="MB", help="Split TF.js weights into files of at most this many MB.")
    ] = 4.0,
    signature: Annotated[
        str | None, typer.Option(metavar="NAME", help="Convert this signature of a SavedModel or .tflite file.")
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SIZES",
            help="Set the free dimensions of this input in every format, e.g. 'image=1,224,224,?'; ? leaves a "
            "dimension unchanged.",
        ),
    ] = None,
    fix: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Set this input of an .onnx file to a constant, e.g. 'sr=16000' or 'size=480,640'.",
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            show_default="the model's own, or 1 where TFLite cannot run the model with a free batch",
            help="Set the batch of .tflite files to N samples.",
        ),
    ] = None,
    release: Annotated[int, typer.Option(metavar="N", help="Give the bundle this release number.")] = 1,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", show_default="the name of the model's file", help="Name the bundle.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="F.txt", help="Read the class names from this text file, one per line.")
    ] = None,
    no_reference: Annotated[
        bool,
        typer.Option(
            "--no-reference",
            help="Leave out reference.npz: up to 16 inputs and the original's outputs, which verify and devices use.",
        ),
    ] = False,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Convert again, even if the cache holds the same conversion.")
    ] = False,
    memory_mb: Annotated[
        float, typer.Option(metavar="MB", help="Refuse a model that takes more memory than this to read.")
    ] = READ_MB,
    allow_unsafe: Annotated[
        bool,
        typer.Option("--allow-unsafe", help="Load a model that runs code of its own or uses files, and list what."),
    ] = False,
    imports: Annotated[
        list[Path] | None,
        typer.Option(
            "--import",
            metavar="F.py",
            show_default="none",
            help="Load the model's own layers by running this Python file, which defines them (implies "
            "--allow-unsafe).",
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="F.npz|DIR",
            rich_help_panel=DATA,
            help="Measure activation ranges on these real inputs, 16 or more (required for int8 and int16x8).",
        ),
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option(
            "--eval",
            metavar="F.npz",
            rich_help_panel=DATA,
            help="Check each variant on these inputs. If the file holds labels y, report accuracy, AUC, or RMSE, R² "
            "and MAE.",
        ),
    ] = None,
    train_data: Annotated[
        Path | None,
        typer.Option(
            metavar="F.npz",
            rich_help_panel=DATA,
            help="Train on these inputs and labels y, for --prune, --cluster and --qat.",
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="PP",
            rich_help_panel=SHRINK,
            help="Find the smallest mix of schemes that loses at most PP percentage points of accuracy or AUC, or, "
            "where the labels y are numbers, whose RMSE grows by at most PP per cent (needs --calibration).",
        ),
    ] = None,
    prune: Annotated[
        float | None,
        typer.Option(
            metavar="SPARSITY",
            rich_help_panel=SHRINK,
            help="Set this share of each kernel to zero, e.g. 0.5 (needs --train-data).",
        ),
    ] = None,
    cluster: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            rich_help_panel=SHRINK,
            help="Cluster the weights of each kernel into N values (needs --train-data).",
        ),
    ] = None,
    qat: Annotated[
        int | None,
        typer.Option(
            metavar="EPOCHS",
            rich_help_panel=SHRINK,
            help="Run quantization-aware training for EPOCHS epochs (needs --train-data).",
        ),
    ] = None,
    input_range: Annotated[
        str | None,
        typer.Option(
            metavar="LOW,HIGH", rich_help_panel=INSIDE, help="Rescale raw inputs from LOW,HIGH, e.g. 0,255, to 0..1."
        ),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS",
            rich_help_panel=INSIDE,
            help="Subtract this after --input-range: one number, or one per channel with commas.",
        ),
    ] = None,
    std: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS",
            rich_help_panel=INSIDE,
            help="Divide by this after --mean: one number, or one per channel with commas.",
        ),
    ] = None,
    resize: Annotated[
        str | None,
        typer.Option(
            metavar="HEIGHT,WIDTH",
            rich_help_panel=INSIDE,
            help="Accept images of this many pixels, and resize them to the model's own input size.",
        ),
    ] = None,
    trainable: Annotated[
        bool,
        typer.Option(
            "--trainable",
            rich_help_panel=TRAIN,
            help="Write a .tflite that devices can train, besides the other files.",
        ),
    ] = False,
    train_batch: Annotated[
        int | None,
        typer.Option(
            metavar="N", rich_help_panel=TRAIN, show_default="16", help="Train on N samples per step on a device."
        ),
    ] = None,
    train_last: Annotated[
        int | None, typer.Option(metavar="N", rich_help_panel=TRAIN, help="Train only the last N layers.")
    ] = None,
    optimizer: Annotated[
        Optimizer | None,
        typer.Option(metavar="NAME", rich_help_panel=TRAIN, show_default="sgd", help="Train with this optimizer."),
    ] = None,
    loss: Annotated[
        Loss | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=TRAIN,
            show_default="the one that fits the model's output",
            help="Minimize this loss on a device: cross entropy of classes (sparse) or of yes and no (binary), or mean "
            "squared error (mse).",
        ),
    ] = None,
    prove_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DEVICE", rich_help_panel=PROOF, help=f"Check each variant on this device too: {FLEET_FORMS}."
        ),
    ] = None,
    unproved: Annotated[
        list[WritableFormat] | None,
        typer.Option(
            metavar="FORMAT",
            rich_help_panel=PROOF,
            help="Write this format even if no runtime here can check it. The bundle marks it as unproved.",
        ),
    ] = None,
    min_snr: Annotated[
        float | None,
        typer.Option(
            metavar="DB",
            rich_help_panel=PROOF,
            help="Require this signal-to-noise ratio of every output of a quantized file.",
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            rich_help_panel=PROOF,
            help="Fail if any form cannot be written. Otherwise only a form named by --to or --schemes must be.",
        ),
    ] = False,
    sign: Annotated[
        Path | None,
        typer.Option(metavar="KEY", rich_help_panel=PROOF, help="Sign the bundle with this OpenSSH private key."),
    ] = None,
) -> CommandResult:
    """Convert a model into every format that devices run, and check each file against the original."""
    automatic = SchemeChoice.AUTO in (schemes or ())
    if automatic and (max_drop is None or schemes != [SchemeChoice.AUTO]):
        raise OptionsError(
            "--schemes auto searches for the smallest mix of schemes",
            advice="Pass it alone, with --max-drop PP, e.g. 0.5.",
        )
    own = (Scheme.FLOAT32,) if automatic else tuple(Scheme(scheme.value) for scheme in schemes or ())
    options = ConvertOptions(
        to=_formats(to) if to else None,
        schemes=own or None,
        io=tuple(dict.fromkeys(io)) if io else (Io.FLOAT32,),
        tfjs=TfjsOptions(weights=tfjs_weights, shard_bytes=byte_count(tfjs_shard_mb, "--tfjs-shard-mb")),
        calibration=calibration,
        evaluation=evaluation,
        train_data=train_data,
        compress=None
        if prune is cluster is qat is None
        else CompressOptions(prune=prune, cluster=cluster, qat_epochs=qat),
        preprocess=preprocessing(input_range, mean, std, resize),
        search=SearchOptions(max_drop_pp=max_drop) if max_drop is not None else None,
        trainable=training(trainable, train_batch, train_last, optimizer, loss),
        signature=signature,
        release=release,
        name=name,
        reference=not no_reference,
        labels=label_file(labels),
        prove=ProveOptions(
            on=tuple(parse_devices(prove_on or ())),
            unproved=frozenset(_formats(unproved)),
            min_snr_db=min_snr,
        ),
        limits=memory_limits(memory_mb),
        batch=batch,
        shapes=tuple(input_shape(text) for text in shape or ()),
        fixed=tuple(fixed_input(text) for text in fix or ()),
        strict=strict,
        allow_unsafe=allow_unsafe,
        imports=tuple(path.resolve() for path in imports or ()),
        cache=not no_cache,
    )
    made = run(model, out, options, ctx.obj)
    if sign is not None:
        sign_bundle(made.bundle, sign)
    return conversion(made.bundle, made.parity, made.notes, made.search)


def _formats(chosen: list[WritableFormat] | None) -> tuple[Format, ...]:
    return tuple(dict.fromkeys(Format(format.value) for format in chosen or ()))
