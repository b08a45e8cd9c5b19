"""An ONNX model in, a TensorFlow function out that computes the same: one small function for each operator.

Types: float16, bfloat16 and float64 are computed in float32, whole numbers in int32 (8 and 16 bits wrap as ONNX's do);
inputs and outputs keep ONNX's types and order of axes. A free dimension stays free. Source of what each operator
means: https://onnx.ai/onnx/operators/. `onnx.version_converter` fails on 98 of onnx's 697 node tests, so each function
reads "input, else attribute" instead.

Every time the function is traced its nodes are walked anew, with the sizes that the inputs then have: a size that is
fixed makes the arithmetic on shapes constant.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeloop.convert.onnx.dense_tail import DenseTail
from edgeloop.convert.onnx.fold import POLYNOMIAL, folded, followed, opset_of, refuse_large
from edgeloop.convert.onnx.node import Node
from edgeloop.convert.onnx.operators import MAKE_SEQUENCE, OPS
from edgeloop.convert.onnx.prepare import STANDARD, dimension_names, graphs, prepared, split_weights
from edgeloop.convert.onnx.value import COMPUTED_IN_FLOAT32, AtRunTime, Unsupported, Value, forget_sizes, working_type
from edgeloop.convert.sources.names import scope as scope_name
from edgeloop.errors import one_line
from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")
helper: Any = need("onnx.helper", extra="convert")
numpy_helper: Any = need("onnx.numpy_helper", extra="convert")

Sizes = Sequence[int | None]


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input: ONNX's name of it, sizes (None: free) and names of its dimensions in ONNX's order, and ONNX's type."""

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype
    names: tuple[str, ...]


class NodeRefused(Unsupported):
    """`Unsupported`, with the node it was found at.

    Attributes:
        found: What is not supported.
        where: Operator and name of the node, e.g. "Resize 'up/1'".
        cause: What the operator's function raised: `AtRunTime` where a fixed size or input may help.
    """

    def __init__(self, found: str, where: str, cause: Exception):
        super().__init__(f"{where} cannot be imported: {found}")
        self.found, self.where, self.cause = found, where, cause


class UnknownOperator(Unsupported):
    """No function here imports it."""


def import_onnx(
    model: Any,
    sizes: Mapping[str, Sizes] | None = None,
    weights: Mapping[str, np.ndarray] | None = None,
    *,
    widen: bool = False,
) -> OnnxFunction:
    """A function that computes what `model` (a ModelProto, which is not changed) does.

    Args:
        sizes: Shapes for inputs that have free dimensions; None in one, or no shape, leaves them free.
        weights: Constants that were taken out of the proto already (`prepare.split_weights`), by name.
        widen: Inputs and outputs of other floats become float32, in which they are computed with.

    Raises:
        Unsupported: The model has an operator without a function here, sparse weights, or an input or output that is
            no tensor.
    """
    ready = prepared(model, OPS)
    taken = split_weights(ready)
    return OnnxFunction(ready, {**taken, **(weights or {})}, sizes or {}, widen)


class OnnxFunction:
    """Call it with tensors in the order of `inputs`, while TensorFlow traces a function.

    Attributes:
        inputs: What it takes.
        outputs: ONNX's names of what it returns, in order.
        floats: Once it was called: names of the floats other than float32 that ONNX computes in.
    """

    def __init__(self, model: Any, weights: Mapping[str, np.ndarray], sizes: Mapping[str, Sizes], widen: bool):
        for sparse in model.graph.sparse_initializer:
            raise Unsupported(f"sparse weights ({sparse.values.name!r})")
        small = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self._model, self._constants, self._widen = model, {**small, **weights}, widen
        values = [v for v in model.graph.input if v.name not in self._constants]  # before IR 4 they are listed there
        self.inputs = tuple(input_tensor(value, sizes.get(value.name)) for value in values)
        self.outputs = tuple(map(output_name, model.graph.output))
        self.floats: frozenset[str] = frozenset()

    def __call__(self, *tensors: Any) -> list[Any]:
        """The outputs, in ONNX's types and order of axes.

        Raises:
            NodeRefused: A node cannot be imported.
        """
        return self.tensors(tensors, self.outputs)

    def made(self) -> dict[str, str]:
        """The tensors that the nodes of the main graph make, in order, each with operator and name of its node."""
        return {name: said(node) for node in self._model.graph.node for name in node.output if name}

    def dense_tail(self) -> DenseTail:
        """The fully connected layers that the main graph ends in."""
        return DenseTail(self._model.graph, self._constants)

    def tensors(self, fed: Sequence[Any], names: Sequence[str]) -> list[Any]:
        """As a call, but of any tensors of the main graph; None for one that is not computed."""
        forget_sizes()
        shapes = {t.name: tensor.shape.as_list() for t, tensor in zip(self.inputs, fed, strict=True)}
        importer = GraphImporter(self._model, shapes)
        scope = {name: Value(const=array) for name, array in self._constants.items()}
        for spec, tensor in zip(self.inputs, fed, strict=True):
            scope[spec.name] = Value(tf.cast(tensor, working_type(spec.dtype)), spec.dtype)
            scope[spec.name].names = importer.names.get(spec.name)
        importer.walk(self._model.graph, scope)
        self.floats = frozenset(importer.floats)
        found = [scope.get(name) for name in names]
        return [tf.identity(tf.cast(v.onnx(), self._end(v.dtype))) if isinstance(v, Value) else None for v in found]

    def specs(self, names: Sequence[str] | None = None) -> list[Any]:
        """TensorFlow's specification of every input, which is called input_0, ... without `names`."""
        names = names or [f"input_{i}" for i in range(len(self.inputs))]
        return [tf.TensorSpec(t.shape, self._end(t.dtype), name=n) for t, n in zip(self.inputs, names, strict=True)]

    def _end(self, dtype: np.dtype) -> Any:
        return tf.float32 if self._widen and dtype.name in COMPUTED_IN_FLOAT32 else tf.as_dtype(dtype)

    def traced(self) -> Any:
        """The concrete function, which takes the inputs by position."""

        def serve(*tensors: Any) -> dict[str, Any]:
            return {f"output_{i}": tensor for i, tensor in enumerate(self(*tensors))}

        return tf.function(serve, input_signature=self.specs(), autograph=False).get_concrete_function()


def output_name(value: Any) -> str:
    """Of the ValueInfoProto of an output.

    Raises:
        Unsupported: A sequence or a map, which no format that is written here can return.
    """
    kind = value.type.optional_type.elem_type if value.type.HasField("optional_type") else value.type
    if kind.HasField("sequence_type") or kind.HasField("map_type"):
        raise Unsupported(f"an output that is no tensor ({value.name!r})")
    return str(value.name)


def input_tensor(value: Any, fixed: Sizes | None) -> Tensor:
    """What the ValueInfoProto of an input says, with the sizes in `fixed`.

    Raises:
        Unsupported: A sequence, a map, an optional input, or a type that is not computed with.
    """
    if not value.type.HasField("tensor_type"):
        raise Unsupported(f"an input that is no tensor ({value.name!r})")
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        if fixed is None:
            raise AtRunTime(f"an input without a number of dimensions ({value.name!r})")
        shape, names = list(fixed), [""] * len(fixed)
    else:
        dims = tensor.shape.dim
        shape = [d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else None for d in dims]
        shape = [own if size is None else size for own, size in zip(shape, fixed or shape, strict=True)]
        names = [d.dim_param for d in dims]
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    working_type(dtype)
    return Tensor(value.name, tuple(shape), dtype, tuple(names))


def said(node: Any) -> str:
    """Operator and name of a node, for messages."""
    operator = full_name(node)
    return f"{operator} {node.name!r}" if node.name else operator


def full_name(node: Any) -> str:
    """An operator's name, behind that of its domain where that is not ONNX's own: com.microsoft.QGemm."""
    return str(node.op_type) if node.domain in STANDARD else f"{node.domain}.{node.op_type}"


def _scope(node: Any) -> str:
    return scope_name((node.name or node.op_type).strip("/") or "_")


class GraphImporter:
    """Walks a model's graphs.

    Attributes:
        names: What the free dimensions of the main graph's tensors are called (`prepare.dimension_names`).
        floats: The floats other than float32 that results have which are not constant.
    """

    def __init__(self, model: Any, shapes: dict[str, list[int | None]]):
        self.names = dimension_names(model, shapes)
        self.floats: set[str] = set()
        self._opsets = model.opset_import
        self._opset = opset_of(model.opset_import)
        nodes = [node for graph in graphs(model.graph) for node in graph.node]
        used = {name for node in nodes for name in node.input}
        used |= {value.name for graph in graphs(model.graph) for value in graph.output}
        self._useless = {name for node in nodes for name in node.output} - used | {""}

    def run(self, graph: Any, outer: Mapping[str, Any]) -> list[Any]:
        """Import a graph in an attribute; `outer` has what its nodes may name from outside. Its outputs."""
        scope: MutableMapping[str, Any] = ChainMap({}, outer)  # type: ignore[arg-type]
        scope.update({t.name: Value(const=numpy_helper.to_array(t)) for t in graph.initializer})
        self.walk(graph, scope)
        return [scope[value.name] for value in graph.output]

    def walk(self, graph: Any, scope: MutableMapping[str, Any]) -> None:
        """Import every node whose results are used, and put these into `scope`.

        Raises:
            NodeRefused: One cannot be imported.
        """
        for proto in graph.node:
            if self._useless.issuperset(proto.output):
                continue
            where = said(proto)
            try:
                with tf.name_scope(_scope(proto)):  # operators bear the name of their node, which messages say
                    self._node(proto, scope)
            except NodeRefused:
                raise
            except Unsupported as e:
                raise NodeRefused(str(e), where, e) from e
            except Exception as e:  # TensorFlow raises many types for what does not fit
                raise NodeRefused(f"{type(e).__name__}: {one_line(e, 300)}", where, e) from e

    def _node(self, proto: Any, scope: MutableMapping[str, Any]) -> None:
        operator = full_name(proto)
        if operator not in OPS:
            raise UnknownOperator("edgeloop does not have this operator")
        inputs = [scope[name] if name else None for name in proto.input]
        plain = all(isinstance(v, Value) or v is None for v in inputs)
        alone = plain and not any(a.HasField("g") for a in proto.attribute)  # no graph in it
        results: Any = None
        if alone and all(v is None or v.const is not None for v in inputs):
            results = folded(proto, inputs, self._opsets)
        if results is None:
            results = OPS[operator](Node(proto, inputs, self._opset, self, scope), *inputs)
        if proto.op_type in MAKE_SEQUENCE or not isinstance(results, tuple | list):
            results = (results,)
        if alone and proto.op_type in POLYNOMIAL and results[0].const is None and results[0].pair is None:
            results = (followed(proto, inputs, results[0], self._opsets), *results[1:])
        for name, value in zip(proto.output, results, strict=False):
            if name:
                self._describe(name, value)
                scope[name] = value

    def _describe(self, name: str, value: Any) -> None:
        """Refuse a tensor that is too large, note its type, and give its free dimensions their names."""
        if not isinstance(value, Value):
            return
        refuse_large(value.dims)
        if value.const is None and value.dtype.name in COMPUTED_IN_FLOAT32:
            self.floats |= {value.dtype.name} - {"float32"}
        names = self.names.get(name)
        if names is not None and len(names) == value.rank and value.names is None:
            value.names = names
