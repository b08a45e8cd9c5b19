"""A Keras model in, the .tflite that devices train out."""

from __future__ import annotations

from edgeloop.bundle import TRAINABLE, Format, Scheme
from edgeloop.convert.exports.variant import ExportedVariant, export_variant
from edgeloop.convert.forms.preprocess import preprocess_tensors
from edgeloop.convert.options import ConvertOptions
from edgeloop.convert.plan import ConversionPlan
from edgeloop.convert.sources.source_value import Source, layered
from edgeloop.convert.training.trainable import check_options, to_trainable
from edgeloop.errors import ModelError
from edgeloop.files.flatbuffer import read_tflite


def check_trainable(source: Source, options: ConvertOptions) -> tuple[str, ...]:
    """What keeps `source` from training on a device, before anything costs time.

    Returns:
        What a user should know, one line each.

    Raises:
        ModelError, OptionsError: As `to_trainable`.
    """
    if options.trainable is None:
        return ()
    source = layered(source)
    if source.model is None:
        raise ModelError(
            f"{source.path} can be read by tf-keras only, and --trainable needs a Keras 3 model",
            advice="Save it again as .keras, or leave --trainable out.",
        )
    idle = check_options(source.model, options.trainable, source.inputs)
    if not idle:
        return ()
    return (f"Training on a device runs {', '.join(idle)} as inference does: it does not augment or draw noise.",)


def trainable_variant(source: Source, plan: ConversionPlan) -> ExportedVariant:
    assert plan.options.trainable is not None
    inside = plan.options.preprocess
    prepare = None if inside is None else lambda values: preprocess_tensors(inside, values, plan.own_inputs)
    data = to_trainable(layered(source).model, plan.options.trainable, preprocess=prepare, inputs=source.inputs)
    names = tuple(s.name for s in read_tflite(data).signatures)
    note = "every signature runs at the batch of train"
    return export_variant(TRAINABLE, Format.TFLITE, Scheme.FLOAT32, names, {"trainable.tflite": data}, note)
