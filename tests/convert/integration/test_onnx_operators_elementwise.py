"""ONNX's arithmetic, comparisons and activations give in LiteRT what ONNX Runtime or NumPy gives."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("tensorflow")

from onnx_models import check, make_model  # noqa: E402
from onnx_nodes import check_nodes, operators  # noqa: E402

N = onnx.helper.make_node
RNG = np.random.default_rng(11)
X = np.array([[-7.5, -2.0, -0.5, -1e-3, 0.0], [0.3, 0.5, 1.0, 2.5, 6.25]], np.float32)
UNIT = np.linspace(-0.999, 0.999, 11, dtype=np.float32)
POSITIVE = np.array([1e-3, 0.5, 1.0, 2.0, 90.0], np.float32)


def test_functions_of_one_tensor():
    anywhere = ["Abs", "Atan", "Asinh", "Ceil", "Cos", "Cosh", "Erf", "Exp", "Floor", "Neg", "Round", "Sigmoid", "Sign"]
    anywhere += ["Sin", "Sinh", "Tan", "Tanh", "Softplus", "Softsign", "Relu", "IsNaN"]
    nodes = [N(op, ["x"], [op]) for op in anywhere]
    nodes += [N(op, ["unit"], [op]) for op in ("Acos", "Asin", "Atanh")]
    nodes += [N(op, ["positive"], [op]) for op in ("Log", "Reciprocal", "Sqrt")]
    nodes += [N("Add", ["positive", "one"], ["more"]), N("Acosh", ["more"], ["Acosh"])]
    check_nodes(nodes, {"x": X, "unit": UNIT, "positive": POSITIVE}, {"one": np.float32(1)})


def test_activations_and_their_attributes():
    plain = ["Celu", "Elu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Selu", "Shrink", "ThresholdedRelu"]
    nodes = [N(op, ["x"], [op]) for op in plain]
    nodes += [
        N("Celu", ["x"], ["celu"], alpha=2.0), N("Elu", ["x"], ["elu"], alpha=0.5),
        N("HardSigmoid", ["x"], ["hard"], alpha=1 / 6, beta=0.5), N("LeakyRelu", ["x"], ["leaky"], alpha=0.3),
        N("Selu", ["x"], ["selu"], alpha=1.2, gamma=0.7), N("Shrink", ["x"], ["shrink"], lambd=1.0, bias=0.25),
        N("ThresholdedRelu", ["x"], ["threshold"], alpha=0.4), N("PRelu", ["x", "slopes"], ["prelu"]),
    ]  # fmt: skip
    check_nodes(nodes, {"x": X}, {"slopes": np.array([0.1, -0.2, 0.3, 0.4, 0.5], np.float32)}, opset=18)
    for attributes in ({}, {"approximate": "tanh"}):
        assert operators(check_nodes([N("Gelu", ["x"], ["y"], **attributes)], {"x": X}, opset=20)) == ["GELU"]


def test_slopes_of_each_channel_become_prelu():
    constants = {"w": RNG.normal(size=(4, 3, 1, 1)).astype(np.float32), "one": np.array([0.2], np.float32)}
    constants["each"] = np.array([0.5, -0.1, 0.0, 2.0], np.float32).reshape(4, 1, 1)
    nodes = [N("Conv", ["x", "w"], ["h"]), N("PRelu", ["h", "each"], ["a"]), N("PRelu", ["h", "one"], ["b"])]
    feeds = {"x": RNG.normal(size=(2, 3, 4, 5)).astype(np.float32)}
    names = operators(check_nodes(nodes, feeds, constants, outputs=["a", "b"], free={"x": (0,)}))
    assert names.count("PRELU") == 1 and names.count("LEAKY_RELU") == 1
    check_nodes([N("PRelu", ["x", "s"], ["y"])], {"x": X, "s": np.float32([[0.1], [0.2]])})
    volume = {"x": RNG.normal(size=(2, 4, 3, 5, 2)).astype(np.float32)}  # PRELU ends at 4 dimensions
    check_nodes([N("PRelu", ["x", "s"], ["y"])], volume, {"s": constants["each"][..., None]})


def test_clip_has_bounds_or_not_and_becomes_relu6():
    bounds = {"zero": np.float32(0), "six": np.float32(6), "low": np.float32(-1.5), "all": np.float32(np.inf)}
    nodes = [
        N("Clip", ["x", "zero", "six"], ["relu6"]), N("Clip", ["x", "", "zero"], ["above"]), N("Clip", ["x"], ["none"]),
        N("Clip", ["x", "low", "all"], ["below"]), N("Clip", ["x", "six", "low"], ["crossed"]),
    ]  # fmt: skip
    data = check_nodes(nodes, {"x": X}, bounds)
    assert operators(data).count("RELU6") == 1
    whole = np.arange(-4, 5, dtype=np.int64)
    check_nodes([N("Clip", ["x", "a", "b"], ["y"])], {"x": whole}, {"a": np.int64(-2), "b": np.int64(2**62)})
    check_nodes([N("Clip", ["x"], ["y"], min=-1.0, max=3.4e38)], {"x": X}, opset=7)


def test_small_whole_numbers_wrap_around():
    for dtype in (np.int8, np.uint8, np.int16):
        info = np.iinfo(dtype)
        a = np.array([info.max, info.min, 100, 7], dtype)
        b = np.array([1, info.max, 90, 3], dtype)
        nodes = [N(op, ["a", "b"], [op]) for op in ("Add", "Sub", "Mul")] + [N("BitwiseNot", ["a"], ["not"])]
        with np.errstate(over="ignore"):
            check_nodes(nodes, {"a": a, "b": b}, opset=18, expected=[a + b, a - b, a * b, ~a])


def test_whole_numbers_are_divided_towards_zero_and_remainders_keep_their_sign():
    a, b = np.array([7, -7, 7, -7, 0], np.int64), np.array([3, 3, -3, -3, 5], np.int64)
    nodes = [N("Div", ["a", "b"], ["div"]), N("Mod", ["a", "b"], ["mod"]), N("Mod", ["a", "b"], ["fmod"], fmod=1)]
    nodes += [
        N("Pow", ["a", "three"], ["pow"]),
        N("Neg", ["a"], ["neg"]),
        N("Abs", ["a"], ["abs"]),
        N("Sign", ["a"], ["sign"]),
    ]
    nodes += [N("Max", ["a", "b"], ["max"]), N("Min", ["a", "b"], ["min"]), N("Less", ["a", "b"], ["less"])]
    check_nodes(nodes, {"a": a, "b": b}, {"three": np.int64(3)})


def test_remainders_of_real_numbers_are_exact():
    a, b = np.array([6.0, -6.0, 5.3, 1e6, 0.0], np.float32), np.array([0.1, 0.1, -2.0, 3.3, 2.0], np.float32)
    check_nodes([N("Mod", ["a", "b"], ["y"], fmod=1)], {"a": a, "b": b}, expected=[np.fmod(a, b)])


def test_bits():
    for dtype in (np.int32, np.uint8, np.int16):
        info = np.iinfo(dtype)
        a, b = (RNG.integers(info.min, int(info.max) + 1, 40).astype(dtype) for _ in range(2))
        a[:4], b[:4] = [info.max, info.min, info.max, info.min], [info.max, info.min, info.min, info.max]
        nodes = [N(f"Bitwise{op}", ["a", "b"], [op]) for op in ("And", "Or", "Xor")]
        check_nodes(nodes, {"a": a, "b": b}, opset=18, expected=[a & b, a | b, a ^ b])


def test_shifts_of_bits():
    a, by = np.array([255, 1, 16, 129, 200], np.uint8), np.array([1, 7, 2, 0, 8], np.uint8)
    nodes = [
        N("BitShift", ["a", "by"], ["left"], direction="LEFT"),
        N("BitShift", ["a", "by"], ["right"], direction="RIGHT"),
    ]
    wide = a.astype(np.int64)
    check_nodes(nodes, {"a": a, "by": by}, expected=[(wide << by).astype(np.uint8), (wide >> by).astype(np.uint8)])


def test_powers():
    nodes = [N("Pow", ["x", name], [f"to_{name}"]) for name in ("two", "three", "whole")]
    nodes += [N("Pow", ["positive", name], [f"positive_{name}"]) for name in ("half", "third", "each")]
    each = np.array([2.0, -1.0, 0.5, 0.0, 1.5], np.float32)
    constants = {"two": np.float32(2), "three": np.float32(3), "whole": np.int64(5), "half": np.float32(0.5)}
    check_nodes(nodes, {"x": X, "positive": POSITIVE}, {**constants, "third": np.float32(1 / 3), "each": each})


def test_comparisons_and_logic():
    other = np.array([[-7.5, 2.0, -0.5, 0.0, 0.0]], np.float32)
    nodes = [N(op, ["x", "y"], [op]) for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")]
    nodes += [N(op, ["Equal", "Less"], [op]) for op in ("And", "Or", "Xor")]
    nodes += [
        N("Not", ["Less"], ["Not"]),
        N("Where", ["Less", "x", "y"], ["Where"]),
        N("Equal", ["Less", "Not"], ["same"]),
    ]
    check_nodes(nodes, {"x": X, "y": other})
    odd = np.array([np.inf, -np.inf, np.nan, 1.0, 3.4028235e38], np.float32)
    nodes = [N("IsInf", ["x"], ["both"]), N("IsInf", ["x"], ["plus"], detect_negative=0), N("IsNaN", ["x"], ["nan"])]
    check_nodes([*nodes, N("IsInf", ["x"], ["minus"], detect_positive=0)], {"x": odd})


def test_sums_of_many_and_casts():
    a, b, c = (RNG.normal(size=shape).astype(np.float32) for shape in ((2, 3), (3,), (2, 1)))
    nodes = [N(op, ["a", "b", "c"], [op]) for op in ("Max", "Mean", "Min", "Sum")] + [N("Sum", ["a"], ["one"])]
    kinds = {"int32": 6, "int64": 7, "bool": 9, "uint8": 2, "float16": 10, "double": 11}
    nodes += [N("Cast", ["d"], [name], to=kind) for name, kind in kinds.items()]
    nodes += [N("Cast", ["int32"], ["small"], to=3), N("CastLike", ["d", "int32"], ["like"])]
    d = np.array([0.0, 0.75, 1.5, 200.25], np.float32)
    check_nodes(nodes, {"a": a, "b": b, "c": c, "d": d})


def test_bfloat16_and_float16_models_are_computed_in_float32():
    x, w = RNG.normal(size=(2, 3)).astype(np.float16), RNG.normal(size=(3, 4)).astype(np.float16)
    check_nodes([N("MatMul", ["x", "w"], ["y"]), N("Relu", ["y"], ["z"])], {"x": x}, {"w": w})
    weights = onnx.helper.make_tensor("w", onnx.TensorProto.BFLOAT16, [3], [1.5, -2.0, 0.25])
    nodes = [N("Cast", ["x"], ["b"], to=16), N("Mul", ["b", "w"], ["p"]), N("Cast", ["p"], ["y"], to=1)]
    model = make_model(nodes, {"x": [2, 3]}, {"y": [2, 3]}, opset=17)
    model.graph.initializer.append(weights)
    x = np.array([[1.0, 2.0, 3.0], [-4.0, 0.5, 8.0]], np.float32)
    check(model, {"x": x}, expected=[x * np.array([1.5, -2.0, 0.25], np.float32)])


@pytest.mark.parametrize("kind", [onnx.TensorProto.UINT32, onnx.TensorProto.UINT64, onnx.TensorProto.COMPLEX64])
def test_types_without_kernels_are_refused_by_name(kind):
    from edgeloop.convert.onnx.importer import import_onnx
    from edgeloop.convert.onnx.value import Unsupported

    model = make_model([N("Add", ["x", "x"], ["y"])], {"x": ([2], kind)}, {"y": ([2], kind)})
    with pytest.raises(Unsupported, match=r"tensors of type (uint32|uint64|complex64)"):
        import_onnx(model).traced()


def test_whole_numbers_beyond_32_bits_are_refused():
    from edgeloop.convert.onnx.importer import import_onnx
    from edgeloop.convert.onnx.value import Unsupported

    kind = onnx.TensorProto.INT64
    model = make_model(
        [N("Add", ["x", "big"], ["y"])], {"x": ([2], kind)}, {"y": ([2], kind)}, {"big": np.int64(2**40)}
    )
    with pytest.raises(Unsupported, match="whole numbers beyond 32 bits"):
        import_onnx(model).traced()


def test_vectors_broadcast_against_images_that_lie_channels_last():
    x = RNG.normal(size=(2, 3, 4, 5)).astype(np.float32)
    constants = {
        "w": RNG.normal(size=(6, 3, 1, 1)).astype(np.float32),
        "c": RNG.normal(size=(6, 1, 1)).astype(np.float32),
    }
    constants |= {"row": RNG.normal(size=(5,)).astype(np.float32), "one": np.array([2.0], np.float32)}
    nodes = [N("Conv", ["x", "w"], ["h"]), N("Mul", ["h", "c"], ["by_channel"]), N("Add", ["h", "row"], ["by_column"])]
    nodes += [N("Div", ["h", "one"], ["by_one"]), N("Sub", ["h", "by_row"], ["by_input"])]
    feeds = {"x": x, "by_row": RNG.normal(size=(4, 1)).astype(np.float32)}
    data = check_nodes(
        nodes, feeds, constants, free={"x": (0,)}, outputs=["by_channel", "by_column", "by_one", "by_input"]
    )
    assert operators(data).count("TRANSPOSE") == 5  # the input's, and that of every output
