"""Quantized ONNX models answer in LiteRT as in ONNX Runtime or onnx's reference, and carry the ranges for int8."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("tensorflow")

from onnx_models import answers, check, make_model, run_tflite, to_tflite  # noqa: E402
from onnx_nodes import check_nodes, operators  # noqa: E402

N = onnx.helper.make_node
RNG = np.random.default_rng(2)
X = RNG.normal(size=(2, 3, 6, 6)).astype(np.float32)


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


def test_a_pool_behind_a_pair_that_clips_at_zero_is_padded_with_zeros():
    nodes = [N("QuantizeLinear", ["x", "s", "z"], ["q"]), N("DequantizeLinear", ["q", "s", "z"], ["r"])]
    nodes.append(N("MaxPool", ["r"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]))
    names = operators(check_nodes(nodes, {"x": X}, {"s": np.float32(0.031), "z": np.uint8(0)}, outputs=["y"]))
    assert "PAD" in names and "MIRROR_PAD" not in names


def test_weights_that_are_quantized_and_back_are_constants():
    constants = {"w": RNG.normal(size=(4, 3, 3, 3)).astype(np.float32), "s": np.float32([0.01, 0.02, 0.03, 0.015])}
    constants |= {"z": np.zeros(4, np.int8), "one": np.float32(0.02)}
    nodes = [N("QuantizeLinear", ["w", "s", "z"], ["q"], axis=0), N("DequantizeLinear", ["q", "s", "z"], ["r"], axis=0)]
    nodes += [N("QuantizeLinear", ["w", "one"], ["p"]), N("DequantizeLinear", ["p", "one"], ["t"])]
    nodes += [N("Conv", ["x", "r"], ["y"]), N("Conv", ["x", "t"], ["v"])]
    names = operators(check_nodes(nodes, {"x": X}, constants, opset=13, outputs=["y", "v"]))
    assert set(names) == {"TRANSPOSE", "CONV_2D"}


def qdq_net():
    """Convolutions, a sum and a dense layer between pairs, with int8 weights: as static quantizers write it."""
    nodes, constants = [], {}

    def pair(x: str, scale: float, zero: int) -> str:
        constants.update({f"{x}_s": np.float32(scale), f"{x}_z": np.uint8(zero)})
        nodes.append(N("QuantizeLinear", [x, f"{x}_s", f"{x}_z"], [f"{x}_q"]))
        nodes.append(N("DequantizeLinear", [f"{x}_q", f"{x}_s", f"{x}_z"], [f"{x}_r"]))
        return f"{x}_r"

    def weights(name: str, *shape: int) -> str:
        values = RNG.integers(-127, 128, shape)
        values.reshape(shape[0], -1)[:, 0] = 127  # as quantizers choose the scale
        scales = RNG.uniform(0.5, 1, shape[0]).astype(np.float32) / np.float32(127 * np.sqrt(np.prod(shape[1:]) / 3))
        constants.update(
            {f"{name}_q": values.astype(np.int8), f"{name}_s": scales, f"{name}_z": np.zeros(shape[0], np.int8)}
        )
        nodes.append(N("DequantizeLinear", [f"{name}_q", f"{name}_s", f"{name}_z"], [name], axis=0))
        return name

    x = pair("x", 0.031, 121)
    nodes.append(N("Conv", [x, weights("w1", 8, 3, 3, 3)], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]))
    a = pair("a", 0.013, 0)  # nothing below zero: a ReLU
    nodes.append(N("Conv", [a, weights("w2", 8, 1, 3, 3)], ["b"], group=8, pads=[1, 1, 1, 1]))
    nodes.append(N("Add", [pair("b", 0.021, 140), a], ["c"]))
    nodes.append(N("GlobalAveragePool", [pair("c", 0.025, 90)], ["d"]))
    nodes.append(N("Flatten", [pair("d", 0.009, 60)], ["e"]))
    nodes.append(N("Gemm", [pair("e", 0.009, 60), weights("w3", 5, 8)], ["y"], transB=1))
    return make_model(nodes, {"x": ["n", 3, 8, 8]}, {pair("y", 0.011, 128): ["n", 5]}, constants)


def test_int8_is_made_with_the_ranges_that_the_model_states():
    from pathlib import Path

    from edgeloop.bundle import Scheme
    from edgeloop.convert.forms.calibration import calibrate
    from edgeloop.convert.forms.quantize import to_integers
    from edgeloop.convert.samples import Samples
    from edgeloop.convert.sources.identify import SourceKind
    from edgeloop.convert.sources.source_value import Source, tensor_specs

    model, x = qdq_net(), RNG.normal(size=(64, 3, 8, 8)).astype(np.float32)
    expected = answers(model, {"x": x})[0]
    float32 = to_tflite(model)
    assert_hardly_a_step_off(run_tflite(float32, [x])[0], expected)
    specs = (
        tensor_specs(["input_0"], [((None, 3, 8, 8), "float32")]),
        tensor_specs(["output_0"], [((None, 5), "float32")]),
    )
    source = Source(
        path=Path("m.onnx"), kind=SourceKind.ONNX, sha256="", signature="serving_default", inputs=specs[0],
        outputs=specs[1], call=dict,
    )  # fmt: skip
    samples = Samples(inputs={"input_0": x[:8] / 4})  # which would give a quarter of the ranges
    made = to_integers(float32, Scheme.INT8, calibrate(float32, source, samples))
    assert not made.left and "ROUND" not in operators(made.data)
    assert_hardly_a_step_off(run_tflite(made.data, [x])[0], expected)


def assert_hardly_a_step_off(found: np.ndarray, expected: np.ndarray) -> None:
    """Of the net above. A sum in another order may turn a tie: measured, 2 of 320 in float32; with half the bits lost
    once more, 1 in 12."""
    steps = np.abs(found - expected) / 0.011
    assert steps.max() < 1.5 and (steps > 0.5).mean() <= 0.03


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
    with pytest.raises(Unsupported, match="quantization to float8_e4m3fn"):
        to_tflite(model)
