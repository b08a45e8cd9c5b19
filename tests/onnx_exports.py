"""Small nets as PyTorch's exporter writes them, made by hand: `EXPORTS` maps a name to (model, feeds)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
Export = tuple[onnx.ModelProto, dict[str, np.ndarray]]
EXPORTS: dict[str, Callable[[], Export]] = {}


def export(function: Callable[[], Export]) -> Callable[[], Export]:
    EXPORTS[function.__name__] = function
    return function


def integers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def number(value: float) -> np.ndarray:
    return np.array(value, np.float32)


class Net:
    """A graph in the making. An operator takes names of tensors, or arrays, which become constants."""

    def __init__(self, seed: int, opset: int = 17):
        self.rng, self.opset = np.random.default_rng(seed), opset
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def data(self, *shape: int) -> np.ndarray:
        return self.rng.standard_normal(shape).astype(np.float32)

    def weights(self, *shape: int) -> np.ndarray:
        """Of a size that keeps the variance from layer to layer."""
        return (self.rng.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))).astype(np.float32)

    def positive(self, *shape: int) -> np.ndarray:
        return np.abs(self.weights(*shape)) + np.float32(0.5)

    def op(self, kind: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        made = [f"/{kind}_{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, names, made, name=f"{kind}_{len(self.nodes)}", **attributes))
        return made[0] if outputs == 1 else made

    def constant(self, array: Any, name: str = "") -> str:
        name = name or f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def size(self, x: str, axis: int) -> str:
        """A dimension of `x` as a list of one number."""
        return self.op("Unsqueeze", self.op("Gather", self.op("Shape", x), integers(axis)[0], axis=0), integers(0))

    def conv(self, x: str, channels: int, filters: int, kernel: int = 3, stride: int = 1, **more: Any) -> str:
        """Padded so that stride 1 keeps the size. `bias=False` leaves the bias out."""
        groups, bias = more.pop("group", 1), more.pop("bias", True)
        return self.op(
            "Conv",
            x,
            self.weights(filters, channels // groups, kernel, kernel),
            *([self.weights(filters)] if bias else []),
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=[kernel // 2] * 4,
            group=groups,
        )

    def normalized(self, x: str, channels: int) -> str:
        rows = [self.positive(channels), self.weights(channels), self.weights(channels), self.positive(channels)]
        return self.op("BatchNormalization", x, *rows, epsilon=1e-5)

    def linear(self, x: str, size: int, units: int) -> str:
        return self.op("Add", self.op("MatMul", x, self.weights(size, units)), self.weights(units))

    def done(self, inputs: dict[str, Any], outputs: Sequence[str], feeds: dict[str, np.ndarray]) -> Export:
        """`inputs`: {name: shape}; the type is that of the feed."""
        sources = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(feeds[name].dtype), shape)
            for name, shape in inputs.items()
        ]
        results = [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "net", sources, results, self.constants)
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9), feeds


def residual(size: int, channels: int, blocks: int, batch: int) -> Export:
    n = Net(1)
    y = n.op("Relu", n.normalized(n.conv("x", 3, channels, bias=False), channels))
    for _ in range(blocks):
        z = n.op("Relu", n.normalized(n.conv(y, channels, channels, bias=False), channels))
        y = n.op("Relu", n.op("Add", n.normalized(n.conv(z, channels, channels, bias=False), channels), y))
    y = n.op("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    y = n.op("Flatten", n.op("GlobalAveragePool", y), axis=1)
    y = n.op("Gemm", y, n.weights(10, channels), n.weights(10), transB=1)
    return n.done({"x": ["batch", 3, size, size]}, [y], {"x": n.data(batch, 3, size, size)})


@export
def residual_of_equal_sizes() -> Export:
    """Channels, height and width are all 8: no size tells which axis is which."""
    return residual(8, 8, 3, 2)


def mobile_net(size: int, blocks: Sequence[tuple[int, int]]) -> Export:
    """Inverted residuals with squeeze and excitation; `blocks` are (filters, stride)."""
    n = Net(2)

    def clipped(x: str, channels: int) -> str:
        return n.op("Clip", n.normalized(x, channels), number(0), number(6))

    y, channels = clipped(n.conv("x", 3, 16, stride=2, bias=False), 16), 16
    for filters, stride in blocks:
        wide = channels * 4
        z = clipped(n.conv(y, channels, wide, 1, bias=False), wide)
        z = clipped(n.conv(z, wide, wide, 3, stride, group=wide, bias=False), wide)
        e = n.op("Relu", n.conv(n.op("GlobalAveragePool", z), wide, 16, 1))
        z = n.op("Mul", z, n.op("HardSigmoid", n.conv(e, 16, wide, 1), alpha=1 / 6, beta=0.5))
        z = n.normalized(n.conv(z, wide, filters, 1, bias=False), filters)
        y = n.op("Add", y, z) if (filters, stride) == (channels, 1) else z
        channels = filters
    y = n.op("Gemm", n.op("ReduceMean", y, axes=[2, 3], keepdims=0), n.weights(10, channels), n.weights(10), transB=1)
    return n.done({"x": ["batch", 3, size, size]}, [y], {"x": n.data(1, 3, size, size)})


@export
def mobile_net_with_squeeze_and_excitation() -> Export:
    return mobile_net(48, ((24, 2), (24, 1), (32, 2)))


@export
def depthwise_with_multiplier_and_unequal_strides() -> Export:
    n = Net(3)
    y = n.op("Conv", "x", n.weights(16, 1, 3, 3), n.weights(16), group=8, pads=[1] * 4)
    y = n.op("Conv", y, n.weights(16, 1, 3, 3), n.weights(16), group=16, pads=[1] * 4, strides=[2, 1])
    y = n.op("Conv", y, n.weights(32, 4, 3, 3), n.weights(32), group=4, pads=[2] * 4, dilations=[2, 2])
    return n.done({"x": ["n", 8, 12, 10]}, [y], {"x": n.data(3, 8, 12, 10)})


@export
def transformer_with_free_batch_and_length() -> Export:
    n, size, heads = Net(4), 32, 4

    def layer_norm(x: str) -> str:
        centred = n.op("Sub", x, n.op("ReduceMean", x, axes=[-1]))
        variance = n.op("ReduceMean", n.op("Pow", centred, number(2)), axes=[-1])
        y = n.op("Div", centred, n.op("Sqrt", n.op("Add", variance, number(1e-5))))
        return n.op("Add", n.op("Mul", y, n.positive(size)), n.weights(size))

    def split(x: str, perm: list[int]) -> str:
        shape = n.op("Concat", n.size("x", 0), n.size("x", 1), integers(heads), integers(size // heads), axis=0)
        return n.op("Transpose", n.op("Reshape", x, shape), perm=perm)

    a = layer_norm("x")
    q, k, v = (n.linear(a, size, size) for _ in range(3))
    scores = n.op("Div", n.op("MatMul", split(q, [0, 2, 1, 3]), split(k, [0, 2, 3, 1])), number(np.sqrt(size // heads)))
    o = n.op("MatMul", n.op("Softmax", scores, axis=-1), split(v, [0, 2, 1, 3]))
    whole = n.op("Concat", n.size("x", 0), n.size("x", 1), integers(size), axis=0)
    o = n.op("Reshape", n.op("Transpose", o, perm=[0, 2, 1, 3]), whole)
    y = n.op("Add", "x", n.linear(o, size, size))
    z = n.linear(layer_norm(y), size, 4 * size)
    erf = n.op("Add", n.op("Erf", n.op("Div", z, number(np.sqrt(2)))), number(1))
    z = n.linear(n.op("Mul", n.op("Mul", z, erf), number(0.5)), 4 * size, size)
    return n.done({"x": ["batch", "length", size]}, [n.op("Add", y, z)], {"x": n.data(2, 7, size)})


@export
def embedding_with_the_mask_of_bert() -> Export:
    n = Net(5)
    e = n.op("Gather", n.data(50, 16), "ids", axis=0)
    mask = n.op("Unsqueeze", n.op("Unsqueeze", "mask", integers(1)), integers(2))
    mask = n.op("Mul", n.op("Sub", number(1), n.op("Cast", mask, to=FLOAT)), number(np.finfo(np.float32).min))
    scores = n.op("Unsqueeze", n.op("MatMul", e, n.op("Transpose", e, perm=[0, 2, 1])), integers(1))
    scores = n.op("Squeeze", n.op("Softmax", n.op("Add", scores, mask), axis=-1), integers(1))
    y = n.op("MatMul", scores, e)
    feeds = {"ids": n.rng.integers(0, 50, (2, 6)), "mask": integers(*[1] * 10, 0, 0).reshape(2, 6)}
    return n.done({"ids": ["b", "s"], "mask": ["b", "s"]}, [y], feeds)


def recurrent(kind: str, gates: int, length: int | str, steps: int) -> Export:
    """Bidirectional, batch first, the first state zeros of the batch's size: torch.nn.LSTM and GRU."""
    n, size, units = Net(6), 6, 8
    rows = n.op("Concat", integers(2), n.size("x", 0), integers(units), axis=0)
    zeros = n.op("Expand", np.zeros((2, 1, units), np.float32), rows)
    more = {"linear_before_reset": 1} if kind == "GRU" else {}
    weights = [n.weights(2, gates * units, k) for k in (size, units)] + [n.weights(2, 2 * gates * units)]
    states = [zeros] * (2 if kind == "LSTM" else 1)
    y, last, *_ = n.op(
        kind,
        n.op("Transpose", "x", perm=[1, 0, 2]),
        *weights,
        "",
        *states,
        outputs=1 + len(states),
        hidden_size=units,
        direction="bidirectional",
        **more,
    )
    y = n.op("Reshape", n.op("Transpose", y, perm=[0, 2, 1, 3]), integers(0, 0, -1))
    y = n.op("Gather", n.op("Transpose", y, perm=[1, 0, 2]), integers(-1)[0], axis=1)
    y = n.op("Gemm", y, n.weights(3, 2 * units), n.weights(3), transB=1)
    return n.done({"x": ["batch", length, size]}, [y, last], {"x": n.data(3, steps, size)})


@export
def lstm_of_10_steps() -> Export:
    return recurrent("LSTM", 4, 10, 10)


@export
def lstm_of_60_steps() -> Export:
    return recurrent("LSTM", 4, 60, 60)


@export
def lstm_of_free_length() -> Export:
    return recurrent("LSTM", 4, "length", 45)


@export
def gru_of_10_steps() -> Export:
    return recurrent("GRU", 3, 10, 10)


@export
def gru_of_60_steps() -> Export:
    return recurrent("GRU", 3, 60, 60)


@export
def gru_of_free_length() -> Export:
    return recurrent("GRU", 3, "length", 45)


@export
def u_net_with_resize_and_transposed_convolutions() -> Export:
    n = Net(7)
    a = n.op("Relu", n.conv("x", 3, 8))
    b = n.op("Relu", n.conv(a, 8, 16, stride=2))
    c = n.op("ConvTranspose", b, n.weights(16, 8, 2, 2), n.weights(8), strides=[2, 2])
    y = n.op("Concat", c, a, axis=1)
    twice = np.array([1, 1, 2, 2], np.float32)
    nearest = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    y = n.conv(n.op("Resize", y, "", twice, **nearest), 16, 4)
    linear = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    y = n.op("Resize", y, "", "", integers(1, 4, 20, 24), **linear)
    more = {"strides": [2, 2], "pads": [1] * 4}
    y = n.op("ConvTranspose", y, n.weights(4, 4, 3, 3), n.weights(4), output_padding=[1, 1], **more)
    y = n.op("ConvTranspose", y, n.weights(4, 1, 4, 4), group=4, **more)
    return n.done({"x": [1, 3, 16, 16]}, [y], {"x": n.data(1, 3, 16, 16)})


@export
def resizes_that_tflite_has_no_operator_for() -> Export:
    n, mode = Net(8), "coordinate_transformation_mode"
    y = n.conv("x", 3, 8)
    y = n.op("Resize", y, "", np.array([1, 1, 2, 2], np.float32), mode="linear", **{mode: "align_corners"})
    half = {"mode": "nearest", "nearest_mode": "round_prefer_floor", mode: "half_pixel"}
    y = n.op("Resize", y, "", np.array([1, 1, 1.5, 1.5], np.float32), **half)
    y = n.op("Resize", y, "", np.array([1, 1, 0.6, 0.6], np.float32), mode="cubic", **{mode: "half_pixel"})
    return n.done({"x": ["n", 3, 9, 7]}, [y], {"x": n.data(2, 3, 9, 7)})


@export
def group_instance_and_layer_normalization() -> Export:
    n = Net(9, opset=21)
    y = n.op("GroupNormalization", n.conv("x", 3, 8), n.positive(8), n.weights(8), num_groups=2, epsilon=1e-5)
    y = n.op("InstanceNormalization", n.conv(y, 8, 8), n.positive(8), n.weights(8))
    y = n.op("Transpose", y, perm=[0, 2, 3, 1])
    y = n.op("LayerNormalization", y, n.positive(8), n.weights(8), axis=-1)
    y = n.conv(n.op("Transpose", y, perm=[0, 3, 1, 2]), 8, 4)
    return n.done({"x": ["n", 3, 8, 8]}, [y], {"x": n.data(2, 3, 8, 8)})


@export
def rms_normalization_and_swish() -> Export:
    n = Net(10, opset=23)
    y = n.op("MatMul", n.op("RMSNormalization", "x", n.positive(16), axis=-1), n.weights(16, 16))
    y = n.op("Mul", y, n.op("Sigmoid", y))
    return n.done({"x": ["n", "t", 16]}, [y], {"x": n.data(2, 5, 16)})


@export
def group_normalization_of_torch() -> Export:
    """Before opset 18 it is written as a reshaped InstanceNormalization."""
    n = Net(11)
    y = n.conv("x", 3, 8)
    z = n.op("Reshape", y, integers(0, 2, -1))
    z = n.op("InstanceNormalization", z, np.ones(2, np.float32), np.zeros(2, np.float32))
    z = n.op("Reshape", z, n.op("Shape", y))
    y = n.conv(n.op("Add", n.op("Mul", z, n.positive(8, 1, 1)), n.weights(8, 1, 1)), 8, 8)
    return n.done({"x": ["n", 3, 8, 8]}, [y], {"x": n.data(2, 3, 8, 8)})


def shuffled(size: int, batch: int) -> Export:
    """Channels are shuffled, halved at a computed place and split, as ShuffleNet does it."""
    n = Net(12)
    y = n.conv("x", 3, 16)
    images, high, wide = (n.size(y, axis) for axis in (0, 2, 3))
    y = n.op("Reshape", y, n.op("Concat", images, integers(2), integers(8), high, wide, axis=0))
    y = n.op("Transpose", y, perm=[0, 2, 1, 3, 4])
    y = n.op("Reshape", y, n.op("Concat", images, integers(-1), high, wide, axis=0))
    half = n.op("Div", n.size(y, 1), integers(2))
    a = n.op("Slice", y, integers(0), half, integers(1))
    b = n.op("Slice", y, half, n.op("Mul", half, integers(2)), integers(1))
    y = n.op("Concat", n.conv(a, 8, 8), b, axis=1)
    p, q = n.op("Split", y, integers(4, 12), outputs=2, axis=1)
    y = n.op("DepthToSpace", n.op("Concat", q, p, axis=1), blocksize=2, mode="CRD")
    y = n.op("MatMul", n.op("Reshape", y, n.op("Concat", images, integers(-1), axis=0)), n.weights(16 * size * size, 5))
    return n.done({"x": ["n", 3, size, size]}, [y], {"x": n.data(batch, 3, size, size)})


@export
def channel_shuffle_and_slices_by_computed_sizes() -> Export:
    return shuffled(8, 2)


@export
def attention_by_einsum() -> Export:
    n = Net(13)
    y = n.op("Softmax", n.op("Einsum", "q", "k", equation="bhid,bhjd->bhij"), axis=-1)
    y = n.op("Einsum", y, "v", equation="bhij,bhjd->bihd")
    y = n.op("Einsum", y, n.weights(4, 8, 16), equation="bihd,hde->bie")
    inputs = {"q": ["b", 4, "i", 8], "k": ["b", 4, "j", 8], "v": ["b", 4, "j", 8]}
    return n.done(inputs, [y], {"q": n.data(2, 4, 5, 8), "k": n.data(2, 4, 6, 8), "v": n.data(2, 4, 6, 8)})


@export
def computed_in_float16() -> Export:
    n = Net(14)
    half = [n.weights(8, 3, 3, 3).astype(np.float16), n.weights(8).astype(np.float16)]
    y = n.op("Relu", n.op("Conv", n.op("Cast", "x", to=TensorProto.FLOAT16), *half, pads=[1] * 4))
    y = n.op("MatMul", n.op("Flatten", n.op("GlobalAveragePool", y)), n.weights(8, 5).astype(np.float16))
    return n.done({"x": ["n", 3, 8, 8]}, [n.op("Cast", y, to=FLOAT)], {"x": n.data(2, 3, 8, 8)})


@export
def weights_stored_in_float16() -> Export:
    n = Net(15)
    y = n.op("MatMul", "x", n.op("Cast", n.weights(16, 8).astype(np.float16), to=FLOAT))
    return n.done({"x": ["n", 16]}, [y], {"x": n.data(2, 16)})


@export
def quantize_and_dequantize() -> Export:
    n = Net(16)

    def rounded(x: str, scale: float, zero: int = 0) -> str:
        pair = number(scale), np.int8(zero)
        return n.op("DequantizeLinear", n.op("QuantizeLinear", x, *pair), *pair)

    w = n.rng.integers(-127, 128, (8, 3, 3, 3)).astype(np.int8)
    scales = np.abs(n.data(8)) * np.float32(0.01)
    w = n.op("DequantizeLinear", w, scales, np.zeros(8, np.int8), axis=0)
    y = rounded(n.op("Relu", n.op("Conv", rounded("x", 0.03, 3), w, n.weights(8), pads=[1] * 4)), 0.02, -128)
    y = rounded(n.op("Flatten", n.op("GlobalAveragePool", y)), 0.01)
    v = n.op("DequantizeLinear", n.rng.integers(-127, 128, (8, 4)).astype(np.int8), number(0.01))
    return n.done({"x": ["n", 3, 8, 8]}, [n.op("MatMul", y, v)], {"x": n.data(2, 3, 8, 8)})


@export
def dynamically_quantized_linear() -> Export:
    """As ONNX Runtime's quantize_dynamic writes it."""
    n = Net(17)
    q, scale, zero = n.op("DynamicQuantizeLinear", "x", outputs=3)
    y = n.op("MatMulInteger", q, n.rng.integers(0, 255, (16, 8)).astype(np.uint8), zero, np.uint8(128))
    y = n.op("Mul", n.op("Cast", y, to=FLOAT), n.op("Mul", scale, number(0.01)))
    return n.done({"x": ["n", 16]}, [y], {"x": n.data(2, 16)})


def detector(size: int, channels: int, batch: int) -> Export:
    """The head of a YOLO on the two last levels of a small net; four steps a side of a box, four classes."""
    n, places = Net(18), size * size + size * size // 4
    a = n.op("Relu", n.conv("x", 3, channels))
    b = n.op("Relu", n.conv(a, channels, channels, stride=2))
    levels = [n.op("Reshape", n.conv(y, channels, 20), integers(0, 20, -1)) for y in (a, b)]
    box, score = n.op("Split", n.op("Concat", *levels, axis=2), integers(16, 4), outputs=2, axis=1)
    box = n.op("Transpose", n.op("Reshape", box, integers(0, 4, 4, places)), perm=[0, 2, 1, 3])
    steps = np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1)
    box = n.op("Reshape", n.op("Conv", n.op("Softmax", box, axis=1), steps), integers(0, 4, places))
    y = n.op("Concat", box, n.op("Sigmoid", score), axis=1)
    return n.done({"x": ["n", 3, size, size]}, [y], {"x": n.data(batch, 3, size, size)})


@export
def head_of_a_yolo() -> Export:
    return detector(8, 8, 2)


@export
def loop_of_free_length() -> Export:
    n = Net(19)
    info = helper.make_tensor_value_info
    row, step = n.constant(np.array([1, 2], np.float32), "row"), ("Identity", ["sum"], ["kept"])
    nodes = [("Add", ["before", row], ["sum"]), step, ("Identity", ["go"], ["on"])]
    body = helper.make_graph(
        [helper.make_node(*node) for node in nodes],
        "body",
        [info("step", INT64, []), info("go", TensorProto.BOOL, []), info("before", FLOAT, [2])],
        [info("on", TensorProto.BOOL, []), info("sum", FLOAT, [2]), info("kept", FLOAT, [2])],
    )
    first = n.op("ReduceSum", "x", integers(0), keepdims=0)
    steps = n.op("Gather", n.op("Shape", "x"), integers(0)[0], axis=0)
    last, all_ = n.op("Loop", steps, np.array(True), first, outputs=2, body=body)
    return n.done({"x": ["n", 2]}, [last, all_], {"x": n.data(5, 2)})


@export
def branch_chosen_at_run_time() -> Export:
    n = Net(20)

    def branch(kind: str) -> Any:
        node = helper.make_node(kind, ["x"], [kind])
        return helper.make_graph([node], kind, [], [helper.make_tensor_value_info(kind, FLOAT, ["n", 2])])

    condition = n.op("Greater", n.op("ReduceMean", "x", keepdims=0), number(0))
    y = n.op("If", condition, then_branch=branch("Relu"), else_branch=branch("Neg"))
    return n.done({"x": ["n", 2]}, [y], {"x": n.data(5, 2)})
