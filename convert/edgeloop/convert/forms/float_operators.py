"""A quantized .tflite in; the operators that still compute in float out, with their layer and what to change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgeloop.files.flatbuffer import CONVERSIONS, SIZES, Graph, Operator, read_tflite

FLOATS = frozenset({"float32", "float16"})
# of operators for which TFLite has no integer kernel, or none that a quantizer uses; what can be done about them
ADVICE = {
    "SIN": "replace it by values computed before the model",
    "COS": "replace it by values computed before the model",
    "FLOOR": "move the rounding before the model",
    "CEIL": "move the rounding before the model",
    "ROUND": "move the rounding before the model",
    "POW": "write a whole power as a product",
    "CUMSUM": "move the running sum after the model",
    "LOCAL_RESPONSE_NORMALIZATION": "use batch normalization",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "unroll the layer (unroll=True)",
    "WHILE": "unroll the layer (unroll=True)",
    "CAST": "give the model its inputs in the type it computes with",
}
ELSE = "it has no integer kernel"


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatOperator:
    """One operator that stayed in float.

    Attributes:
        op: Its name in the schema, e.g. "SIN".
        layer: The Keras layer it comes from, as far as tensor names say; else its output tensor.
        advice: What to change in the model.
        more: How many operators of the same kind it stands for besides itself.
    """

    op: str
    layer: str
    advice: str
    more: int = 0

    def __str__(self) -> str:
        also = f" and {self.more} more" if self.more else ""
        advice = f" ({self.advice})" if self.advice else ""
        return f"{self.op} of {self.layer}{also} stayed in float{advice}"


def float_operators(data: bytes) -> tuple[FloatOperator, ...]:
    """Operators that touch a float tensor, in order, other than the conversions between float and integers.

    Raises:
        ModelError: The flatbuffer is damaged.
    """
    return tuple(
        FloatOperator(op=op.name, layer=_layer(graph, op), advice=ADVICE.get(op.name, ELSE))
        for graph in read_tflite(data).graphs
        for op in graph.operators
        if op.name not in CONVERSIONS and _is_float(graph, op)
    )


def listed(found: Sequence[FloatOperator]) -> str:
    """The operators for one sentence: each kind once, with its first layer, for an unrolled layer has hundreds."""
    kinds: dict[str, list[FloatOperator]] = {}
    for operator in found:
        kinds.setdefault(operator.op, []).append(operator)
    return "; ".join(str(replace(first, more=len(others))) for first, *others in kinds.values())


def _is_float(graph: Graph, op: Operator) -> bool:
    return op.name not in SIZES and any(graph.tensors[i].dtype in FLOATS for i in (*op.inputs, *op.outputs))


def _layer(graph: Graph, op: Operator) -> str:
    """`functional_1/conv2d_1/Relu;...` is from conv2d_1: the first part is the model, the last is the operation.

    Converters put a fused operator's names one after another with semicolons: the first is its output's.
    """
    name = graph.tensors[op.outputs[0]].name.split(";")[0] if op.outputs else op.name
    parts = name.split("/")
    return "/".join(parts[1:-1]) if len(parts) > 2 else name
