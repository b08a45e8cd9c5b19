"""Options and a source in, what to make of it out: formats, schemes, and the samples that measure and prove."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgeloop.bundle import Format, Scheme, TensorSpec
from edgeloop.convert.form import FormLog, tfjs_form
from edgeloop.convert.forms.tfjs import check_tensorflowjs
from edgeloop.convert.forms.tflite_file import is_kept_unchanged
from edgeloop.convert.options import MEASURED, ConvertOptions
from edgeloop.convert.read_samples import LabelPolicy, read_samples
from edgeloop.convert.samples import Samples, synthetic
from edgeloop.convert.sources.source import Source, SourceKind
from edgeloop.errors import DataError, ModelError, OptionsError
from edgeloop.progress import Say

PROOF_SAMPLES = 256
CALIBRATION_AT_LEAST = 16
WRITABLE = frozenset({Format.TFLITE, Format.ONNX, Format.TFJS})


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionPlan:
    """What to make of a source.

    Attributes:
        schemes: None for a .tflite that is taken as it is.
        samples: What the proof runs on; `expected` {output: [n, ...]} are the source's answers to them.
        own_inputs: The model's own, from before any preprocessing.
        journal: Where a search keeps what it measured, to go on from when it is killed.
    """

    formats: frozenset[Format]
    schemes: tuple[Scheme, ...] | None
    calibration: Samples | None
    samples: Samples
    expected: Mapping[str, np.ndarray]
    own_inputs: tuple[TensorSpec, ...]
    journal: Path
    options: ConvertOptions


def wanted_formats(options: ConvertOptions, kind: SourceKind, log: FormLog) -> frozenset[Format]:
    """What this kind of source can become here; what was asked for by name and cannot be is an error."""
    if options.trainable and kind not in (SourceKind.KERAS, SourceKind.ONNX):
        raise OptionsError(
            f"--trainable needs layers, which models of the kind {kind.value} no longer have",
            advice="Convert the Keras model instead.",
        )
    if options.compress and kind is not SourceKind.KERAS:
        raise OptionsError(
            f"--prune, --cluster and --qat need layers, which models of the kind {kind.value} no longer have",
            advice="Convert the Keras model instead.",
        )
    formats = frozenset(options.to or WRITABLE)
    if Format.TFJS not in formats:
        return formats
    with log.leave_out([tfjs_form(Scheme.FLOAT32, options)]):
        if kind is SourceKind.TFLITE:
            raise OptionsError(
                "a .tflite file cannot be converted to TF.js",
                advice="Convert the Keras model or a SavedModel instead, or leave tfjs out of --to.",
            )
        check_tensorflowjs()
        return formats
    return formats - {Format.TFJS}


def with_looked_up(options: ConvertOptions, paths: Mapping[str, str]) -> ConvertOptions:
    """The options with the data whose words were looked up: paths by the name of the option."""

    def path(name: str, own: Path | None) -> Path | None:
        return Path(paths[name]) if name in paths else own

    return replace(
        options,
        calibration=path("calibration", options.calibration),
        evaluation=path("evaluation", options.evaluation),
    )


def read_calibration(options: ConvertOptions, inputs: Sequence[TensorSpec], *, whole: bool = False) -> Samples | None:
    """Calibration data, if any was given; `whole` as `read_samples` takes it.

    Raises:
        DataError: It does not fit the model, or is too little to measure ranges with.
    """
    if options.calibration is None:
        return None
    samples = read_samples(options.calibration, inputs, whole=whole)
    if len(samples) < CALIBRATION_AT_LEAST:
        raise DataError(
            f"int8 needs at least {CALIBRATION_AT_LEAST} calibration samples, got {len(samples)}",
            advice="Pass more real inputs, or leave --calibration out: dynamic needs none.",
        )
    return samples


def choose_formats_and_schemes(
    source: Source, formats: frozenset[Format], options: ConvertOptions, say: Say
) -> tuple[frozenset[Format], tuple[Scheme, ...] | None]:
    """Formats and schemes, by what the source holds already and by the data there is.

    Raises:
        ModelError: Schemes or formats were asked of a .tflite that is quantized already.
    """
    schemes = options.schemes
    if source.flatbuffer is not None and is_kept_unchanged(source.flatbuffer):
        if schemes or options.search or (options.to and Format.ONNX in options.to):
            raise ModelError(
                f"{source.path} is quantized already or keeps state, so it can only be copied unchanged",
                advice="Convert the float model for other schemes or formats.",
            )
        say("The .tflite file is quantized already or keeps state, so it was copied unchanged.")
        formats -= {Format.ONNX}
    elif schemes is None:
        schemes = (Scheme.FLOAT32, Scheme.FLOAT16, Scheme.DYNAMIC)
        if options.calibration is None and Format.TFLITE in formats and not source.states_ranges:
            names = " and ".join(t.name for t in source.inputs)
            say(
                f"int8 was not written: it needs real inputs. Pass --calibration F.npz with "
                f"{CALIBRATION_AT_LEAST} or more samples of {names}."
            )
        elif options.search is None and Format.TFLITE in formats and options.calibration is None:
            schemes += (Scheme.INT8,)
            say("int8 is made with the ranges that the model states; others are measured on generated inputs.")
        elif options.search is None:  # which finds out itself whether int8 is good enough
            schemes += (Scheme.INT8,)
    return formats, tuple(dict.fromkeys(schemes)) if schemes is not None else None


def needs_ranges(plan: ConversionPlan) -> bool:
    return plan.options.search is not None or any(scheme in MEASURED for scheme in plan.schemes or ())


def proof_samples(
    options: ConvertOptions,
    inputs: Sequence[TensorSpec],
    calibration: Samples | None,
    *,
    whole: bool = False,
    span: int = 0,
    sizes: Mapping[str, Sequence[int]] = {},
    below: int = 2,
) -> Samples:
    """What the proof runs on: all of the evaluation data, for accuracy is about the whole; else calibration data;
    else made-up values as `synthetic` takes `span`, `sizes` and `below`."""
    if options.evaluation is not None:
        return read_samples(options.evaluation, inputs, labels=LabelPolicy.IF_ANY, whole=whole)
    if calibration is not None:
        return calibration.take(PROOF_SAMPLES)
    return synthetic(inputs, whole=whole, span=span, sizes=sizes, below=below)
