"""A job in, a bundle's files out, not yet proved: everything that touches the model. Runs in the limited child.

    look -> open -> [preprocess] -> the source's answers -> freeze, lower, calibrate once -> every variant

It fills the bundle's new folder and leaves a draft of its manifest there; the parent proves, and writes the real one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.bundle import (
    MANIFEST,
    PREPROCESS,
    TRAINABLE,
    Format,
    LeftOut,
    Manifest,
    Signature,
    TensorSpec,
    Variant,
    Weight,
    file_entries,
)
from edgeloop.convert.answers import answers, calls, made_up_sizes, one_call_each, quiet_outputs, with_seen_shapes
from edgeloop.convert.cache import json_value
from edgeloop.convert.calls import has_batch_axis
from edgeloop.convert.exports.export import export_variants
from edgeloop.convert.exports.trainable_variant import check_trainable
from edgeloop.convert.exports.variant import ExportedVariant
from edgeloop.convert.form import FormLog, named_ids
from edgeloop.convert.forms.describe import describe
from edgeloop.convert.forms.metadata import with_metadata
from edgeloop.convert.forms.preprocess import with_preprocessing
from edgeloop.convert.labels import check_labels
from edgeloop.convert.look_up import look_up
from edgeloop.convert.options import ConvertOptions
from edgeloop.convert.plan import (
    ConversionPlan,
    choose_formats_and_schemes,
    proof_samples,
    read_calibration,
    with_looked_up,
)
from edgeloop.convert.proof.input_range import range_mismatch, scaled_twice
from edgeloop.convert.samples import Samples, as_calls
from edgeloop.convert.sources.custom_objects import import_layers
from edgeloop.convert.sources.onnx_sizes import InputSettings
from edgeloop.convert.sources.shapes import with_shapes
from edgeloop.convert.sources.source import Source, SourceKind, open_source
from edgeloop.convert.sources.source_value import layered
from edgeloop.convert.training.trainable import weight_table
from edgeloop.errors import OptionsError
from edgeloop.files.flatbuffer import read_tflite
from edgeloop.files.ram_estimate import ram_bytes
from edgeloop.processes.job_child import Events

JOURNAL = "search.jsonl"
DIARY = "diary.json"  # which forms are being made
JUDGED = 16  # of the user's samples: an imported model is compared on them, besides those made up


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionJob:
    """What the parent asks for.

    Attributes:
        model: What to convert; `origin` is what the manifest says of the file the user gave.
        folder: Becomes the bundle `out`.
        scratch: Gets K.npy, the source's K-th output, and files that lie beside the bundle.
        left_out: What the parent found already that cannot be written, or that crashed an earlier attempt.
    """

    model: Path
    origin: Mapping[str, str]
    options: ConvertOptions
    formats: frozenset[Format]
    folder: Path
    scratch: Path
    out: Path
    left_out: tuple[LeftOut, ...] = ()


def build(job: ConversionJob, events: Events) -> dict[str, Any]:
    """Fill `job.folder` and `job.scratch`.

    Returns:
        The `signature` that was converted, the ids that were `named`, and of the samples whether they are `whole` and
        the `span` and `sizes` that they were made up in, and what whole numbers lie `below`; `looked_up`: the paths of
        the options whose words were looked up.

    Raises:
        EdgeloopError: As `edgeloop.convert.convert.convert`, but for what only the proof shows.
    """
    options = job.options
    for file in options.imports:
        events.say(import_layers(file))
    shapes, unsafe = dict(options.shapes), options.allow_unsafe or bool(options.imports)
    settings = InputSettings(shapes=shapes, fixed=dict(options.fixed))
    source = open_source(job.model, options.signature, allow_unsafe=unsafe, settings=settings)
    events.read()
    for note in source.notes:
        events.say(note)
    if source.kind is not SourceKind.ONNX:  # which was imported at these sizes
        source = with_shapes(source, shapes)
    own, outputs = source.inputs, with_labels(source.outputs, options.labels)
    if options.preprocess is not None:
        twice = scaled_twice(source.model, options.preprocess.input_range)
        if twice:
            events.say(twice)
        source = with_preprocessing(source, options.preprocess)
    for note in check_trainable(source, options):
        events.say(note)
    whole = not has_batch_axis(source)
    looked_up = _looked_up(options, source, job.scratch, events)
    given = with_looked_up(options, looked_up)
    calibration = read_calibration(given, source.inputs, whole=whole)
    made_up = options.evaluation is None and calibration is None
    sizes = made_up_sizes(source, whole=whole) if made_up else {}
    samples = proof_samples(given, source.inputs, calibration, whole=whole, sizes=sizes, below=source.below)
    found = range_mismatch(
        source.call, source.inputs, calibration, samples, None if options.preprocess else source.model
    )
    if found is not None:
        raise found
    samples, expected, span = answers(source, samples, sizes)
    if source.judge is not None:
        source.judge(calls(source, samples.take(JUDGED)) if samples.real else ())
    if samples.whole and not whole:
        calibration = None if calibration is None else as_calls(calibration, source.inputs)
    if samples.whole:
        events.say(one_call_each(source.inputs))
    if not samples.real and (quiet := quiet_outputs(expected)):
        events.say(quiet)
    unused = check_labels(expected, samples, options.evaluation)
    if unused:
        events.say(unused)
    outputs = with_seen_shapes(source.inputs, outputs, expected, whole=samples.whole)
    for index, spec in enumerate(source.outputs):
        np.save(job.scratch / f"{index}.npy", expected[spec.name])
    formats, schemes = choose_formats_and_schemes(source, job.formats, options, events.say)
    plan = ConversionPlan(
        formats=formats,
        schemes=schemes,
        calibration=samples if calibration is None and source.states_ranges else calibration,
        samples=samples,
        expected=expected,
        own_inputs=own,
        journal=job.out.with_name(f"{job.out.name}.{JOURNAL}"),
        options=options,
    )
    log = FormLog(job.origin["file"], job.out, events.say, list(job.left_out), diary=job.scratch / DIARY)
    drafts = export_variants(source, plan, log, events.progress)
    signatures = _signatures(source, outputs, drafts, samples)
    name = options.name or Path(job.origin["file"]).stem
    variants = []
    for draft in drafts:
        files = draft.files
        # one that is taken as it is keeps what it says of itself
        if draft.variant.format is Format.TFLITE and plan.schemes is not None:
            facts = describe(name, [signatures[s] for s in _own_first(draft, source)], version=str(options.release))
            files = {path: with_metadata(content, facts) for path, content in files.items()}
        for path, content in files.items():
            (job.folder / path).parent.mkdir(exist_ok=True)
            (job.folder / path).write_bytes(content)
        for path, content in draft.beside.items():
            (job.scratch / path).write_bytes(content)
        variants.append(_sized(draft.variant, files))
    for path, content in source.files.items():
        (job.folder / path).write_bytes(content)
    manifest = Manifest(
        name=name,
        version=options.release,
        source=_origin(job.origin, source),
        files=file_entries(job.folder),
        signatures=signatures,
        variants=tuple(variants),
        weights=_weights(source, options),
        left_out=tuple(log.left_out),
        options=kept_options(options),
    )
    (job.folder / MANIFEST).write_bytes(manifest.to_bytes())
    named = named_ids(schemes, variants, options)
    made = {"whole": samples.whole, "span": span, "sizes": dict(sizes), "below": source.below}
    return {"signature": source.signature, "named": named, "looked_up": looked_up, **made}


def _looked_up(options: ConvertOptions, source: Source, scratch: Path, events: Events) -> dict[str, str]:
    """Where the data lie whose words were looked up, by the name of the option."""
    made: dict[str, str] = {}
    for name, path in (("calibration", options.calibration), ("evaluation", options.evaluation)):
        numbers = path if path is None else look_up(path, source, scratch / name)
        if numbers != path:
            made[name] = str(numbers)
    for file in dict.fromkeys(getattr(options, name).name for name in made):
        events.say(f"The words in {file} were looked up as the model does, and every form was given their numbers.")
    return made


def kept_options(options: ConvertOptions) -> dict[str, Any]:
    """What the manifest keeps of the options, as JSON: whoever converts new weights of the model needs the same."""
    found = {name: getattr(options, name) for name in (PREPROCESS, TRAINABLE)}
    return {name: json_value(one) for name, one in found.items() if one is not None}


def _origin(origin: Mapping[str, str], source: Source) -> dict[str, str]:
    """What the manifest says of the source: also what its proof is judged by."""
    rounds = {"rounds": source.rounds.value} if source.rounds else {}
    return {**origin, **rounds, **({"bounded": ",".join(source.bounded)} if source.bounded else {})}


def _sized(variant: Variant, files: Mapping[str, bytes]) -> Variant:
    """With the memory that it takes, where that can be told: of a .tflite whose tensors have fixed sizes."""
    if variant.format is not Format.TFLITE:
        return variant
    return replace(variant, requires=replace(variant.requires, ram_bytes=ram_bytes(files[variant.entry])))


def _own_first(draft: ExportedVariant, source: Source) -> list[str]:
    """The signatures of a variant, the source's own first: where two describe a tensor, it decides."""
    return sorted(draft.variant.signatures, key=lambda name: name != source.signature)


def _signatures(
    source: Source, outputs: tuple[TensorSpec, ...], drafts: Sequence[ExportedVariant], samples: Samples
) -> dict[str, Signature]:
    """The source's own signature, and those that only a .tflite with several has, read from its flatbuffer.

    The range of an input is what real samples of it span.
    """
    inputs = source.inputs
    if samples.real:
        spans = samples.spans()
        inputs = tuple(replace(t, range=spans[t.name]) for t in inputs)
    signatures = {source.signature: Signature(inputs, outputs)}
    for draft in drafts:
        if draft.variant.format is not Format.TFLITE or len(draft.variant.signatures) == 1:
            continue
        model = read_tflite(draft.files[draft.variant.entry])
        for signature in model.signatures:
            tensors = model.graphs[signature.graph].tensors
            sides = [
                tuple(TensorSpec(n, tensors[i].shape, tensors[i].dtype) for n, i in side.items())
                for side in (signature.inputs, signature.outputs)
            ]
            signatures.setdefault(signature.name, Signature(*sides))
    return signatures


def _weights(source: Source, options: ConvertOptions) -> tuple[Weight, ...]:
    last = options.trainable.train_last if options.trainable else None
    model = layered(source).model if options.trainable else source.model
    return weight_table(model, last) if model is not None else ()


def with_labels(outputs: tuple[TensorSpec, ...], labels: tuple[str, ...]) -> tuple[TensorSpec, ...]:
    """The only output with the names of its classes.

    Raises:
        OptionsError: Several outputs, or another number of classes.
    """
    if not labels:
        return outputs
    if len(outputs) != 1 or outputs[0].shape[-1] != len(labels):
        raise OptionsError(
            f"there are {len(labels)} labels, and the outputs are {[list(o.shape) for o in outputs]}",
            advice="Pass one label per class of a model with one output.",
        )
    return (replace(outputs[0], labels=labels),)
