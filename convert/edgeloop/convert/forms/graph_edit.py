"""One graph of a .tflite as a tree of objects, with what changing its operators takes: makers, readers, constants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from edgeloop.extras import need

NUMPY = {
    0: np.float32,
    1: np.float16,
    2: np.int32,
    4: np.int64,
    6: np.bool_,
    7: np.int16,
    9: np.int8,
}  # the schema's TensorType


class GraphEdit:
    """A graph of the tree of `flatbuffer_tree.read_tree`. Tensors are named by position, operators are the tree's own.

    Attributes:
        changed: Whether any operator was changed.
    """

    def __init__(self, tree: Any, graph: Any) -> None:
        self.schema = need("ai_edge_litert.schema_py_generated", extra="convert")
        self.tree, self.graph, self.changed = tree, graph, False
        operators = vars(self.schema.BuiltinOperator).items()
        self._names = {code: name for name, code in operators if isinstance(code, int)}
        self._outputs = {*map(int, graph.outputs)}

    def operators(self, *kinds: str) -> list[Any]:
        """Those of these kinds, in order: a list, so that a rule may change the graph on its way."""
        return [op for op in self.graph.operators if self.kind(op) in kinds]

    def kind(self, op: Any) -> str:
        """`CONV_2D`."""
        code = self.tree.operatorCodes[op.opcodeIndex]
        return str(self._names.get(max(code.builtinCode, code.deprecatedBuiltinCode), "CUSTOM"))

    def activation(self, op: Any) -> int:
        """What is fused behind an operator. A file may leave options out, whose values are 0 then."""
        return int(op.builtinOptions.fusedActivationFunction) if op.builtinOptions is not None else 0

    def maker(self, tensor: int) -> Any | None:
        return next((op for op in self.graph.operators if tensor in op.outputs), None)

    def readers(self, tensor: int) -> list[Any]:
        return [op for op in self.graph.operators if tensor in op.inputs]

    def only_reader(self, tensor: int) -> Any | None:
        """The one operator that reads a tensor, once, and that is no output of the graph."""
        readers = self.readers(tensor)
        once = len(readers) == 1 and list(readers[0].inputs).count(tensor) == 1
        return readers[0] if once and not self.is_output(tensor) else None

    def is_output(self, tensor: int) -> bool:
        """Whether the graph itself gives it out."""
        return tensor in self._outputs

    def tensor(self, index: int) -> Any:
        return self.graph.tensors[index]

    def shape(self, index: int) -> list[int]:
        """With -1 where a dimension is free."""
        tensor = self.tensor(index)
        free = tensor.shapeSignature
        return [int(d) for d in (free if free is not None and len(free) else tensor.shape)]

    def has_free_shape(self, index: int) -> bool:
        """Whether the file says which dimensions are free: without that, fixed ones may be anything once resized."""
        free = self.tensor(index).shapeSignature
        return free is not None and len(free) > 0

    def is_float(self, index: int) -> bool:
        return bool(self.tensor(index).type == self.schema.TensorType.FLOAT32)

    def constant(self, index: int) -> np.ndarray | None:
        """A constant in its shape; None for a tensor that is computed, or of a type that no rule reads."""
        tensor = self.tensor(index)
        data = self.tree.buffers[tensor.buffer].data
        if data is None or len(data) == 0 or tensor.type not in NUMPY:
            return None
        return np.frombuffer(np.asarray(data, np.uint8).tobytes(), NUMPY[tensor.type]).reshape(tensor.shape)

    def add_constant(self, value: np.ndarray, name: bytes) -> int:
        """Its position."""
        kind = next(kind for kind, dtype in NUMPY.items() if dtype == value.dtype)
        self.tree.buffers.append(self.schema.BufferT(data=np.frombuffer(value.tobytes(), np.uint8)))
        made = self.schema.TensorT(shape=list(value.shape), type=kind, buffer=len(self.tree.buffers) - 1, name=name)
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def drop_value(self, index: int) -> None:
        """Make a constant a computed tensor, or one that nobody reads."""
        tensor = self.tensor(index)
        position, tensor.buffer = tensor.buffer, 0
        if all(t.buffer != position for graph in self.tree.subgraphs for t in graph.tensors):
            self.tree.buffers[position].data = None

    def add_like(self, index: int, type_: int, name: bytes) -> int:
        """A computed tensor in the shape of another one; its position."""
        tensor = self.tensor(index)
        made = self.schema.TensorT(shape=list(tensor.shape), type=type_, buffer=0, name=name)
        made.shapeSignature = tensor.shapeSignature
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def before(self, op: Any, kind: str, inputs: Sequence[int], name: str, options: Any = None) -> int:
        """A new operator before `op`; its output is like that of `op`, under its name and `name`."""
        like = int(op.outputs[0])
        made = self.add_like(like, self.tensor(like).type, self.tensor(like).name + b"/" + name.encode())
        self.insert(kind, inputs, made, options=options, before=op)
        return made

    def insert(
        self,
        kind: str,
        inputs: Sequence[int],
        answer: int,
        *,
        options: Any = None,
        version: int = 1,
        before: Any = None,
        after: Any = None,
    ) -> None:
        """A new operator between tensors, before or after another operator."""
        made = self.schema.OperatorT(outputs=[answer])
        self.become(made, kind, inputs, options, version)
        beside = before if before is not None else after
        place = next(i for i, op in enumerate(self.graph.operators) if op is beside) + (before is None)
        self.graph.operators.insert(place, made)

    def become(self, op: Any, kind: str, inputs: Sequence[int], options: Any = None, version: int = 1) -> None:
        """Make an operator another one with the same outputs."""
        code = int(getattr(self.schema.BuiltinOperator, kind))
        found = [
            i for i, c in enumerate(self.tree.operatorCodes) if max(c.builtinCode, c.deprecatedBuiltinCode) == code
        ]
        if not found:
            old = min(code, 127)
            made = self.schema.OperatorCodeT(builtinCode=code, deprecatedBuiltinCode=old, version=version)
            self.tree.operatorCodes.append(made)
            found = [len(self.tree.operatorCodes) - 1]
        op.opcodeIndex, op.inputs = found[0], list(inputs)
        name = type(options).__name__.removesuffix("T") if options is not None else "NONE"
        op.builtinOptionsType, op.builtinOptions = getattr(self.schema.BuiltinOptions, name), options
        self.changed = True

    def remove(self, *operators: Any) -> None:
        gone = {id(op) for op in operators}
        self.graph.operators = [op for op in self.graph.operators if id(op) not in gone]
        self.changed = True

    def read_instead(self, op: Any, tensor: int, other: int) -> None:
        """Let an operator read another tensor in place of one."""
        op.inputs = [other if i == tensor else i for i in op.inputs]
        self.changed = True

    def tidied(self) -> bool:
        """Whether the graph was changed; if so, what computes for nobody now is left out."""
        if not self.changed:
            return False
        needed, kept = set(self._outputs), []
        for op in reversed(self.graph.operators):
            if needed & {*map(int, op.outputs)} or self.kind(op) in MORE_THAN_ANSWERS:
                needed |= {int(i) for i in op.inputs}
                kept.append(op)
        self.graph.operators = kept[::-1]
        return True


MORE_THAN_ANSWERS = frozenset({"ASSIGN_VARIABLE", "WHILE", "IF", "CALL_ONCE", "CALL", "CUSTOM"})


def edits(tree: Any) -> Iterator[GraphEdit]:
    """Each graph of a tree."""
    for graph in tree.subgraphs:
        yield GraphEdit(tree, graph)


def without_unused_codes(tree: Any) -> Any:
    """A runtime refuses a file for a code that it does not know, though no operator has it."""
    operators = [op for graph in tree.subgraphs for op in graph.operators]
    used = sorted({op.opcodeIndex for op in operators})
    tree.operatorCodes = [tree.operatorCodes[i] for i in used]
    for op in operators:
        op.opcodeIndex = used.index(op.opcodeIndex)
    return tree
