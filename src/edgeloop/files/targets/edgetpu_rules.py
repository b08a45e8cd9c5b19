"""The rules of the Edge TPU compiler, one table: `RULES` names each operator that maps, with its limits.

Sources
    operators  https://coral.ai/docs/edgetpu/models-intro/#supported-operations (compiler 14 and later)
    models     the same page, #model-requirements: 8 bits, fixed sizes, at most three dimensions above 1
    "seen in"  real pairs of a model and its compiled form; docs/targets.md has the list
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable

from edgeloop.files.graph_facts import GraphFacts, Step, Value
from edgeloop.files.targets.operator_refusal import OperatorRefusal

# the documentation says 16,000; 16,384 maps, seen in LibrEdgeTPU color_blue_128x128. Rows are taken together, although
# the documentation asks for one: [1, 4420, 2] maps, in a face detector
SOFTMAX_LIMIT = 16_384
# between 69,696 elements, which map, and 102,400, which do not: seen in heads of yolov5n, yolov8n and yolo11n
TRANSPOSE_LIMIT = 90_000
# "certain reshapes might not be mapped for large tensor sizes". Seen in yolov5n: a row of 102,000 maps, one of 408,000
# does not; [1, 1600, 3, 85] maps, [1, 6400, 3, 85] does not
RESHAPE_ROW_LIMIT, RESHAPE_LIMIT = 200_000, 800_000
RESIZE_FACTOR, RESIZE_PIXELS = 8, 256 * 256  # seen in deeplab: 33 -> 33 and 24 -> 48 map; 1 -> 33 and 33 -> 513 do not
EIGHT_BITS = frozenset({"int8", "uint8"})


class EdgeTpuReason(enum.Enum):
    """Why an operator is not mapped; the value is what to do about it."""

    OPERATOR = "Replace the operator by supported ones, or move it to the end of the model."
    DTYPE = "Quantize the model to full int8, inputs and outputs included."
    DYNAMIC = "Give every dimension but the batch a fixed size."
    DIMENSIONS = "Keep all but the three innermost dimensions at 1: batch 1."
    ACTIVATION = "Move the activation into an operator of its own, or into the convolution before."
    BATCH = "Use other axes than the batch."
    OPTIONS = "Change the operator's options as the reason says."
    SIZE = "Make the tensor smaller, or leave this step to the CPU at the end of the model."
    WEIGHTS = "Store the weights in the model as constants."
    COMPILED = "Inspect the model as it was before the Edge TPU compiler."
    AFTER = "Make the operators before it map, or move them after it: what follows an operator on the CPU stays on it."


Rule = Callable[[GraphFacts, Step], "OperatorRefusal | None"]


def _activations(graph: GraphFacts, step: Step) -> list[Value]:
    """A recurrent state is kept in 16 bits, and mapped: seen in keras_lstm_mnist_ptq."""
    return [value for value in graph.computed(step) if not value.variable]


# Rules of every operator


def _eight_bits(graph: GraphFacts, step: Step) -> OperatorRefusal | None:
    other = [value.dtype for value in _activations(graph, step) if value.dtype not in EIGHT_BITS]
    return OperatorRefusal(why=EdgeTpuReason.DTYPE, found=f"{other[0]}, not 8 bits") if other else None


def _fixed_sizes(graph: GraphFacts, step: Step) -> OperatorRefusal | None:
    free = [value.shape for value in _activations(graph, step) if value.free]
    return (
        OperatorRefusal(
            why=EdgeTpuReason.DYNAMIC, found=f"a dimension other than the batch has no fixed size in {_shape(free[0])}"
        )
        if free
        else None
    )


def _three_dimensions(graph: GraphFacts, step: Step) -> OperatorRefusal | None:
    large = [v.shape for v in _activations(graph, step) if _has_outer(v.shape, 3)]
    return (
        OperatorRefusal(why=EdgeTpuReason.DIMENSIONS, found=f"more than three dimensions above 1 in {_shape(large[0])}")
        if large
        else None
    )


# Rules of some


def _no_activation(graph: GraphFacts, step: Step) -> OperatorRefusal | None:
    return (
        OperatorRefusal(why=EdgeTpuReason.ACTIVATION, found="a fused activation")
        if step.options.get("activation")
        else None
    )


def _one_dilation(graph: GraphFacts, step: Step) -> OperatorRefusal | None:
    """Along an axis where the filter is 1 wide dilation says nothing: seen in edgetpu-tcn."""
    _, height, width, _ = graph.values[step.inputs[1]].shape
    w, h = step.options.get("dilation_w", 1), step.options.get("dilation_h", 1)
    if 1 in (height, width):
        return None
    return (
        OperatorRefusal(why=EdgeTpuReason.OPTIONS, found=f"dilation {w} in x and {h} in y; they must be equal")
        if w != h
        else None
    )


def _constant_weights(graph: GraphFacts, step: Step) -> OperatorRefusal | None:
    weights = graph.values[step.inputs[1]] if len(step.inputs) > 1 else None
    return (
        OperatorRefusal(why=EdgeTpuReason.WEIGHTS, found="weights that are computed")
        if weights and not weights.constant_bytes
        else None
    )


def _default_weights(graph: GraphFacts, step: Step) -> OperatorRefusal | None:
    shuffled = step.options.get("weights_format")
    return (
        OperatorRefusal(why=EdgeTpuReason.OPTIONS, found="shuffled weights; only the default format maps")
        if shuffled
        else None
    )


def _one_dimensional_output(graph: GraphFacts, step: Step) -> OperatorRefusal | None:
    shape = graph.values[step.outputs[0]].shape
    found = f"an output {_shape(shape)}; it must be one-dimensional"
    return OperatorRefusal(why=EdgeTpuReason.DIMENSIONS, found=found) if _has_outer(shape, 1) else None


def _padding_alone_is_constant(graph: GraphFacts, step: Step) -> OperatorRefusal | None:
    constants = [graph.values[i] for i in step.inputs if graph.values[i].constant_bytes]
    if constants and (len(step.inputs) != 2 or not constants[0].zero):
        return OperatorRefusal(
            why=EdgeTpuReason.OPTIONS, found="a constant input that is not all zeros, or more than two inputs"
        )
    return None


def _not_the_batch(position: int) -> Rule:
    """The constant input at `position` names axes, none of which may be the first of several."""

    def rule(graph: GraphFacts, step: Step) -> OperatorRefusal | None:
        rank = max(len(graph.values[i].shape) for i in step.inputs)
        values = graph.values[step.inputs[position]].values or ()
        touched = any(axis % rank == 0 for axis in values) if rank > 1 else False
        return OperatorRefusal(why=EdgeTpuReason.BATCH, found="it works on the batch") if touched else None

    return rule


def _split_not_the_batch(graph: GraphFacts, step: Step) -> OperatorRefusal | None:
    """Into one part it is a copy, and maps: seen in yamnet_spectra_in."""
    return None if len(step.outputs) == 1 else _not_the_batch(0)(graph, step)


def _axis_not_the_batch(graph: GraphFacts, step: Step) -> OperatorRefusal | None:
    rank = len(graph.values[step.outputs[0]].shape)
    touched = rank > 1 and step.options.get("axis", 0) % rank == 0
    return OperatorRefusal(why=EdgeTpuReason.BATCH, found="it works on the batch") if touched else None


def _no_padding_of_the_batch(graph: GraphFacts, step: Step) -> OperatorRefusal | None:
    values = graph.values[step.inputs[1]].values or ()
    touched = len(values) == 8 and any(values[:2])
    return OperatorRefusal(why=EdgeTpuReason.BATCH, found="it pads the batch") if touched else None


def _depth_by_four(graph: GraphFacts, step: Step) -> OperatorRefusal | None:
    shape, axes = graph.values[step.inputs[0]].shape, graph.values[step.inputs[1]].values or ()
    depth = shape[-1]
    if any(axis % len(shape) == len(shape) - 1 for axis in axes) and depth % 4:
        return OperatorRefusal(
            why=EdgeTpuReason.SIZE, found=f"a mean over {depth} channels; they must be a multiple of 4"
        )
    return None


def _alpha_of_one_dimension(graph: GraphFacts, step: Step) -> OperatorRefusal | None:
    alpha = graph.values[step.inputs[1]].shape
    found = f"alpha {_shape(alpha)}; only its innermost dimension may exceed 1"
    return OperatorRefusal(why=EdgeTpuReason.OPTIONS, found=found) if _has_outer(alpha, 1) else None


def _at_most(limit: int, about: str = "") -> Rule:
    """Its input has at most `limit` elements; `about` says that the limit lies between two models seen."""

    def rule(graph: GraphFacts, step: Step) -> OperatorRefusal | None:
        elements = graph.values[step.inputs[0]].elements
        found = f"{elements:,} elements, more than {about}{limit:,}"
        return OperatorRefusal(why=EdgeTpuReason.SIZE, found=found) if elements > limit else None

    return rule


def _small_reshape(graph: GraphFacts, step: Step) -> OperatorRefusal | None:
    """A row is what the two innermost dimensions hold."""
    value = graph.values[step.outputs[0]]
    row = math.prod(value.shape[-2:])
    if value.elements > RESHAPE_LIMIT or row > RESHAPE_ROW_LIMIT:
        return OperatorRefusal(
            why=EdgeTpuReason.SIZE, found=f"a reshape to {_shape(value.shape)}, too large for the Edge TPU"
        )
    return None


def _plain_strides(graph: GraphFacts, step: Step) -> OperatorRefusal | None:
    strides = graph.values[step.inputs[3]].values or ()
    if any(stride != 1 for stride in strides):
        return OperatorRefusal(why=EdgeTpuReason.OPTIONS, found=f"strides {strides}; all must be 1")
    masks = [name for name in ("ellipsis_mask", "new_axis_mask") if step.options.get(name)]
    return OperatorRefusal(why=EdgeTpuReason.OPTIONS, found=f"{masks[0]} is set") if masks else None


def _modest_resize(graph: GraphFacts, step: Step) -> OperatorRefusal | None:
    small, large = (graph.values[i].shape for i in (step.inputs[0], step.outputs[0]))
    if len(small) != 4 or len(large) != 4:
        return OperatorRefusal(why=EdgeTpuReason.DIMENSIONS, found=f"an input {_shape(small)}; it must be an image")
    factor = max(large[i] / max(small[i], 1) for i in (1, 2))
    if factor > RESIZE_FACTOR or math.prod(large[1:3]) > RESIZE_PIXELS:
        found = f"from {small[1]}x{small[2]} to {large[1]}x{large[2]}, which the compiler refuses for its precision"
        return OperatorRefusal(why=EdgeTpuReason.SIZE, found=found)
    return None


def _has_outer(shape: tuple[int, ...], innermost: int) -> bool:
    """Whether a dimension other than the `innermost` ones is not 1."""
    return any(size != 1 for size in shape[:-innermost])


def _shape(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"


EVERY: tuple[Rule, ...] = (_eight_bits, _fixed_sizes, _three_dimensions)
RULES: dict[str, tuple[Rule, ...]] = {
    "ADD": (),
    "AVERAGE_POOL_2D": (_no_activation,),
    "CONCATENATION": (_no_activation, _padding_alone_is_constant),
    "CONV_2D": (_one_dilation, _constant_weights),
    "DEPTHWISE_CONV_2D": (_one_dilation, _constant_weights),
    "EXPAND_DIMS": (),
    "FULLY_CONNECTED": (_default_weights, _constant_weights, _one_dimensional_output),
    "L2_NORMALIZATION": (),
    "LOGISTIC": (),
    "MAXIMUM": (),
    "MAX_POOL_2D": (_no_activation,),
    "MEAN": (_not_the_batch(1), _depth_by_four),
    "MINIMUM": (),
    "MUL": (),
    "PACK": (_axis_not_the_batch,),
    "PAD": (_no_padding_of_the_batch,),
    "PRELU": (_alpha_of_one_dimension,),
    "QUANTIZE": (),
    "REDUCE_MAX": (_not_the_batch(1),),
    "REDUCE_MIN": (_not_the_batch(1),),
    "RELU": (),
    "RELU6": (),
    "RELU_N1_TO_1": (),
    "RESHAPE": (_small_reshape,),
    "RESIZE_BILINEAR": (_modest_resize,),
    "RESIZE_NEAREST_NEIGHBOR": (_modest_resize,),
    "RSQRT": (),
    "SLICE": (),
    "SOFTMAX": (_at_most(SOFTMAX_LIMIT),),
    "SPACE_TO_DEPTH": (),
    "SPLIT": (_split_not_the_batch,),
    "SQUARED_DIFFERENCE": (),
    "SQUEEZE": (),
    "STRIDED_SLICE": (_plain_strides,),
    "SUB": (),
    "SUM": (_not_the_batch(1),),
    "TANH": (),
    "TILE": (),  # not in the documentation; seen in deeplab_mobilenet_edgetpu_slim_cityscapes_quant
    "TRANSPOSE": (_at_most(TRANSPOSE_LIMIT, "about "),),
    "TRANSPOSE_CONV": (),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (),
}
