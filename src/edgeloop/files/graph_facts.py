"""What the rules of a target look at: a graph's operators with shapes, dtypes, options and small constants.

A model reduces to this without its weights, so that the facts of a real model can be kept and scored where the model
itself cannot.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from edgeloop.files.flatbuffer import Graph, Operator, Tensor
from edgeloop.files.flatbuffer_table import FlatbufferTable
from edgeloop.files.schema import OPTIONS

VALUES_LIMIT = 16  # axes, paddings and slices; never weights
INTEGERS = {"int32": 4, "int64": 8}
BITS_OF = """
float64 64 int64 64 uint64 64 complex64 64 complex128 128 float32 32 int32 32 uint32 32 float16 16 bfloat16 16 int16 16
uint16 16 int8 8 uint8 8 bool 8 float8_e4m3fn 8 float8_e5m2 8 int4 4 uint4 4 int2 2
"""
BITS = dict(zip(BITS_OF.split()[::2], map(int, BITS_OF.split()[1::2]), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A tensor. `values` holds a small integer constant, `zero` says that a constant stands for nothing but zeros.

    `shape` is what the file allots: a free batch counts as 1, as the Edge TPU compiler and TensorFlow Lite Micro take
    it. `free` says that another dimension is free. `constant_bytes` is 0 for what is computed; `scales` counts the
    scales: 0 not quantized, 1, or one a channel.
    """

    shape: tuple[int, ...]
    dtype: str
    free: bool = False
    constant_bytes: int = 0
    values: tuple[int, ...] | None = None
    zero: bool = False
    scales: int = 0
    variable: bool = False

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int | None:
        """What it takes in memory; None where a dimension is free or the dtype has no size of its own."""
        bits = BITS.get(self.dtype)
        return None if self.free or bits is None else (self.elements * bits + 7) // 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """An operator. `options` has those of schema.OPTIONS that differ from 0."""

    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, int] = field(default_factory=dict)
    custom: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphFacts:
    """One graph: `steps` in the order they run, `inputs` and `outputs` as positions in `values`."""

    values: tuple[Value, ...]
    steps: tuple[Step, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def computed(self, step: Step) -> list[Value]:
        """The tensors of a step that are no constants: activations in, results out."""
        return [value for i in (*step.inputs, *step.outputs) if not (value := self.values[i]).constant_bytes]


def facts(graph: Graph, data: bytes) -> GraphFacts:
    """Reduce a graph that was read from the file `data`.

    Raises:
        ValueError: The options of an operator lie outside the file.
    """
    tables = FlatbufferTable(data, OPTIONS, len(data) + (1 << 20))
    return GraphFacts(
        values=tuple(_value(tensor, data) for tensor in graph.tensors),
        steps=tuple(_step(operator, tables) for operator in graph.operators),
        inputs=graph.inputs,
        outputs=graph.outputs,
    )


def _value(tensor: Tensor, data: bytes) -> Value:
    content = data[tensor.constant_at : tensor.constant_at + tensor.constant_bytes] if tensor.constant_at else b""
    width = 0 if tensor.scale else INTEGERS.get(tensor.dtype, 0)  # a bias has a scale
    small = width and content and len(content) <= VALUES_LIMIT * width
    cells = [content[i : i + width] for i in range(0, len(content), width)] if small else []
    zero = tensor.zero_point[0] & 0xFF if tensor.dtype in ("int8", "uint8") and tensor.zero_point else 0
    return Value(
        shape=tensor.sizes,
        dtype=tensor.dtype,
        free=None in tensor.shape[1:],
        constant_bytes=tensor.constant_bytes,
        values=tuple(int.from_bytes(cell, "little", signed=True) for cell in cells) if small else None,
        zero=bool(content) and content.count(zero) == len(content),
        scales=len(tensor.scale),
        variable=tensor.variable,
    )


def _step(operator: Operator, tables: FlatbufferTable) -> Step:
    known = not operator.custom and operator.options_at and operator.name in OPTIONS
    found = tables.table(operator.name, operator.options_at) if known else {}
    return Step(
        op=operator.name,
        inputs=operator.inputs,
        outputs=operator.outputs,
        options={name: value for name, value in found.items() if value},
        custom=operator.custom,
    )
