"""A frozen graph in, .tflite bytes out: lowered once, calibrated once, quantized into as many schemes as asked."""

from __future__ import annotations

import contextlib
import copy
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.bundle import Scheme
from edgeloop.convert.calls import fixed_batch
from edgeloop.convert.forms.bias import channel_means, correct_biases
from edgeloop.convert.forms.ends import with_outputs
from edgeloop.convert.forms.float_operators import float_operators, listed
from edgeloop.convert.forms.freeze import FrozenGraph
from edgeloop.convert.forms.pooling import pools_as_means
from edgeloop.convert.forms.ranges import useful
from edgeloop.convert.forms.recipes import Io, recipe
from edgeloop.convert.forms.rounding import InputMoments, int8_steps, round_weights, watched
from edgeloop.convert.forms.weighted import inputs_of, read, weighted
from edgeloop.convert.samples import Samples
from edgeloop.convert.sources.source import Source
from edgeloop.convert.sources.tflite_source import add_signature
from edgeloop.errors import ModelError, OptionsError, one_line
from edgeloop.extras import need
from edgeloop.progress import Progress, silent

BATCH, BATCH_BYTES = 16, 1 << 18  # a calibration batch: as many samples, but no more bytes
INTEGER = frozenset({Scheme.INT8, Scheme.INT16X8})
# 16 bits have room for values beyond those of the samples. ResNet8 calibrated on one photograph, on plain crops of
# others: 19.8 dB without, 22.1 dB with it. int8 has no room: 1.1 cost it 1 dB on resized crops.
MARGIN = np.float32(4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What real inputs told about a float32 flatbuffer, enough for every scheme.

    Attributes:
        ranges: Smallest and largest value by tensor name: {"min": [1], "max": [1]}, float32.
        means: Mean input of the operators with weights by the input's tensor name: float64 [channels].
        factors: Which of their inputs go together, as `rounding.Inputs.factors` gives it.
        steps: Their int8 weights rounded with that, at one scale per output channel, by the weights' name.
    """

    ranges: Mapping[str, Mapping[str, np.ndarray]]
    means: Mapping[str, np.ndarray]
    factors: Mapping[str, np.ndarray] = field(default_factory=dict)
    steps: Mapping[str, np.ndarray] = field(default_factory=dict)


def lower(frozen: FrozenGraph, source: Source) -> bytes:
    """A float32 flatbuffer with the source's signature; free dimensions stay free.

    Raises:
        ModelError: An op without a builtin TFLite form, which no device runtime could run.
    """
    tf = need("tensorflow", extra="convert")
    # TFLiteConverter would freeze and import the graph once more, and unpack the result three times to find equal
    # buffers and write metadata: on MobileNetV2 1.1 CPU seconds, 0.3 this way
    from tensorflow.lite.python.convert import convert_graphdef

    def tensors(names: tuple[str, ...], specs: Any) -> list[Any]:
        return [tf.TensorSpec(s.shape, s.dtype, name=n) for n, s in zip(names, specs, strict=True)]

    try:
        data = convert_graphdef(
            input_data=frozen.graph,
            input_tensors=tensors(frozen.inputs, source.inputs),
            output_tensors=tensors(frozen.outputs, source.outputs),
            target_ops=[tf.lite.OpsSet.TFLITE_BUILTINS],
            enable_composite_direct_lowering=True,  # as TFLiteConverter does
        )
    except Exception as e:  # the converter's own error type is private to it
        raise ModelError(
            f"it cannot be lowered to builtin TFLite operators: {_ops(str(e))}",
            advice="Change that part of the model.",
            where=str(source.path),
        ) from e
    names = [t.name for t in source.inputs], [t.name for t in source.outputs]
    return add_signature(data, source.signature, source.path, names)


def calibrate(float32: bytes, source: Source, samples: Samples, progress: Progress = silent) -> Calibration:
    """Run the model over all `samples`, once for every scheme. A few of them are in memory at a time.

    Raises:
        ModelError: The quantizer cannot run the model.
    """
    calibrator = need("ai_edge_quantizer.calibrator", extra="convert")
    utils = need("ai_edge_quantizer.utils.qsv_utils", extra="convert")
    manager = need("ai_edge_quantizer.recipe_manager", extra="convert").RecipeManager()
    manager.load_quantization_recipe(need("ai_edge_quantizer.recipe", extra="convert").static_wi8_ai8())
    float32 = pools_as_means(float32)
    fixed = fixed_batch(source.inputs)
    sample_bytes = sum(array[:1].nbytes for array in samples.inputs.values())
    size = samples.at_once(fixed or max(1, min(BATCH, BATCH_BYTES // sample_bytes)))
    with _quiet(), _quantizer("the model"):
        # min_max_update: the default moving average gave 16.9 dB of output SNR where plain extremes gave 31.2.
        # One thread: the profiler looks for extremes in one, and a second only waits for it (12% more CPU, no faster).
        runner = calibrator.Calibrator(
            float32,
            num_threads=1,
            qsv_update_func=utils.min_max_update,
            mode=calibrator.CalibrationMode.CALIBRATION_PROFILER_BASED,
        )
        for done, batch in enumerate(samples.batches(size, fill=fixed is not None), start=1):
            # a list of one: the calibrator takes len(list(dataset)) of what it is given
            runner.calibrate({source.signature: [batch]}, manager)
            progress("calibrate", min(len(samples), done * size), len(samples))
        model, graph = read(float32)
        tensors, inputs = {op.input for op in weighted(model, graph)}, InputMoments(float32)
        seen = inputs_of(float32, tensors, source.signature, samples, size, fill=fixed is not None)
        means = channel_means(watched(seen, inputs))
    ranges = {  # the profiler answers in float64: as float32, its ranges equal those of the slow mode to the bit
        name: {bound: np.asarray(value[bound], np.float32) for bound in ("min", "max")}
        for name, value in runner.get_model_qsvs().items()
        if value
    }
    factors = inputs.factors()
    return Calibration(
        ranges=useful(float32, ranges),
        means={graph.Tensors(i).Name().decode(): mean for i, mean in means.items()},
        factors=factors,
        steps=int8_steps(float32, factors),
    )


def quantize(
    float32: bytes,
    scheme: Scheme,
    calibration: Calibration | None = None,
    *,
    io: Io = Io.FLOAT32,
    keep: Mapping[str, Scheme] = {},
) -> bytes:
    """The flatbuffer in another scheme; its inputs and outputs stay float32, unless `io` says int8.

    Args:
        calibration: Needed by int8 and int16x8, and by what keeps int16x8; the other integer weights gain by it.
        keep: What an operator, named by its first output tensor in `float32`, keeps instead: float32, float16, int16x8.

    Raises:
        ModelError: Without `keep`, an op that int8 or int16x8 was promised for stayed in float.
        OptionsError: Calibration is missing, or `io` and `keep` do not go with the scheme and the model.
    """
    if scheme is Scheme.FLOAT32 and not keep and io is Io.FLOAT32:
        return float32
    quantizer = need("ai_edge_quantizer.quantizer", extra="convert")
    if scheme in INTEGER:
        float32 = pools_as_means(float32)
    rules = recipe(float32, scheme, io, keep)
    with _quiet(), _quantizer(scheme.value):
        job = quantizer.Quantizer(float32, rules)
    if job.need_calibration and calibration is None:
        raise OptionsError(f"{scheme.value} needs real inputs to measure ranges with", advice="Call calibrate first.")
    # quantize() writes into the ranges it is given
    ranges = copy.deepcopy(calibration.ranges) if job.need_calibration and calibration is not None else None
    if ranges is not None and scheme is Scheme.INT16X8:
        ranges = {name: {bound: MARGIN * value for bound, value in both.items()} for name, both in ranges.items()}
    with _quiet(), _quantizer(scheme.value):
        result = job.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    data = with_outputs(bytes(result.quantized_model), float32, io)
    if calibration is not None:
        data = round_weights(data, float32, calibration.factors, calibration.steps)
        data = correct_biases(data, float32, calibration.means)
    if scheme in INTEGER and not keep:
        left = float_operators(data)
        if left:
            raise ModelError(
                f"the model cannot be fully {scheme.value}: {listed(left)}",
                advice=f"Change these operators, or leave {scheme.value} out of --schemes.",
            )
    return data


def _ops(message: str) -> str:
    """What the converter's page-long message says at its heart."""
    lines = [re.sub(r"^\S+:\d+:\d+: ", "", line.strip()) for line in message.splitlines()]
    if "TensorList" in message:
        return "a recurrent layer has a free batch, which a fixed batch_size of its Input or unroll=True avoids"
    telling = [line for line in lines if "Flex ops:" in line or "custom op" in line.lower() or "error:" in line]
    return one_line((telling or [message])[0])


@contextlib.contextmanager
def _quantizer(what: object) -> Iterator[None]:
    try:
        yield
    except Exception as e:  # it raises RuntimeError, ValueError, KeyError and its runtime's own
        raise ModelError(f"the quantizer fails on {what} ({one_line(e, 200)})", advice="Choose another scheme.") from e


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer draws progress bars on stdout and stderr; a command's stdout is one document."""
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield
