"""The weights and values of a float32 .tflite in, what float16 cannot hold of them out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeloop.convert.forms.weighted import constant
from edgeloop.errors import ModelError
from edgeloop.extras import need
from edgeloop.files.flatbuffer import read_tflite

LARGEST = float(np.finfo(np.float16).max)  # 65504
SMALLEST = float(np.finfo(np.float16).smallest_normal)  # 6.1e-5; below, digits are lost, and below 6e-8 all of them
MASK = -1e9  # what is as low stands for minus infinity before a softmax, which float16 has
TABLE = "/float16"  # behind the name of an embedding's table
LOST = 0.1  # of a tensor's norm


def check_half(float32: bytes, float16: bytes) -> None:
    """Raises ModelError, naming the weight: it goes beyond float16, or is so small that float16 loses its digits.

    `float16` is the same model quantized. What stays float32 there may be of any size: a mask adds -1e9.
    """
    tensors = [t for graph in read_tflite(float16).graphs for t in graph.tensors if t.dtype == "float16"]
    halves = {t.name.removesuffix(TABLE) for t in tensors}
    schema = need("ai_edge_litert.schema_py_generated", extra="convert")
    model = schema.Model.GetRootAs(float32, 0)
    for graph in (model.Subgraphs(i) for i in range(model.SubgraphsLength())):
        for tensor in (graph.Tensors(i) for i in range(graph.TensorsLength())):
            name = (tensor.Name() or b"").decode("utf-8", "replace")
            if tensor.Type() != schema.TensorType.FLOAT32 or name not in halves:
                continue
            values = constant(model, float32, tensor).view(np.float32)
            if values.size:
                _check(name, values)


def values_beyond(ranges: Mapping[str, Mapping[str, np.ndarray]], outputs: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """What to say of the largest value, where float16 cannot hold it.

    A float16 .tflite has its weights in float16 alone: a CPU computes in float32 with them, and the proof passes.

    Args:
        ranges: What calibration saw, {tensor: {"min", "max"}}; empty without it.
        outputs: The source's answers.
    """
    spans = {name: (float(r["min"].min()), float(r["max"].max())) for name, r in ranges.items()}
    floats = {name: value for name, value in outputs.items() if value.dtype.kind == "f" and value.size}
    spans |= {name: (float(np.nanmin(value)), float(np.nanmax(value))) for name, value in floats.items()}
    reach = [(max(high, -low if low > MASK else 0.0), name) for name, (low, high) in spans.items()]
    largest, name = max(reach, default=(0.0, ""))
    if largest <= LARGEST:
        return ()
    return (
        f"values reach {largest:.3g} in {name!r}, and float16 ends at {LARGEST:.0f}: right where the runtime computes "
        "in float32, as on a CPU; infinite on a GPU that computes in float16",
    )


def _check(name: str, values: np.ndarray) -> None:
    largest = max(float(values.max()), -float(values.min()))
    if largest > LARGEST:
        raise ModelError(
            f"the weight {name!r} reaches {largest:.3g}, and float16 ends at {LARGEST:.0f}",
            advice="Leave float16 out of --schemes, or scale the weight in the model.",
        )
    if 0 < largest < SMALLEST:
        exact = values.astype(np.float64)
        lost = np.linalg.norm(exact - values.astype(np.float16)) / np.linalg.norm(exact)
        if lost > LOST:
            raise ModelError(
                f"the weight {name!r} reaches {largest:.3g} only, and float16 loses {lost:.0%} of it",
                advice="Leave float16 out of --schemes, or scale the weight in the model.",
            )
