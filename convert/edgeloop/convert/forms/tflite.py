"""A frozen graph in, .tflite bytes out: lowered once, calibrated once, quantized into as many schemes as asked."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from edgeloop.convert.forms.calibration import Calibration, calibrate
from edgeloop.convert.forms.freeze import FrozenGraph
from edgeloop.convert.forms.graph_nodes import change_advice, shapes_of
from edgeloop.convert.forms.nms_shape import with_batch_axis
from edgeloop.convert.forms.node_functions import ERFS, write_erfs
from edgeloop.convert.forms.node_substitutes import POOLS, write_pools
from edgeloop.convert.forms.quantize import IntegerFile, kept_in_float, not_in_integers, quantize, to_integers
from edgeloop.convert.forms.recipes import Io
from edgeloop.convert.sources.source import Source
from edgeloop.convert.sources.tflite_source import add_signature
from edgeloop.errors import ModelError, one_line
from edgeloop.extras import need

__all__ = [
    "Calibration",
    "IntegerFile",
    "Io",
    "calibrate",
    "kept_in_float",
    "lower",
    "not_in_integers",
    "quantize",
    "to_integers",
]


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

    def converted(graph: Any) -> bytes:
        return convert_graphdef(
            input_data=graph,
            input_tensors=tensors(frozen.inputs, source.inputs),
            output_tensors=tensors(frozen.outputs, source.outputs),
            target_ops=[tf.lite.OpsSet.TFLITE_BUILTINS],
            enable_composite_direct_lowering=True,  # as TFLiteConverter does
        )

    try:
        graph = _without_pools(frozen.graph)
        try:
            data = converted(graph)
        except Exception:
            if not any(node.op in ERFS for node in graph.node):
                raise
            data = _without_erf(graph, converted)
    except Exception as e:  # the converter's own error type is private to it
        raise ModelError(
            f"it cannot be lowered to builtin TFLite operators: {_ops(str(e))}",
            advice=change_advice(frozen.graph),
            where=str(source.path),
        ) from e
    if any(b"non_max_suppression" in f.attr["_implements"].s for f in frozen.graph.library.function):
        data = with_batch_axis(data)
    names = [t.name for t in source.inputs], [t.name for t in source.outputs]
    return add_signature(data, source.signature, source.path, names)


def _without_pools(graph: Any) -> Any:
    """The graph with poolings of images for those of volumes, which TFLite lacks."""
    if not any(node.op in POOLS for node in graph.node):
        return graph
    made = type(graph).FromString(graph.SerializeToString())
    write_pools(made, shapes_of(made))
    return made


def _without_erf(graph: Any, converted: Callable[[Any], bytes]) -> bytes:
    """As `converted` makes it of the graph without Erf and Erfc: first of those only that are not part of a GELU."""

    def without(*, gelu: bool) -> bytes:
        made = type(graph).FromString(graph.SerializeToString())
        write_erfs(made, gelu=gelu)
        return converted(made)

    try:
        return without(gelu=False)
    except Exception:  # the converter's own error type is private to it
        return without(gelu=True)


def _ops(message: str) -> str:
    """What the converter's page-long message says at its heart."""
    lines = [re.sub(r"^\S+:\d+:\d+: ", "", line.strip()) for line in message.splitlines()]
    if "TensorList" in message:
        return "a loop keeps a list of free size, which a fixed batch_size of the Input or unroll=True avoids"
    telling = [line for line in lines if "Flex ops:" in line or "custom op" in line.lower() or "error:" in line]
    return one_line((telling or [message])[0])
