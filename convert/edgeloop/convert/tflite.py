"""A frozen graph in, .tflite bytes out: lowered once, calibrated once, quantized into as many schemes as asked.

Sources
    int8 spec   https://ai.google.dev/edge/litert/models/quantization_spec
    quantizer   https://github.com/google-ai-edge/ai-edge-quantizer (recipes)
"""

from __future__ import annotations

import contextlib
import copy
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.answer import Progress, silent
from edgeloop.bundle import Scheme
from edgeloop.convert.batches import batches
from edgeloop.convert.source import Source
from edgeloop.convert.tflite_source import add_signature
from edgeloop.edge.flatbuffer import float_operators
from edgeloop.errors import ModelError
from edgeloop.extras import need

CHUNK = 16  # calibration feeds this many at a time: the calibrator takes len(list(dataset)) of what it is given

Ranges = Mapping[str, Mapping[str, np.ndarray]]


def lower(frozen: Any, source: Source) -> bytes:
    """A float32 flatbuffer with the source's signature; free dimensions stay free.

    Raises:
        ModelError: An op without a builtin TFLite form, which no device runtime could run.
    """
    tf = need("tensorflow", extra="convert")
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    try:
        data = converter.convert()
    except Exception as e:  # the converter's own error type is private to it
        raise ModelError(f"{source.path} does not lower to builtin TFLite ops: {_ops(str(e))}") from e
    names = [t.name for t in source.inputs], [t.name for t in source.outputs]
    return add_signature(data, source.signature, source.path, names)


def calibrate(float32: bytes, source: Source, samples: Mapping[str, np.ndarray], progress: Progress = silent) -> Ranges:
    """Smallest and largest value of every tensor over `samples` {input: [n, ...]}, fed one batch of the model's own
    size at a time.

    Raises:
        ModelError: The quantizer cannot run the model.
    """
    calibrator = need("ai_edge_quantizer.calibrator", extra="convert")
    utils = need("ai_edge_quantizer.utils.qsv_utils", extra="convert")
    manager = need("ai_edge_quantizer.recipe_manager", extra="convert").RecipeManager()
    manager.load_quantization_recipe(need("ai_edge_quantizer.recipe", extra="convert").static_wi8_ai8())
    # min_max_update: the default moving average gave 16.9 dB of output SNR where plain extremes gave 31.2
    runner = calibrator.Calibrator(
        float32,
        num_threads=2,
        qsv_update_func=utils.min_max_update,
        mode=calibrator.CalibrationMode.CALIBRATION_PROFILER_BASED,
    )
    count = len(next(iter(samples.values())))
    fed = list(batches(samples, source.inputs[0].shape[0], size=1))
    for start in range(0, len(fed), CHUNK):
        with _quiet(), _quantizer(source.path):
            runner.calibrate({source.signature: fed[start : start + CHUNK]}, manager)
        progress("calibrate", min(count, (start + CHUNK) * count // len(fed)), count)
    ranges = runner.get_model_qsvs().items()
    return {  # the profiler answers in float64: as float32, its ranges equal those of the slow mode to the bit
        name: {bound: np.asarray(value[bound], np.float32) for bound in ("min", "max")}
        for name, value in ranges
        if value
    }


def quantize(float32: bytes, scheme: Scheme, ranges: Ranges | None) -> bytes:
    """The flatbuffer in another scheme. Inputs and outputs stay float32, so callers never handle scales.

    Raises:
        ModelError: An op that int8 was promised for stayed in float.
    """
    if scheme is Scheme.FLOAT32:
        return float32
    quantizer = need("ai_edge_quantizer.quantizer", extra="convert")
    job = quantizer.Quantizer(float32, RECIPES[scheme]())
    # quantize() writes into the ranges it is given
    given = copy.deepcopy(ranges) if job.need_calibration else None
    with _quiet(), _quantizer(Path(scheme.value)):
        result = job.quantize(given, enable_progress_bar=False, enable_progress_report=False)
    data = bytes(result.quantized_model)
    if scheme is Scheme.INT8:
        left = sorted(set(float_operators(data)))
        if left:
            raise ModelError(
                f"cannot be fully int8: {', '.join(left)} stayed float32. "
                "Replace those ops, or leave int8 out of --schemes."
            )
    return data


def _float16() -> Any:
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    recipe, operation, _ = _recipe()
    recipe.add_weight_only_config(".*", operation.ALL_SUPPORTED, 16, algorithm_key=AlgorithmName.FLOAT_CASTING)
    return recipe.get_quantization_recipe()


def _dynamic() -> Any:
    """int8 weights, float activations. The granularity is per op, because a runtime may ignore it in silence.

    Measured on one digits model, outputs against the source: FULLY_CONNECTED per channel is right on LiteRT 2.3
    (45.9 dB) and garbage on tflite-runtime 2.14 (0.6 dB); DEPTHWISE_CONV_2D per tensor is garbage on both. Per channel
    with per-tensor FULLY_CONNECTED is right on both.
    """
    recipe, operation, granularity = _recipe()
    recipe.add_dynamic_config(".*", operation.ALL_SUPPORTED, 8, granularity.CHANNELWISE)
    recipe.add_dynamic_config(".*", operation.FULLY_CONNECTED, 8, granularity.TENSORWISE)
    return recipe.get_quantization_recipe()


def _int8() -> Any:
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    recipe, operation, _ = _recipe()
    recipe.add_static_config(".*", operation.ALL_SUPPORTED, 8, 8)
    for end in (operation.INPUT, operation.OUTPUT):
        recipe.add_quantization_config(".*", end, algorithm_key=AlgorithmName.NO_QUANTIZE)
    return recipe.get_quantization_recipe()


def _recipe() -> tuple[Any, Any, Any]:
    types = need("ai_edge_quantizer.qtyping", extra="convert")
    manager = need("ai_edge_quantizer.recipe_manager", extra="convert").RecipeManager()
    return manager, types.TFLOperationName, types.QuantGranularity


RECIPES = {Scheme.FLOAT16: _float16, Scheme.DYNAMIC: _dynamic, Scheme.INT8: _int8}


def _ops(message: str) -> str:
    """What the converter's page-long message says at its heart."""
    lines = [re.sub(r"^\S+:\d+:\d+: ", "", line.strip()) for line in message.splitlines()]
    if "TensorList" in message:
        return "a recurrent layer with a free batch. Give its Input a fixed batch_size, or unroll=True."
    telling = [line for line in lines if "Flex ops:" in line or "custom op" in line.lower() or "error:" in line]
    return " ".join((telling or [message])[0].split())[:300]


@contextlib.contextmanager
def _quantizer(what: Path) -> Iterator[None]:
    try:
        yield
    except Exception as e:  # it raises RuntimeError, ValueError, KeyError and its runtime's own
        raise ModelError(f"{what}: the quantizer refuses it ({' '.join(str(e).split())[:200]}).") from e


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer draws progress bars on stdout and stderr; a command's stdout is one document."""
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield
