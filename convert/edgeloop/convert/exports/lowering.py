"""A source in, its float32 .tflite out, at the batch that TFLite can run."""

from __future__ import annotations

import contextlib

import numpy as np

from edgeloop.convert.calls import fixed_batch, in_batches
from edgeloop.convert.form import FormLog
from edgeloop.convert.forms import tflite
from edgeloop.convert.forms.freeze import FrozenSource, at_batch, freeze
from edgeloop.convert.plan import ConversionPlan
from edgeloop.convert.sources.shapes import has_free_batch, with_batch
from edgeloop.convert.sources.source import Source
from edgeloop.convert.sources.tflite_source import tflite_call
from edgeloop.errors import ModelError, OptionsError

FUSED_SAMPLES = 16


def lower_source(
    source: Source, frozen: FrozenSource | None, plan: ConversionPlan, log: FormLog
) -> tuple[bytes, Source]:
    """The float32 .tflite, and the source at the batch that it has: TFLite runs no recurrent loop over a free batch.

    Raises:
        ModelError: TFLite cannot hold the model.
        OptionsError: --batch asks for a batch that the model cannot have.
    """
    if frozen is None:
        if plan.options.batch is not None:
            raise _no_such_batch(plan.options.batch, source)
        assert source.flatbuffer is not None  # a source has the one or the other
        return source.flatbuffer, source
    can_fix = has_free_batch(source.inputs) and not plan.samples.whole
    if plan.options.batch is not None:
        if not can_fix and plan.options.batch != fixed_batch(source.inputs):
            raise _no_such_batch(plan.options.batch, source)
        source = with_batch(source, plan.options.batch)
        return tflite.lower(at_batch(freeze(source), plan.options.batch), source), source
    try:
        return _with_fused(frozen, source, plan), source
    except ModelError:
        batch = 1 if can_fix else fixed_batch(source.inputs)
        if batch is None:
            raise
        own = with_batch(source, batch)
        # what this raises is the reason: with a free batch a loop is named first, whatever else is wrong
        data = tflite.lower(at_batch(frozen if own is source else freeze(own), batch), own)
    if can_fix:
        log.say(
            "The .tflite files have a fixed batch of 1, because TFLite cannot run this model with a free batch. "
            "Pass --batch N for another."
        )
    return data, own


def _with_fused(frozen: FrozenSource, source: Source, plan: ConversionPlan) -> bytes:
    """With fused operators where they compute what the source does; else with the loops that they stand for.

    NON_MAX_SUPPRESSION_V4 takes a box's corners in order, TensorFlow in any; the loop is 100 times the size.
    """
    if frozen.composite is not frozen.functional:
        with contextlib.suppress(ModelError):
            data = tflite.lower(frozen.composite, source)
            few = plan.samples.take(FUSED_SAMPLES)
            got = in_batches(tflite_call(data, source.signature, source.path), few, fixed_batch(source.inputs))
            if all(_equal(got[name], plan.expected[name][: len(few)]) for name in got):
                return data
    return tflite.lower(frozen.functional, source)


def _equal(got: np.ndarray, expected: np.ndarray) -> bool:
    atol = 1e-4 * float(np.abs(expected).max(initial=0))
    return got.shape == expected.shape and np.allclose(got, expected, rtol=0, atol=atol)


def _no_such_batch(batch: int, source: Source) -> OptionsError:
    shapes = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in source.inputs)
    return OptionsError(
        f"--batch is {batch}, and the model has no free batch that it could fix: {shapes}", advice="Leave --batch out."
    )
