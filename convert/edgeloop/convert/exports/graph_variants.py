"""A frozen graph in, its ONNX and TF.js variants out."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from edgeloop.bundle import Format, Scheme
from edgeloop.convert.calls import fixed_batch
from edgeloop.convert.exports.variant import ExportedVariant, check_smaller, export_variant, no_smaller
from edgeloop.convert.form import Form, FormLog, onnx_forms, tfjs_form
from edgeloop.convert.forms import onnx
from edgeloop.convert.forms.float_operators import listed
from edgeloop.convert.forms.freeze import FrozenSource
from edgeloop.convert.forms.onnx_int8 import to_int8
from edgeloop.convert.forms.tfjs import to_tfjs
from edgeloop.convert.memory import give_back
from edgeloop.convert.plan import ConversionPlan
from edgeloop.convert.samples import Samples
from edgeloop.convert.sources.source import Source
from edgeloop.errors import ModelError
from edgeloop.progress import Progress

TFJS_SCHEMES = {"float32": Scheme.FLOAT32, "float16": Scheme.FLOAT16, "uint8": Scheme.DYNAMIC}


def onnx_variants(
    source: Source, frozen: FrozenSource | None, plan: ConversionPlan, log: FormLog, progress: Progress
) -> list[ExportedVariant]:
    if Format.ONNX not in plan.formats:
        return []
    made: list[ExportedVariant] = []
    forms = log.remaining(onnx_forms(plan.schemes or (), plan.options))
    if not forms or forms[0].scheme is not Scheme.FLOAT32:  # of which the others are made
        return []
    give_back()
    float32, *int8 = forms
    with log.leave_out(forms):
        if frozen is not None:
            data = onnx.to_onnx(frozen.functional, source)
        else:
            assert source.flatbuffer is not None  # a source has the one or the other
            data = onnx.tflite_to_onnx(source.flatbuffer, source)
        made.append(export_variant(float32.id, Format.ONNX, float32.scheme, (source.signature,), {"model.onnx": data}))
        for form in int8:
            assert plan.calibration is not None  # onnx_forms sees to it
            with log.leave_out([form]):
                # calibration data given for ONNX alone are for this one
                asked = form.named or plan.options.schemes is not None or Format.TFLITE not in plan.formats
                made.append(_onnx_int8(data, source, plan.calibration, form, log, asked=asked))
    return made


def _onnx_int8(
    data: bytes, source: Source, calibration: Samples, form: Form, log: FormLog, *, asked: bool = True
) -> ExportedVariant:
    """In int8, or in int8 and float, and then its scheme says so.

    Raises:
        ModelError: As `to_int8`; a part stayed in float, and the form was named; it saves nothing, and nobody asked
            for int8.
    """
    give_back()
    made = to_int8(data, calibration, fixed_batch(source.inputs))
    files: dict[str, bytes] = {"model-int8.onnx": made.data}
    if not asked:
        check_smaller(made.data, data)
    notes = no_smaller(made.data, data)
    if not made.left:
        return export_variant(form.id, Format.ONNX, form.scheme, (source.signature,), files, *notes)
    kept = listed(tuple(replace(operator, advice="") for operator in made.left))
    if form.named:
        raise ModelError(
            f"the model cannot be fully int8: {kept}",
            advice="Replace those operators, or leave out --strict: onnx-int8 is then int8 in part.",
        )
    log.say(f"{form.id} is int8 in part: {', '.join(dict.fromkeys(o.op for o in made.left))} stayed in float.")
    return export_variant(form.id, Format.ONNX, Scheme.MIXED, (source.signature,), files, f"int8, but {kept}", *notes)


def tfjs_variants(
    source: Source, frozen: FrozenSource | None, plan: ConversionPlan, log: FormLog, progress: Progress
) -> list[ExportedVariant]:
    if Format.TFJS not in plan.formats:
        return []
    assert frozen is not None  # wanted_formats sees to it
    form = tfjs_form(TFJS_SCHEMES[plan.options.tfjs.weights.value], plan.options)
    made: list[ExportedVariant] = []
    if not log.remaining([form]):
        return made
    give_back()
    with log.leave_out([form]), tempfile.TemporaryDirectory() as scratch:
        to_tfjs(frozen.lowered, source, Path(scratch), plan.options.tfjs)
        files = {f"tfjs/{path.name}": path.read_bytes() for path in sorted(Path(scratch).iterdir())}
        made.append(export_variant(form.id, Format.TFJS, form.scheme, (source.signature,), files))
    return made
