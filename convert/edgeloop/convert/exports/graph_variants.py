"""A frozen graph in, its ONNX and TF.js variants out."""

from __future__ import annotations

import tempfile
from pathlib import Path

from edgeloop.bundle import Format, Scheme
from edgeloop.convert.calls import fixed_batch
from edgeloop.convert.exports.variant import ExportedVariant, export_variant
from edgeloop.convert.form import FormLog, onnx_forms, tfjs_form
from edgeloop.convert.forms import onnx
from edgeloop.convert.forms.freeze import FrozenSource
from edgeloop.convert.forms.onnx_int8 import to_int8
from edgeloop.convert.forms.tfjs import to_tfjs
from edgeloop.convert.plan import ConversionPlan
from edgeloop.convert.sources.source import Source
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
                small = to_int8(data, plan.calibration, fixed_batch(source.inputs))
                files = {"model-int8.onnx": small}
                made.append(export_variant(form.id, Format.ONNX, form.scheme, (source.signature,), files))
    return made


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
    with log.leave_out([form]), tempfile.TemporaryDirectory() as scratch:
        to_tfjs(frozen.lowered, source, Path(scratch), plan.options.tfjs)
        files = {f"tfjs/{path.name}": path.read_bytes() for path in sorted(Path(scratch).iterdir())}
        made.append(export_variant(form.id, Format.TFJS, form.scheme, (source.signature,), files))
    return made
