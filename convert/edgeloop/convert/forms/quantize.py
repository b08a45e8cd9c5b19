"""A float32 .tflite in, the same in another scheme out.

ai-edge-quantizer makes every scheme. What it leaves in float of int8 and int16x8, TFLiteConverter's own quantizer tries
on the same ranges; weights and biases are rounded alike for both.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from edgeloop.bundle import Scheme
from edgeloop.convert.forms.bias import correct_biases
from edgeloop.convert.forms.calibration import Calibration, quantizer_errors, quiet
from edgeloop.convert.forms.ends import with_outputs
from edgeloop.convert.forms.float_operators import FloatOperator, float_operators, listed
from edgeloop.convert.forms.int16_graph import LEAST, MARGIN
from edgeloop.convert.forms.integer_kernels import in_integers
from edgeloop.convert.forms.joins import with_joined_ranges
from edgeloop.convert.forms.masks import Ranges, with_near_masks
from edgeloop.convert.forms.recipes import Io, recipe
from edgeloop.convert.forms.rewrite import for_integers
from edgeloop.convert.forms.rewrite_int16 import for_int16, with_small_powers
from edgeloop.convert.forms.rounding import round_weights
from edgeloop.convert.forms.second_quantizer import NAME, quantize_otherwise
from edgeloop.convert.forms.tables import with_small_tables
from edgeloop.errors import ModelError, OptionsError
from edgeloop.extras import need
from edgeloop.files.flatbuffer import read_tflite

INTEGER = frozenset({Scheme.INT8, Scheme.INT16X8})


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegerFile:
    """A .tflite in int8 or int16x8.

    Attributes:
        left: What stayed in float; empty: nothing.
        notes: Which quantizer made it and why, where that is not ai-edge-quantizer.
    """

    data: bytes
    left: tuple[FloatOperator, ...]
    notes: tuple[str, ...] = ()


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
    if scheme not in INTEGER or keep:
        return _first(float32, scheme, calibration, io, keep)
    made = to_integers(float32, scheme, calibration, io=io)
    if made.left:
        raise not_in_integers(made, scheme)
    return made.data


def not_in_integers(made: IntegerFile, scheme: Scheme) -> ModelError:
    """The error of a file that was promised in integers alone."""
    return ModelError(
        f"the model cannot be fully {scheme.value}: {listed(made.left)}",
        advice=f"Change these operators, ask for --schemes mixed, or leave {scheme.value} out of --schemes.",
    )


def kept_in_float(made: IntegerFile) -> str:
    """`CONV_3D of conv3d and 2 more stayed in float`, for a note."""
    return listed(tuple(replace(operator, advice="") for operator in made.left))


def to_integers(float32: bytes, scheme: Scheme, calibration: Calibration | None, *, io: Io = Io.FLOAT32) -> IntegerFile:
    """`float32` in int8 or int16x8, as far as there are integer kernels.

    Raises:
        ModelError: Neither quantizer makes a file of it.
        OptionsError: Calibration is missing, or `io` does not go with the scheme.
    """
    first: IntegerFile | None = None
    refusal: ModelError | None = None
    try:
        data = _first(float32, scheme, calibration, io, {})
        first = IntegerFile(data=data, left=float_operators(data))
    except ModelError as e:
        refusal = e
    assert calibration is not None  # _first refuses it
    if first is not None and not first.left:
        return first
    why = f"ai-edge-quantizer has no rule for {_kinds(first.left)}" if first else "ai-edge-quantizer refuses the model"
    try:
        data = _second(for_integers(float32), scheme, calibration, io)
        second = IntegerFile(
            data=data, left=float_operators(data), notes=(f"quantized by {NAME}'s quantizer, because {why}",)
        )
    except ModelError as e:
        if first is None:
            raise refusal or e from e
        return first
    if first is None or calibration.probe is None:
        return second
    probe = calibration.probe
    closeness = {id(made): probe.snr_db(made.data) for made in (first, second)}
    if not second.left and closeness[id(second)] > -math.inf:  # int16x8 of it may have no kernel either
        return second
    return max((first, second), key=lambda made: closeness[id(made)])


def first_outputs(data: bytes) -> set[str]:
    """Names of every operator's first output, which a search calls the operator by."""
    return {graph.tensors[op.outputs[0]].name for graph in read_tflite(data).graphs for op in graph.operators}


def _first(
    float32: bytes, scheme: Scheme, calibration: Calibration | None, io: Io, keep: Mapping[str, Scheme]
) -> bytes:
    """As `quantize`, with ai-edge-quantizer; operators that it has no rule for stay in float."""
    quantizer = need("ai_edge_quantizer.quantizer", extra="convert")
    ranges = None if calibration is None else calibration.ranges
    if scheme in INTEGER:
        given, float32 = float32, for_integers(float32)
        if ranges is not None:
            float32, ranges = _ready(float32, ranges, scheme)
        gone = first_outputs(given) - first_outputs(float32) if keep else set()  # now part of another operator
        keep = {name: kept for name, kept in keep.items() if name not in gone}
    rules = recipe(float32, scheme, io, keep)
    with quiet(), quantizer_errors(scheme.value):
        job = quantizer.Quantizer(float32, rules)
    if job.need_calibration and calibration is None:
        raise OptionsError(f"{scheme.value} needs real inputs to measure ranges with", advice="Call calibrate first.")
    # quantize() writes into the ranges it is given
    ranges = copy.deepcopy(ranges) if job.need_calibration else None
    with quiet(), quantizer_errors(scheme.value):
        result = job.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    data = with_outputs(bytes(result.quantized_model), float32, io)
    if scheme in INTEGER:
        data = in_integers(data)
    data = with_small_tables(data, scheme)
    return _rounded(data, float32, calibration) if calibration is not None else data


def _second(float32: bytes, scheme: Scheme, calibration: Calibration, io: Io) -> bytes:
    """With TFLiteConverter's quantizer."""
    float32, ranges = _ready(float32, calibration.ranges, scheme)
    data = in_integers(quantize_otherwise(float32, ranges, scheme, io))
    return _rounded(data, float32, calibration)


def _ready(float32: bytes, ranges: Ranges, scheme: Scheme) -> tuple[bytes, Ranges]:
    """What the quantizers get: rewritten by what the ranges say, and these as wide as the scheme wants them."""
    float32, ranges = with_near_masks(float32, ranges)
    if scheme is Scheme.INT8:
        float32, ranges = with_small_powers(float32, ranges)
        ranges = with_joined_ranges(float32, ranges)
    if scheme is Scheme.INT16X8:
        float32, ranges = for_int16(float32, ranges)
        ranges = {name: {"min": MARGIN * r["min"], "max": MARGIN * _above(r)} for name, r in ranges.items()}
    return float32, ranges


def _above(both: Mapping[str, np.ndarray]) -> np.ndarray:
    """The largest value; of a tensor that was 0 throughout, more: LiteRT ends the process where a scale is 0."""
    return np.where((both["min"] == 0) & (both["max"] == 0), np.float32(LEAST), both["max"])


def _rounded(data: bytes, float32: bytes, calibration: Calibration) -> bytes:
    data = round_weights(data, float32, calibration.factors, calibration.steps)
    return correct_biases(data, float32, calibration.means)


def _kinds(left: tuple[FloatOperator, ...]) -> str:
    return ", ".join(dict.fromkeys(operator.op for operator in left))
