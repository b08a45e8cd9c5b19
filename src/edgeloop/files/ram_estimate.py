"""How much memory a process takes that runs a .tflite: the file in, an upper estimate out. Nothing is run or measured.

    base         Python, NumPy, edgeloop's agent, the runtime, and what the first model makes it load
    file         the model, mapped and read whole
    copies       weights as float32 where they are stored as float16 or int4; where XNNPACK computes, its packed copy
    pointers     XNNPACK's, from each output pixel of a convolution wider than 1 to its input pixels
    arena        activations and scratch, placed by lifetime, the largest first; every graph of the file keeps its own
    variables    what the graphs share and change: the weights of a model that trains
    ends         inputs and outputs on their way through the agent
    structures   what the runtime keeps of each tensor and operator

The larger of LiteRT, which computes with XNNPACK, and tflite-runtime 2.14, which by the memory it takes does not and
unrolls its convolutions instead. A free batch counts as 1. The planner is LiteRT's; the other parts are what fitted the
models in docs/bundle.md, which compares with what was measured.

Source: https://github.com/tensorflow/tensorflow (lite/arena_planner.cc; the alignment is that of lite/util.h)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgeloop.errors import ModelError
from edgeloop.files.arena import Buffer, plan
from edgeloop.files.flatbuffer import Graph, read_tflite
from edgeloop.files.graph_facts import GraphFacts, Step, facts
from edgeloop.runtime_table import LITERT, RUNTIMES, Runtime

Graphs = Sequence[tuple[Graph, GraphFacts]]
ESTIMATED = tuple(runtime for runtime in RUNTIMES.values() if runtime.base_bytes)

ALIGNMENT = 64  # kDefaultTensorAlignment
POINTER_BYTES = 8
HANDLES = frozenset({"resource", "variant"})  # a pointer to what lies elsewhere
COPIES_OF_ENDS = 4  # the frame, the array in it, the tensor, the array that is answered
# Fitted to what was measured: 300 convolutions of 900 tensors take 4 MB more than their buffers
TENSOR_BYTES, OPERATOR_BYTES = 2_000, 8_000
WINDOWED = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"})  # weights (outputs, height, width, inputs)
WEIGHTED = WINDOWED | {"FULLY_CONNECTED", "BATCH_MATMUL"}
HALVES = frozenset({"float16", "bfloat16"})
NARROW = HALVES | {"int4", "uint4", "int2"}
INTEGERS = frozenset({"int8", "uint8", "int4"})  # of weights and data that integer kernels multiply


@dataclass(frozen=True, slots=True, kw_only=True)
class RamEstimate:
    """Bytes of each part that the module's docstring names."""

    base: int
    file: int
    copies: int
    pointers: int
    arena: int
    variables: int
    ends: int
    structures: int

    @property
    def total(self) -> int:
        parts = (self.base, self.file, self.copies, self.pointers, self.arena, self.variables, self.ends)
        return sum(parts) + self.structures


def ram_bytes(data: bytes) -> int | None:
    """Upper estimate of the resident memory of a process that runs the .tflite `data` with one thread.

    Returns:
        Bytes of the whole process; None where a tensor has no fixed size, the batch aside.

    Raises:
        ModelError: `data` is no .tflite, or a damaged one.
    """
    try:
        needs = [need(data, runtime) for runtime in ESTIMATED]
    except (ValueError, IndexError) as e:  # options out of the file, operators without the inputs they must have
        raise ModelError(f"the model is a damaged .tflite file ({e})", advice="Fetch or convert it again.") from e
    known = [found.total for found in needs if found is not None]
    return max(known) if len(known) == len(needs) else None


def need(data: bytes, runtime: Runtime) -> RamEstimate | None:
    """As `ram_bytes`, in its parts, on one runtime."""
    model = read_tflite(data)
    graphs = [(graph, facts(graph, data)) for graph in model.graphs]
    arenas = [arena_bytes(graph, runtime) for _, graph in graphs]
    if None in arenas:
        return None
    packs = runtime.xnnpack
    ends = [_bytes(found, i) or 0 for _, found in graphs for i in (*found.inputs, *found.outputs)]
    return RamEstimate(
        base=runtime.base_bytes or 0,
        file=len(data),
        copies=_copies(graphs, packs),
        pointers=sum(_pointers(found, step) for _, found in graphs for step in found.steps) if packs else 0,
        # what loading took is free again when the arena is made
        arena=max(sum(size or 0 for size in arenas), _loading(graphs)),
        variables=max((_variables(found) for _, found in graphs), default=0),
        ends=COPIES_OF_ENDS * sum(ends),
        structures=sum(TENSOR_BYTES * len(g.values) + OPERATOR_BYTES * len(g.steps) for _, g in graphs),
    )


def arena_bytes(graph: GraphFacts, runtime: Runtime = LITERT) -> int | None:
    """Memory for the activations of a graph and its operators' scratch; None where a tensor has no fixed size.

    A tensor lives from the operator that writes it to the last that reads it; inputs, outputs and variables to the end.
    """
    end, elsewhere = len(graph.steps), _widened(graph)
    lives = [i for i, value in enumerate(graph.values) if value.variable]
    first = dict.fromkeys((*graph.inputs, *lives), 0)
    last = dict.fromkeys(first, end)
    for time, step in enumerate(graph.steps, start=1):
        for i in step.outputs:
            first.setdefault(i, time)
            last.setdefault(i, time)
        for i in step.inputs:
            last[i] = max(last.get(i, 0), time)
    last |= dict.fromkeys(graph.outputs, end)
    planned = [i for i in sorted(first) if not graph.values[i].constant_bytes and i not in elsewhere]
    sizes = {i: _bytes(graph, i) for i in planned}
    if None in sizes.values():
        return None
    buffers = [_buffer(size, first[i], last[i]) for i, size in sizes.items() if size]
    for time, step in enumerate(graph.steps, start=1):
        buffers += [_buffer(size, time, time) for size in _scratch(graph, step, runtime)]
    return plan(buffers)[1]


def _buffer(size_bytes: int, first: int, last: int) -> Buffer:
    return Buffer(size_bytes=-(-size_bytes // ALIGNMENT) * ALIGNMENT, first=first, last=last)


def _bytes(graph: GraphFacts, i: int) -> int | None:
    return POINTER_BYTES if graph.values[i].dtype in HANDLES else graph.values[i].bytes


def _variables(graph: GraphFacts) -> int:
    """What stands behind the handles that a graph reads and writes."""
    read = [i for step in graph.steps if step.op == "READ_VARIABLE" for i in step.outputs]
    written = [step.inputs[1] for step in graph.steps if step.op == "ASSIGN_VARIABLE"]
    return max(sum(graph.values[i].bytes or 0 for i in each) for each in (read, written))


def _widened(graph: GraphFacts) -> dict[int, str]:
    """Results of the operators that make float32 of a constant, and its dtype: made once, and kept."""
    steps = (step for step in graph.steps if step.op == "DEQUANTIZE" and step.inputs)
    return {s.outputs[0]: source.dtype for s in steps if (source := graph.values[s.inputs[0]]).constant_bytes}


def _loading(graphs: Graphs) -> int:
    """Measured: beside what is kept, the largest weight twice where it was float16, and once as int8 where int4."""
    sizes = [(g.values[i].bytes or 0, dtype) for _, g in graphs for i, dtype in _widened(g).items()]
    return max((2 * size if dtype in HALVES else size // 4 for size, dtype in sizes if dtype in NARROW), default=0)


def _copies(graphs: Graphs, packs: bool) -> int:
    """Weights that several operators or graphs share are copied once."""
    packed: dict[object, int] = {}
    for number, (graph, found) in enumerate(graphs):
        for step in found.steps:
            for i in step.inputs if step.op in WEIGHTED else ():
                value = found.values[i]
                size = value.elements if value.dtype in NARROW else value.constant_bytes
                if value.constant_bytes:
                    packed[graph.tensors[i].constant_at or (number, i)] = size
    widened = sum(found.values[i].bytes or 0 for _, found in graphs for i in _widened(found))
    return widened + (sum(packed.values()) if packs else 0)


def _pointers(graph: GraphFacts, step: Step) -> int:
    window = _window(graph, step)
    return POINTER_BYTES * window * _pixels(graph, step.outputs[0]) if window > 1 else 0


def _scratch(graph: GraphFacts, step: Step, runtime: Runtime) -> Iterator[int]:
    """What an operator needs while it runs: its input as integers, and, without XNNPACK, the input unrolled."""
    if step.op not in WEIGHTED or len(step.inputs) < 2:
        return
    transposed = step.op == "TRANSPOSE_CONV" and len(step.inputs) > 2  # (output shape, weights, input)
    place = step.inputs[1]
    data, weights = graph.values[step.inputs[2 if transposed else 0]], graph.values[place]
    hybrid = data.dtype == "float32" and weights.dtype in INTEGERS
    if hybrid:
        yield data.elements
    constant = weights.constant_bytes or place in _widened(graph)  # XNNPACK leaves what is not to the runtime's kernels
    if (runtime.xnnpack and constant) or step.op == "DEPTHWISE_CONV_2D" or _window(graph, step) == 1:
        return
    if transposed:
        yield 4 * _window(graph, step) * weights.shape[0] * _pixels(graph, step.inputs[2])  # float32 or int32 sums
    else:
        width = 1 if hybrid else (data.bytes or 0) // max(data.elements, 1)
        unrolled = width * _window(graph, step) * weights.shape[3] * _pixels(graph, step.outputs[0])
        yield unrolled
        if hybrid or data.dtype in INTEGERS:  # packed once more by the multiplication of integers, and its int32 sums
            yield unrolled + 4 * graph.values[step.outputs[0]].elements


def _window(graph: GraphFacts, step: Step) -> int:
    """Input pixels of one output pixel; 1 for what is no convolution."""
    shape = graph.values[step.inputs[1]].shape if step.op in WINDOWED and len(step.inputs) > 1 else ()
    return math.prod(shape[1:3]) if len(shape) == 4 else 1


def _pixels(graph: GraphFacts, i: int) -> int:
    """Of the image (batch, height, width, channels) `i`, one of the batch."""
    return math.prod(graph.values[i].shape[1:3])
