"""What TensorFlow Lite Micro's interpreter keeps for a model besides the activations: the tail of its arena.

Every structure is counted as the interpreter allocates it, in its order and with its alignments. Sizes are those of
x86-64 and of the package's build, which can read compressed models; pointers of a 32-bit core take half.

Source: https://github.com/tensorflow/tflite-micro at 90b983c2b3f1 (2026-08-20): micro_allocator.cc,
micro_interpreter.cc, and in kernels/*.cc what Init and Prepare allocate; sizes by the compiler's sizeof.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgeloop.files.graph_facts import GraphFacts, Step, Value

# RecordingSingleArenaBufferAllocator, GreedyMemoryPlanner, RecordingMicroAllocator
ALLOCATORS_BYTES = (104, 72, 272)
BUILTIN_DATA_BYTES, SUBGRAPH_BYTES, EVAL_TENSOR_BYTES, NODE_BYTES = 16, 24, 24, 64
TENSOR_BYTES, QUANTIZATION_BYTES, POINTER_BYTES, HANDLE_BYTES = 64, 24, 8, 8
RESOURCES_BYTES, RESOURCE_BYTES = 16, 40
BUFFER_ALIGNMENT = 16  # of what a kernel asks for
SOFTMAX_TABLE_BYTES = 2 * 513
BATCH_MATMUL_QUANTIZATION_BYTES = 28
FULLY_CONNECTED_BYTES = 32  # 16 in that source; the package of RESOLVER, two months newer, takes 32, seen on 78 models

# operator: bytes of its options, of what its kernel keeps, how many scratch buffers it asks for
SIZES = """
ABS 0 28 0; ADD 8 60 0; ADD_N 0 0 1; ARG_MAX 4 0 0; ARG_MIN 4 0 0; ASSIGN_VARIABLE 0 4 0; AVERAGE_POOL_2D 40 32 0;
BATCH_MATMUL 3 32 0; BATCH_TO_SPACE_ND 0 0 0; BROADCAST_ARGS 0 0 0; BROADCAST_TO 0 0 0; CALL_ONCE 4 8 0; CAST 8 0 0;
CEIL 0 0 0; CONCATENATION 8 80 0; CONV_2D 28 80 0; COS 0 0 0; CUMSUM 2 0 0; DEPTHWISE_CONV_2D 28 80 0;
DEPTH_TO_SPACE 4 0 0; DEQUANTIZE 0 32 0; DIV 4 28 0; DYNAMIC_UPDATE_SLICE 0 0 0; ELU 0 256 0; EMBEDDING_LOOKUP 0 16 0;
EQUAL 0 32 0; EXP 0 0 0; EXPAND_DIMS 0 0 0; FILL 0 0 0; FLOOR 0 0 0; FLOOR_DIV 0 0 0; FLOOR_MOD 0 0 0;
FULLY_CONNECTED 32 72 0; GATHER 8 0 0; GATHER_ND 0 0 0; GREATER 0 32 0; GREATER_EQUAL 0 32 0; HARD_SWISH 0 20 0;
IF 8 8 0; L2_NORMALIZATION 4 4 0; L2_POOL_2D 40 0 0; LEAKY_RELU 4 24 0; LESS 0 32 0; LESS_EQUAL 0 32 0; LOG 0 0 0;
LOGICAL_AND 0 0 0; LOGICAL_NOT 0 0 0; LOGICAL_OR 0 0 0; LOGISTIC 0 16 0; LOG_SOFTMAX 0 0 0; MAXIMUM 0 0 0;
MAX_POOL_2D 40 32 0; MEAN 1 44 2; MINIMUM 0 0 0; MIRROR_PAD 4 20 2; MUL 4 36 0; NEG 0 0 0; NOT_EQUAL 0 32 0;
PACK 8 0 0; PAD 0 52 0; PADV2 0 52 0; PRELU 0 28 0; QUANTIZE 0 32 0; READ_VARIABLE 0 0 0; REDUCE_ALL 1 44 2;
REDUCE_MAX 1 44 2; REDUCE_MIN 1 44 2; RELU 0 28 0; RELU6 0 8 0; RESHAPE 36 0 0; RESIZE_BILINEAR 2 0 0;
RESIZE_NEAREST_NEIGHBOR 2 0 0; REVERSE_V2 0 0 0; ROUND 0 0 0; RSQRT 0 28 0; SELECT_V2 0 1 0; SHAPE 4 0 0; SIN 0 0 0;
SLICE 0 0 0; SOFTMAX 4 80 0; SPACE_TO_BATCH_ND 0 4 0; SPACE_TO_DEPTH 4 0 0; SPLIT 4 0 0; SPLIT_V 4 0 0; SQRT 0 0 0;
SQUARE 0 0 0; SQUARED_DIFFERENCE 0 112 0; SQUEEZE 36 0 0; STRIDED_SLICE 24 84 0; SUB 8 52 0; SUM 1 44 2; SVDF 12 36 1;
TANH 0 16 0; TRANSPOSE 0 0 0; TRANSPOSE_CONV 20 88 0; UNIDIRECTIONAL_SEQUENCE_LSTM 16 688 4; UNPACK 8 0 0;
VAR_HANDLE 16 4 0; WHILE 8 8 0; ZEROS_LIKE 0 0 0; TFLite_Detection_PostProcess 0 112 11
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelSizes:
    """Of one operator, in bytes; `scratch` counts its scratch buffers, whose handles are kept."""

    options_bytes: int
    kept_bytes: int
    scratch: int

    @property
    def options_alignment(self) -> int:
        if self.options_bytes == FULLY_CONNECTED_BYTES:  # the only ones with a pointer among them
            return 8
        return 4 if self.options_bytes % 4 == 0 else 1


KERNELS = {
    name: KernelSizes(options_bytes=int(options), kept_bytes=int(kept), scratch=int(scratch))
    for name, options, kept, scratch in (row.split() for row in SIZES.split(";"))
}
CHANNELS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"})
NEW_SHAPE = frozenset({"BATCH_MATMUL", "DEPTH_TO_SPACE", "EMBEDDING_LOOKUP", "GATHER", "GATHER_ND"}) | {
    "L2_POOL_2D",
    "SPACE_TO_DEPTH",
}
INTEGERS = ("int8", "int16")


def unknown_kernels(graphs: Sequence[GraphFacts]) -> list[str]:
    """Operators whose kernels are not in the table, sorted by name."""
    return sorted({step.op for graph in graphs for step in graph.steps if step.op not in KERNELS})


def persistent_bytes(graphs: Sequence[GraphFacts]) -> int | None:
    """The tail of the arena for all graphs of a file, of which the first runs; None: a kernel is not in the table."""
    if unknown_kernels(graphs):
        return None
    total = 0
    for size, alignment in _allocations(graphs):
        total = -(-(total + size) // alignment) * alignment
    return total


def _allocations(graphs: Sequence[GraphFacts]) -> Iterator[tuple[int, int]]:
    """(bytes, alignment) in the interpreter's order."""
    steps = [(graph, step) for graph in graphs for step in graph.steps]
    yield from ((size, 8) for size in ALLOCATORS_BYTES)
    if resources := len({step.outputs for _, step in steps if step.op == "VAR_HANDLE"}):
        yield RESOURCES_BYTES, BUFFER_ALIGNMENT
        yield RESOURCE_BYTES * resources, BUFFER_ALIGNMENT
    yield BUILTIN_DATA_BYTES, 8
    yield SUBGRAPH_BYTES * len(graphs), 8
    yield from ((EVAL_TENSOR_BYTES * len(graph.values), 8) for graph in graphs)
    yield from ((NODE_BYTES * len(graph.steps), 8) for graph in graphs)
    sizes = [KERNELS[step.op] for _, step in steps]
    yield from ((size.options_bytes, size.options_alignment) for size in sizes if size.options_bytes)
    yield from ((size.kept_bytes, BUFFER_ALIGNMENT) for size in sizes if size.kept_bytes)
    yield from ((size, BUFFER_ALIGNMENT) for graph, step in steps for size in _prepared(graph, step))
    handles = sum(KERNELS[step.op].scratch + _more_scratch(graph, step) for graph, step in steps)
    yield HANDLE_BYTES * handles, 8
    variables = (value for graph in graphs for value in graph.values if value.variable)
    yield from ((value.bytes or 0, BUFFER_ALIGNMENT) for value in variables)
    for ends in (graphs[0].inputs, graphs[0].outputs):
        yield POINTER_BYTES * len(ends), BUFFER_ALIGNMENT
        for end in ends:
            yield TENSOR_BYTES, 8
            if scales := graphs[0].values[end].scales:
                yield QUANTIZATION_BYTES, 8
                yield 4 + 4 * scales, 4


def _prepared(graph: GraphFacts, step: Step) -> Iterator[int]:
    """What a kernel allocates by the shapes and types of its tensors."""
    inputs = [graph.values[i] for i in step.inputs]
    output = graph.values[step.outputs[0]] if step.outputs else None
    quantized = bool(inputs) and inputs[0].dtype in INTEGERS
    if step.op in CHANNELS:
        filters = inputs[1].shape
        yield from [4 * filters[-1 if step.op == "DEPTHWISE_CONV_2D" else 0]] * 2
    if step.op == "FULLY_CONNECTED" and quantized and inputs[1].scales > 1:
        yield from [4 * inputs[1].scales] * 2
    if step.op == "ADD_N" and quantized:
        yield 40
    if step.op == "LOG_SOFTMAX" and quantized:
        yield 40
    if step.op == "CUMSUM" and quantized:
        yield 36
    if step.op == "SOFTMAX" and inputs[0].dtype == "int16":
        yield from [SOFTMAX_TABLE_BYTES] * 2
    if step.op == "ASSIGN_VARIABLE":
        yield inputs[1].bytes or 0
    if step.op == "BATCH_MATMUL":
        yield from [BATCH_MATMUL_QUANTIZATION_BYTES] * quantized
        yield from _transposed(inputs[0]) if step.options.get("adj_x") else ()
        yield from () if step.options.get("adj_y") else _transposed(inputs[1])
    if step.op in NEW_SHAPE and output is not None:
        yield 4 + 4 * len(output.shape)


def _transposed(value: Value) -> Iterator[int]:
    yield EVAL_TENSOR_BYTES
    yield 4 + 4 * len(value.shape)
    yield value.bytes or 0


def _more_scratch(graph: GraphFacts, step: Step) -> int:
    """Scratch buffers that a kernel asks for with some types only."""
    kinds = [graph.values[i].dtype for i in step.inputs]
    if step.op in ("MEAN", "SUM", "SVDF"):
        return kinds[0] in INTEGERS
    if step.op == "TRANSPOSE_CONV":
        return any(kind in INTEGERS for kind in kinds[:3])
    weights = kinds[1] if len(kinds) > 1 else ""
    return step.op in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED") and weights == "int4"
