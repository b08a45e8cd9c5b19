"""A source in, the files of its variants out, not yet proved: each with what the manifest will say of it."""

from __future__ import annotations

from edgeloop.convert.exports.graph_variants import onnx_variants, tfjs_variants
from edgeloop.convert.exports.tflite_variants import tflite_variants
from edgeloop.convert.exports.trainable_variant import trainable_variant
from edgeloop.convert.exports.variant import STEPS, ExportedVariant
from edgeloop.convert.form import FormLog
from edgeloop.convert.forms.freeze import freeze
from edgeloop.convert.memory import give_back
from edgeloop.convert.plan import ConversionPlan
from edgeloop.convert.sources.source import Source
from edgeloop.errors import ModelError
from edgeloop.progress import Progress


def export_variants(source: Source, plan: ConversionPlan, log: FormLog, progress: Progress) -> list[ExportedVariant]:
    """Make the forms of the plan, one after another. One that cannot be made is left out, unless it was named.

    Raises:
        ModelError: A form that was named, or every form, cannot hold the model.
    """
    frozen = freeze(source) if source.graph is not None else None
    give_back()  # copies of the graph, 0.2 GB of an OCR net of 54 MB
    made: list[ExportedVariant] = []
    progress("convert", 1, STEPS)
    makers = (tflite_variants, onnx_variants, tfjs_variants)
    for step, make in enumerate(makers, start=3):
        made += make(source, frozen, plan, log, progress)
        progress("convert", step, STEPS)
    if plan.options.trainable is not None:
        made.append(trainable_variant(source, plan))
    progress("convert", STEPS, STEPS)
    if not made and log.left_out:
        raise log.first or ModelError(log.left_out[-1].reason, advice="Change the model, or report the crash.")
    return made
