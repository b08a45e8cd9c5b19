"""A scheme in, the quantizer's recipe for it out.

Sources
    quantizer   https://github.com/google-ai-edge/ai-edge-quantizer (recipes)
    int8 spec   https://ai.google.dev/edge/litert/models/quantization_spec
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Any

from edgeloop.bundle import Scheme
from edgeloop.errors import OptionsError
from edgeloop.extras import need
from edgeloop.files.flatbuffer import read_tflite

KEPT = frozenset({Scheme.FLOAT32, Scheme.FLOAT16, Scheme.INT16X8})  # what an operator may keep
# two patterns for every operator: the recipe's last pattern wins, and keeps its place by its text
EVERY, ENDS = ".*", ""


class Io(enum.Enum):
    """What the inputs and outputs of an int8 file hold."""

    FLOAT32 = "float32"
    INT8 = "int8"


def recipe(float32: bytes, scheme: Scheme, io: Io, keep: Mapping[str, Scheme]) -> Any:
    """The rules for `float32` in `scheme`, but for the operators in `keep`, named by their first output tensor.

    Raises:
        OptionsError: A scheme that is none to quantize into or to keep, int8 ends of another scheme than int8, or a
            name that no operator of `float32` has.
    """
    if scheme not in RULES:
        raise OptionsError(f"the quantizer has no scheme {scheme.value}", advice=f"Choose from {_names(RULES)}.")
    if io is Io.INT8 and scheme is not Scheme.INT8:
        raise OptionsError(
            f"{scheme.value} files have float32 inputs and outputs",
            advice="Use int8 inputs and outputs with the scheme int8 only.",
        )
    if not KEPT.issuperset(keep.values()):
        raise OptionsError(
            f"an operator cannot keep {_names(set(keep.values()) - KEPT)}", advice=f"Choose from {_names(KEPT)}."
        )
    manager = need("ai_edge_quantizer.recipe_manager", extra="convert").RecipeManager()
    operation = need("ai_edge_quantizer.qtyping", extra="convert").TFLOperationName
    RULES[scheme](manager, EVERY)
    for scope, kept in _scopes(float32, keep).items():
        # where the kept scheme has no rule for the op (float16 has none without weights), the last rule that has one
        # counts: without this line it would be int8 again. Another pattern, because a second rule replaces the first.
        _leave(manager, f"^{re.escape(scope)}$")
        RULES[kept](manager, f"^{re.escape(scope)}\\Z")
    for end in (operation.INPUT, operation.OUTPUT):  # after the kept ones: the last operator has its output's name
        if io is Io.INT8:
            manager.add_static_config(ENDS, end, 8, 8)
        else:
            _leave(manager, ENDS, end)
    return manager.get_quantization_recipe()


def _scopes(float32: bytes, keep: Mapping[str, Scheme]) -> dict[str, Scheme]:
    """What the quantizer calls the operators: the names of all their outputs, each with a semicolon behind it."""
    if not keep:
        return {}
    scopes = {}
    for graph in read_tflite(float32).graphs:
        for op in graph.operators:
            names = [graph.tensors[i].name for i in op.outputs]
            scopes[names[0]] = "".join(f"{name};" for name in names)
    missing = sorted(keep.keys() - scopes.keys())
    if missing:
        raise OptionsError(f"no operator has the first output {missing[0]!r}", advice="Name one of the float32 file.")
    return {scopes[name]: scheme for name, scheme in keep.items()}


def _leave(manager: Any, pattern: str, operation: Any = None) -> None:
    names = need("ai_edge_quantizer.algorithm_manager", extra="convert").AlgorithmName
    every = need("ai_edge_quantizer.qtyping", extra="convert").TFLOperationName.ALL_SUPPORTED
    manager.add_quantization_config(pattern, operation or every, algorithm_key=names.NO_QUANTIZE)


def _float16(manager: Any, pattern: str) -> None:
    names = need("ai_edge_quantizer.algorithm_manager", extra="convert").AlgorithmName
    manager.add_weight_only_config(pattern, _operation().ALL_SUPPORTED, 16, algorithm_key=names.FLOAT_CASTING)


def _dynamic(manager: Any, pattern: str) -> None:
    """int8 weights, float activations. The granularity is per op, because a runtime may ignore it in silence.

    Measured on one digits model, outputs against the source: FULLY_CONNECTED per channel is right on LiteRT 2.3
    (45.9 dB) and garbage on tflite-runtime 2.14 (0.6 dB); DEPTHWISE_CONV_2D per tensor is garbage on both. Per channel
    with per-tensor FULLY_CONNECTED is right on both.
    """
    granularity = need("ai_edge_quantizer.qtyping", extra="convert").QuantGranularity
    manager.add_dynamic_config(pattern, _operation().ALL_SUPPORTED, 8, granularity.CHANNELWISE)
    manager.add_dynamic_config(pattern, _operation().FULLY_CONNECTED, 8, granularity.TENSORWISE)


def _int8(manager: Any, pattern: str) -> None:
    _integers(manager, pattern, 8)


def _int16x8(manager: Any, pattern: str) -> None:
    _integers(manager, pattern, 16)


def _integers(manager: Any, pattern: str, bits: int) -> None:
    """Activations of so many bits and int8 weights.

    LiteRT 2.3 reads one scale of BATCH_MATMUL's matrices: ten of [9, 4], a locally connected layer, answer at 0.2 dB
    with a scale for each of the four columns, and at 29.7 dB with one for all.
    """
    granularity = need("ai_edge_quantizer.qtyping", extra="convert").QuantGranularity
    manager.add_static_config(pattern, _operation().ALL_SUPPORTED, bits, 8)
    manager.add_static_config(pattern, _operation().BATCH_MATMUL, bits, 8, granularity.TENSORWISE)


def _int4(manager: Any, pattern: str) -> None:
    """int4 weights behind a DEQUANTIZE. Output SNR in dB on LiteRT 2.3, biases corrected, ResNet8 and two digits nets:

    weight-only OCTAV 6.2, 10.4, 33.2; min-max 5.3, 9.1, 32.0; MSE 5.0, 15.3, 29.5; dynamic OCTAV 6.2, 10.5, 33.1.
    tflite-runtime 2.14 refuses to load the weight-only ones, and answers NaN or garbage (0.5 dB) with the dynamic ones.
    Blockwise ones, which crash it, are never written.
    """
    names = need("ai_edge_quantizer.algorithm_manager", extra="convert").AlgorithmName
    manager.add_weight_only_config(pattern, _operation().ALL_SUPPORTED, 4, algorithm_key=names.OCTAV)


def _operation() -> Any:
    return need("ai_edge_quantizer.qtyping", extra="convert").TFLOperationName


def _names(schemes: Any) -> str:
    return ", ".join(sorted(scheme.value for scheme in schemes))


RULES = {
    Scheme.FLOAT32: _leave,
    Scheme.FLOAT16: _float16,
    Scheme.DYNAMIC: _dynamic,
    Scheme.INT8: _int8,
    Scheme.INT16X8: _int16x8,
    Scheme.INT4: _int4,
}
