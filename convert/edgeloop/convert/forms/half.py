"""The weights of a float32 .tflite in, a refusal where float16 cannot hold them out."""

from __future__ import annotations

import numpy as np

from edgeloop.convert.forms.weighted import constant
from edgeloop.errors import ModelError
from edgeloop.extras import need

LARGEST = float(np.finfo(np.float16).max)  # 65504
SMALLEST = float(np.finfo(np.float16).smallest_normal)  # 6.1e-5; below, digits are lost, and below 6e-8 all of them
LOST = 0.1  # of a tensor's norm


def check_half(float32: bytes) -> None:
    """Raises ModelError, naming the weight: it goes beyond float16, or is so small that float16 loses its digits."""
    schema = need("ai_edge_litert.schema_py_generated", extra="convert")
    model = schema.Model.GetRootAs(float32, 0)
    for graph in (model.Subgraphs(i) for i in range(model.SubgraphsLength())):
        for tensor in (graph.Tensors(i) for i in range(graph.TensorsLength())):
            if tensor.Type() != schema.TensorType.FLOAT32:
                continue
            values = constant(model, float32, tensor).view(np.float32)
            if values.size:
                _check(tensor.Name().decode("utf-8", "replace"), values)


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
