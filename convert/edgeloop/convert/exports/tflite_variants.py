"""A source in, its .tflite files out: lowered once, calibrated once, one file for each scheme."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from edgeloop.bundle import Format, Scheme, Variant
from edgeloop.convert.exports.lowering import lower_source
from edgeloop.convert.exports.search_variant import search_variant
from edgeloop.convert.exports.variant import STEPS, ExportedVariant, check_smaller, export_variant
from edgeloop.convert.form import Form, FormLog, tflite_forms
from edgeloop.convert.forms import tflite
from edgeloop.convert.forms.freeze import FrozenSource
from edgeloop.convert.forms.half import check_half, values_beyond
from edgeloop.convert.forms.recipes import Io
from edgeloop.convert.forms.tflite_file import float32_share, stored_scheme
from edgeloop.convert.options import MEASURED
from edgeloop.convert.plan import ConversionPlan, needs_ranges
from edgeloop.convert.sources.source import Source
from edgeloop.errors import ModelError
from edgeloop.files.flatbuffer import read_tflite
from edgeloop.progress import Progress, Say

SHARE_WORTH_A_NOTE = 0.25


def tflite_variants(
    source: Source, frozen: FrozenSource | None, plan: ConversionPlan, log: FormLog, progress: Progress
) -> list[ExportedVariant]:
    if Format.TFLITE not in plan.formats:
        return []
    if plan.schemes is None and source.flatbuffer is not None:
        scheme = stored_scheme(source.flatbuffer)
        names = tuple(s.name for s in read_tflite(source.flatbuffer).signatures)
        files = {f"{scheme.value}.tflite": source.flatbuffer}
        return [export_variant(scheme.value, Format.TFLITE, scheme, names, files)]
    planned = tflite_forms(plan.schemes or (), plan.options)
    forms = log.remaining(planned)
    made: list[ExportedVariant] = []
    if not forms and plan.options.search is None:
        return made
    crashed = set(planned) - set(forms)  # in an earlier attempt
    free = source
    with log.leave_out(forms):
        float32, source = lower_source(source, frozen, plan, log)
        progress("convert", 2, STEPS)
        measured = [form for form in forms if form.scheme in MEASURED]
        calibration = None
        if needs_ranges(plan) and plan.calibration is not None:
            with log.leave_out([] if plan.options.search else measured):
                calibration = tflite.calibrate(float32, source, plan.calibration, progress)
        job = _TfliteJob(source, float32, calibration, plan.expected, log.say)
        for form in forms:
            if form.scheme in MEASURED and calibration is None:
                continue
            with log.leave_out([form]):
                made.append(_tflite(job, form))
        # asked for nothing in particular: what int8 can hold in part is better than nothing in integers; a search sees
        # to that itself
        fallback = plan.options.schemes is None and plan.options.search is None and calibration is not None
        if (
            fallback
            and not any(one.scheme is Scheme.INT8 for one in crashed)
            and "int8" not in {v.variant.id for v in made}
        ):
            made += _mixed(job, log)
        if plan.options.search is not None:
            with log.making([]):
                made.append(search_variant(source, plan, float32, calibration, made, log, progress))
    return [replace(one, variant=_with_shapes(one.variant, free, source)) for one in made]


def _mixed(job: _TfliteJob, log: FormLog) -> list[ExportedVariant]:
    """What was made instead of int8, if that saves anything."""
    form = Form(id=Scheme.MIXED.value, format=Format.TFLITE, scheme=Scheme.MIXED)
    made: list[ExportedVariant] = []
    if not log.remaining([form]):
        return made
    with contextlib.suppress(ModelError), log.making([form]):  # why is said of int8 already
        one = _tflite(job, form)
        with log.leave_out([form]):
            check_smaller(one.files[one.variant.entry], job.float32)
            made.append(one)
            log.say(f"mixed was written instead of int8: {one.variant.notes[0]}.")
    return made


@dataclass(slots=True)
class _TfliteJob:
    """What every .tflite of one source is made of; int8 and mixed are one file, made once."""

    source: Source
    float32: bytes
    calibration: tflite.Calibration | None
    expected: Mapping[str, np.ndarray]
    say: Say
    integers: dict[tuple[Scheme, Io], tflite.IntegerFile] = field(default_factory=dict)

    def to_integers(self, scheme: Scheme, io: Io) -> tflite.IntegerFile:
        key = scheme, io
        if key not in self.integers:
            self.integers[key] = tflite.to_integers(self.float32, scheme, self.calibration, io=io)
        return self.integers[key]


def _tflite(job: _TfliteJob, form: Form) -> ExportedVariant:
    """One .tflite.

    Raises:
        ModelError: It cannot be made, or the scheme's name would promise what is not inside.
    """
    notes: tuple[str, ...] = ()
    if form.scheme is Scheme.MIXED:
        made = job.to_integers(Scheme.INT8, Io.FLOAT32)
        data, notes = made.data, (f"int8, but {tflite.kept_in_float(made)}", *made.notes)
    elif form.scheme in MEASURED:
        made = job.to_integers(form.scheme, form.io)
        if made.left:
            raise tflite.not_in_integers(made, form.scheme)
        data, notes = made.data, made.notes
    else:
        data = tflite.quantize(job.float32, form.scheme, job.calibration, io=form.io)
        if form.scheme is not Scheme.FLOAT32 and float32_share(data) >= SHARE_WORTH_A_NOTE:
            notes = (f"{float32_share(data):.0%} of the bytes of its constants stayed float32",)
    stored = stored_scheme(data)
    if stored is not form.scheme:  # without weights, or with small ones only
        raise ModelError(
            f"no operator of this model becomes {form.scheme.value}: the file would be {stored.value}",
            advice=f"Leave {form.scheme.value} out of --schemes.",
        )
    if form.scheme is Scheme.FLOAT16:
        check_half(job.float32, data)
        beyond = values_beyond(job.calibration.ranges if job.calibration else {}, job.expected)
        for note in beyond:
            job.say(f"{form.id}: {note}.")
        notes += beyond
    return export_variant(
        form.id, Format.TFLITE, form.scheme, (job.source.signature,), {f"{form.id}.tflite": data}, *notes
    )


def _with_shapes(variant: Variant, free: Source, own: Source) -> Variant:
    """The variant with the shapes that it does not share with the signature."""
    pairs = zip((*free.inputs, *free.outputs), (*own.inputs, *own.outputs), strict=True)
    shapes = {mine.name: mine.shape for spec, mine in pairs if spec.shape != mine.shape}
    if not shapes:
        return variant
    return replace(variant, shapes=shapes, notes=(*variant.notes, f"batch {own.inputs[0].shape[0]}"))
