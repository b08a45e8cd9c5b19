"""Quantized ONNX models answer in LiteRT as in ONNX Runtime or onnx's reference, and carry the ranges for int8."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("tensorflow")

from onnx_models import check, make_model, to_tflite  # noqa: E402
from onnx_nodes import check_nodes, operators  # noqa: E402

N = onnx.helper.make_node
RNG = np.random.default_rng(2)
X = RNG.normal(size=(2, 3, 6, 6)).astype(np.float32)


def reference(nodes, feeds, constants, outputs, opset) -> list[np.ndarray]:
    """What onnx's own implementation computes."""
    from onnx.reference import ReferenceEvaluator

    inputs = {k: (v.shape, onnx.helper.np_dtype_to_tensor_dtype(v.dtype)) for k, v in feeds.items()}
    return ReferenceEvaluator(make_model(nodes, inputs, dict.fromkeys(outputs), constants, opset)).run(None, feeds)


def test_whole_numbers_of_the_whole_and_of_every_channel():
    constants = {
        "s": np.float32(0.03),
        "zu": np.uint8(120),
        "zi": np.int8(-3),
        "sc": np.array([0.02, 0.05, 0.01], np.float32),
        "zc": np.array([3, 0, 255], np.uint8),
        "z16": np.int16(0),
    }
    nodes = [
        N("QuantizeLinear", ["x", "s", "zu"], ["u"]),
        N("QuantizeLinear", ["x", "s", "zi"], ["i"]),
        N("QuantizeLinear", ["x", "sc", "zc"], ["c"], axis=1),
        N("QuantizeLinear", ["x", "s"], ["d"]),
        N("DequantizeLinear", ["c", "sc", "zc"], ["back"], axis=1),
        N("QuantizeLinear", ["x", "s", "z16"], ["w"]),
        N("DequantizeLinear", ["u", "s", "zu"], ["real"]),
        N("DequantizeLinear", ["u", "s"], ["other"]),
    ]
    check_nodes(nodes, {"x": X}, constants, opset=21, free={"x": (0,)})


def test_half_rounds_to_even():
    x = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 300.0], np.float32)
    nodes = [N("QuantizeLinear", ["x", "s", "z"], ["y"])]
    check_nodes(
        nodes, {"x": x}, {"s": np.float32(1), "z": np.int8(0)}, expected=[np.array([-2, -2, 0, 0, 2, 2, 127], np.int8)]
    )


def test_weights_in_blocks_and_of_four_bits_become_real_numbers():
    scales = RNG.uniform(0.01, 0.1, (4, 3)).astype(np.float32)
    x = RNG.normal(size=(2, 4)).astype(np.float32)
    for kind, low, high in (
        (onnx.TensorProto.INT8, -128, 128),
        (onnx.TensorProto.INT4, -8, 8),
        (onnx.TensorProto.UINT4, 0, 16),
    ):
        values = RNG.integers(low, high, (4, 9))
        nodes = [N("DequantizeLinear", ["w", "s"], ["r"], axis=1, block_size=3), N("MatMul", ["x", "r"], ["y"])]
        model = make_model(nodes, {"x": [None, 4]}, {"y": None}, {"s": scales}, opset=21)
        model.graph.initializer.append(onnx.helper.make_tensor("w", kind, [4, 9], values.ravel()))
        check(model, {"x": x}, expected=[x @ (values * np.repeat(scales, 3, 1)).astype(np.float32)])


def test_a_pair_is_one_range_that_int8_is_made_with():
    constants = {"s": np.float32(0.03), "z": np.uint8(120), "w": RNG.normal(size=(4, 3, 3, 3)).astype(np.float32)}
    nodes = [
        N("QuantizeLinear", ["x", "s", "z"], ["q"]),
        N("DequantizeLinear", ["q", "s", "z"], ["r"]),
        N("Conv", ["r", "w"], ["y"]),
    ]
    names = operators(check_nodes(nodes, {"x": X}, constants, outputs=["y"]))
    assert [name for name in names if name != "TRANSPOSE"] == ["QUANTIZE", "DEQUANTIZE", "CONV_2D"]


def test_quantized_convolutions_and_products():
    constants = {
        "sx": np.float32(0.0213),
        "zx": np.uint8(128),
        "w": RNG.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8),
        "zw": np.int8(0),
        "sw": np.array([0.0117, 0.0193, 0.0051, 0.0089], np.float32),
        "zc": np.zeros(4, np.int8),
        "sy": np.float32(0.517),
        "zy": np.uint8(100),
        "b": RNG.integers(-2000, 2000, 4).astype(np.int32),
        "one": np.float32(0.0117),
    }
    nodes = [
        N("QuantizeLinear", ["x", "sx", "zx"], ["q"]),
        N("QLinearConv", ["q", "sx", "zx", "w", "sw", "zc", "sy", "zy", "b"], ["c"], pads=[1, 1, 1, 1]),
        N("QLinearConv", ["q", "sx", "zx", "w", "one", "zw", "sy", "zy"], ["d"], strides=[2, 2]),
        N("MaxPool", ["c"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        N("DequantizeLinear", ["m", "sy", "zy"], ["y"]),
    ]
    check_nodes(nodes, {"x": X}, constants, free={"x": (0,)}, outputs=["c", "d"])
    check_nodes(nodes, {"x": X}, constants, free={"x": (0,)}, outputs=["y"])
    a, b = RNG.integers(0, 256, (2, 5)).astype(np.uint8), RNG.integers(-128, 128, (5, 3)).astype(np.int8)
    constants = {
        "sa": np.float32(0.1),
        "za": np.uint8(7),
        "sb": np.float32(0.05),
        "zb": np.int8(2),
        "sy": np.float32(5),
        "zy": np.uint8(90),
    }
    nodes = [N("QLinearMatMul", ["a", "sa", "za", "b", "sb", "zb", "sy", "zy"], ["y"])]
    check_nodes(nodes, {"a": a}, {**constants, "b": b})


def test_sums_of_whole_products():
    a, b = RNG.integers(0, 256, (2, 5)).astype(np.uint8), RNG.integers(-128, 128, (5, 3)).astype(np.int8)
    constants = {
        "az": np.uint8(3),
        "bz": np.int8(-2),
        "b": b,
        "k": RNG.integers(0, 256, (4, 3, 3, 3)).astype(np.uint8),
        "kz": np.uint8(9),
    }
    nodes = [N("MatMulInteger", ["a", "b", "az", "bz"], ["y"]), N("MatMulInteger", ["a", "b"], ["z"])]
    image = RNG.integers(0, 256, (1, 3, 5, 5)).astype(np.uint8)
    nodes.append(N("ConvInteger", ["i", "k", "az", "kz"], ["c"], pads=[1, 1, 1, 1]))
    check_nodes(nodes, {"a": a, "i": image}, constants)


def test_scales_that_are_measured_while_running():
    constants = {"w": RNG.integers(-128, 128, (6, 4)).astype(np.int8), "z": np.int8(0), "s": np.float32(0.01)}
    nodes = [
        N("DynamicQuantizeLinear", ["x"], ["q", "sx", "zx"]),
        N("MatMulInteger", ["q", "w", "zx", "z"], ["y"]),
        N("Cast", ["y"], ["f"], to=1),
        N("Mul", ["sx", "s"], ["both"]),
        N("Mul", ["f", "both"], ["out"]),
    ]
    check_nodes(nodes, {"x": RNG.normal(size=(3, 6)).astype(np.float32)}, constants, outputs=["q", "zx", "sx", "out"])
    zeros = np.zeros((2, 2), np.float32)
    check_nodes(nodes[:1], {"x": zeros}, expected=[zeros.astype(np.uint8), np.float32(1), np.uint8(0)])


def test_eight_bit_floats_are_refused_by_name():
    from edgeloop.convert.onnx.value import Unsupported

    zero = onnx.helper.make_tensor("z", onnx.TensorProto.FLOAT8E4M3FN, [], [0.0])
    nodes = [N("QuantizeLinear", ["x", "s", "z"], ["q"]), N("DequantizeLinear", ["q", "s"], ["y"])]
    model = make_model(nodes, {"x": [2]}, {"y": [2]}, {"s": np.float32(1)}, opset=19)
    model.graph.initializer.append(zero)
    with pytest.raises(Unsupported, match="quantization to float8_e4m3fn at QuantizeLinear"):
        to_tflite(model)
