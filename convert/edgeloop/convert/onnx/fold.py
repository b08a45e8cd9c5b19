"""What is known while importing is computed while importing: operators of constants, and arithmetic on shapes.

Operators of constants are computed by onnx's reference implementation. Whole-number arithmetic on shapes is computed
twice, with two made-up sizes for every free dimension (`value.two_sizes`): what comes out equal both times does not
depend on them. Only operators that are polynomials in their inputs are followed that way. Two different polynomials
are equal at two such points by no coincidence that could be named; of Equal, Min or Div that is not so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeloop.convert.onnx.prepare import STANDARD
from edgeloop.convert.onnx.value import Pair, Unsupported, Value
from edgeloop.extras import need

onnx: Any = need("onnx", extra="convert")
helper: Any = need("onnx.helper", extra="convert")
reference: Any = need("onnx.reference", extra="convert")
shape_inference: Any = need("onnx.shape_inference", extra="convert")

LIMIT_ELEMENTS = 2**27  # of one tensor with fixed sizes: 512 MB of float32
SMALL = 64  # elements of an input that may be a shape
POLYNOMIAL = frozenset(
    {"Add", "Cast", "Concat", "Gather", "Identity", "Mul", "Neg", "Reshape", "Slice", "Squeeze", "Sub"}
    | {"Transpose", "Unsqueeze"}
)
# polynomials in their first input alone: the others say where, and a place beyond the end is cut to it
PLACED = frozenset({"Gather", "Reshape", "Slice", "Squeeze", "Unsqueeze"})
# not folded: another answer at every run
KEPT = frozenset({"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"})

# the opset from which the reference computes what ONNX says: it has their newest version alone, and an LRN that takes
# the batch for the number of channels
RIGHT_SINCE = {"Hardmax": 13, "LRN": math.inf, "LogSoftmax": 13, "Softmax": 13}


def folded(proto: Any, inputs: Sequence[Value | None], opsets: Sequence[Any]) -> list[Value | None] | None:
    """The outputs of a node whose inputs are constants. None: the reference lacks it; its own function is used.

    Raises:
        Unsupported: A result would have more than LIMIT_ELEMENTS elements.
    """
    if proto.op_type == "Identity":  # the constant itself: of a net that shares its layers' weights, 85 MB, not 640
        return list(inputs)
    if proto.op_type in KEPT or opset_of(opsets) < RIGHT_SINCE.get(proto.op_type, 0):
        return None
    arrays = [None if v is None else v.const for v in inputs]
    if not _fits(proto, arrays, opsets):
        return None
    try:
        results = evaluate(proto, arrays, opsets)
    except Exception:  # any type; the reference implements the newest version of some operators alone
        return None
    if not all(isinstance(array, np.ndarray | np.generic) for array in results):
        return None
    found = iter(results)
    return [Value(const=next(found)) if name else None for name in proto.output]


def followed(proto: Any, inputs: Sequence[Value | None], result: Value, opsets: Sequence[Any]) -> Value:
    """The result of a polynomial with its `pair`, or a constant where both are equal; unchanged if they are unknown."""
    if result.rank > 2 or result.dtype.kind == "b":  # of bool: any two sizes but 0 are equal
        return result
    pairs = [None if v is None else v.symbol() for v in inputs]
    if any(p is None and v is not None for p, v in zip(pairs, inputs, strict=True)):
        return result
    if proto.op_type in PLACED and any(p is not None and not np.array_equal(*p) for p in pairs[1:]):
        return result
    try:
        a, b = (np.asarray(evaluate(proto, [p and p[i] for p in pairs], opsets)[0]) for i in (0, 1))
    except Exception:  # any type; without a pair the tensor is computed on the device
        return result
    if a.shape != b.shape or (proto.op_type == "Cast" and _rounds(pairs[0] or (a, b), (a, b))):
        return result
    if (a == b).all():
        return Value(const=a.astype(result.dtype))
    return Value(result.raw(), result.dtype, result.perm, pair=(a, b))


def _rounds(before: Pair, after: Pair) -> bool:
    """Whether a Cast changed one of the numbers: the fraction that it cuts off is no polynomial."""
    return any(bool((b != a).any()) for a, b in zip(before, after, strict=True))


def evaluate(proto: Any, arrays: Sequence[np.ndarray | None], opsets: Sequence[Any]) -> list[Any]:
    """One node, by onnx's reference implementation; it raises all kinds of errors."""
    names = {name: array for name, array in zip(proto.input, arrays, strict=True) if name and array is not None}
    model = _of_one_node(proto, names, {}, opsets)
    return reference.ReferenceEvaluator(model).run(None, names)


def opset_of(opsets: Sequence[Any]) -> int:
    """The version of the standard operators, of a model's `opset_import`."""
    return next((int(o.version) for o in opsets if o.domain in STANDARD), 1)


def refuse_large(dims: Sequence[int | None]) -> None:
    """Refuse a tensor whose fixed sizes alone make it too large to be held.

    Raises:
        Unsupported: It has more than LIMIT_ELEMENTS elements.
    """
    total = math.prod(d for d in dims if d is not None)
    if total > LIMIT_ELEMENTS:
        raise Unsupported(f"a tensor of shape {[d or '?' for d in dims]}, more than {LIMIT_ELEMENTS} elements")


def _fits(proto: Any, arrays: Sequence[np.ndarray | None], opsets: Sequence[Any]) -> bool:
    """Whether the sizes of all outputs are known beforehand, and small enough; 50 bytes can ask for a terabyte."""
    names = {name: array for name, array in zip(proto.input, arrays, strict=True) if name and array is not None}
    shapes = {name: array for name, array in names.items() if array.size <= SMALL}
    try:
        model = shape_inference.infer_shapes(_of_one_node(proto, names, shapes, opsets), data_prop=True)
    except Exception:  # any type: of a damaged node, or a type that the inference lacks
        return False
    for value in model.graph.output:
        dims = value.type.tensor_type.shape.dim
        if not value.type.tensor_type.HasField("shape"):
            return False
        sizes = [d.dim_value if d.HasField("dim_value") else None for d in dims]
        refuse_large(sizes)
        if None in sizes and proto.op_type not in ("NonZero", "Compress", "Unique"):  # no larger than their input
            return False
    return True


def _of_one_node(proto: Any, inputs: dict[str, np.ndarray], constants: dict[str, np.ndarray], opsets: Any) -> Any:
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in inputs.items()
    ]
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    outputs = [onnx.ValueInfoProto(name=name) for name in proto.output if name]
    graph = helper.make_graph([proto], "g", infos, outputs, tensors)
    return helper.make_model(graph, opset_imports=opsets)
