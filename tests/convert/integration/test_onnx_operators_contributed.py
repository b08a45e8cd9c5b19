"""Operators that ONNX Runtime's own tools write give in LiteRT what ONNX Runtime gives."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("tensorflow")

from onnx_models import check, make_model  # noqa: E402

N = onnx.helper.make_node
RNG = np.random.default_rng(21)


def test_operators_of_quantizers():
    values = {"a": (0.021, 128), "b": (0.033, 100), "y": (0.041, 120), "w": (0.0087, 0)}
    constants: dict = {f"{k}s": np.float32(s) for k, (s, _) in values.items()}
    constants |= {f"{k}z": np.uint8(z) for k, (_, z) in values.items()} | {"wz": np.int8(0)}
    constants |= {
        "w": RNG.integers(-127, 128, (3, 5)).astype(np.int8),
        "bias": RNG.integers(-900, 900, 5).astype(np.int32),
    }
    two, one, out = ["a", "as", "az", "b", "bs", "bz", "ys", "yz"], ["a", "as", "az", "ys", "yz"], ["ys", "yz"]

    def node(op: str, inputs: list[str], **attributes: object) -> "onnx.NodeProto":
        return N(op, inputs, [f"{op}_"], domain="com.microsoft", **attributes)

    nodes = [
        node("QLinearAdd", two), node("QLinearMul", two), node("QLinearSigmoid", one),
        node("QLinearLeakyRelu", one, alpha=0.1), node("QLinearGlobalAveragePool", one),
        node("QLinearAveragePool", one, kernel_shape=[2, 2]),
        node("QLinearConcat", [*out, "a", "as", "az", "b", "bs", "bz"], axis=1),
        node("QGemm", ["m", "as", "az", "w", "ws", "wz", "bias", "ys", "yz"], alpha=0.5),
    ]  # fmt: skip
    feeds = {name: RNG.integers(0, 256, (1, 2, 4, 4)).astype(np.uint8) for name in "ab"}
    feeds["m"] = RNG.integers(0, 256, (2, 3)).astype(np.uint8)
    kind = onnx.TensorProto.UINT8
    inputs = {name: (array.shape, kind) for name, array in feeds.items()}
    outputs = {node.output[0]: (None, kind) for node in nodes}
    model = make_model(nodes, inputs, outputs, constants, opset_imports=[onnx.helper.make_opsetid("com.microsoft", 1)])
    check(model, feeds)


def test_a_quantized_average_of_images_that_lie_channels_last():
    constants = {"as": np.float32(0.021), "az": np.uint8(128), "ys": np.float32(0.017), "yz": np.uint8(120)}
    attributes = {"kernel_shape": [2, 3], "strides": [1, 2], "pads": [0, 1, 0, 1], "channels_last": 1}
    nodes = [N("QLinearAveragePool", ["a", "as", "az", "ys", "yz"], ["y"], domain="com.microsoft", **attributes)]
    kind, a = onnx.TensorProto.UINT8, RNG.integers(0, 256, (1, 4, 7, 3)).astype(np.uint8)
    imports = [onnx.helper.make_opsetid("com.microsoft", 1)]
    check(make_model(nodes, {"a": (a.shape, kind)}, {"y": (None, kind)}, constants, opset_imports=imports), {"a": a})


def test_a_quantized_softmax():
    constants = {"as": np.float32(0.03), "az": np.uint8(128), "ys": np.float32(1 / 256), "yz": np.uint8(0)}
    nodes = [N("QLinearSoftmax", ["a", "as", "az", "ys", "yz"], ["y"], axis=-1, opset=13, domain="com.microsoft")]
    kind, a = onnx.TensorProto.UINT8, RNG.integers(0, 256, (2, 5)).astype(np.uint8)
    imports = [onnx.helper.make_opsetid("com.microsoft", 1)]
    model = make_model(nodes, {"a": (a.shape, kind)}, {"y": (None, kind)}, constants, opset_imports=imports)
    exact = np.exp((a.astype(np.float64) - 128) * np.float32(0.03))
    check(model, {"a": a}, expected=[np.round(exact / exact.sum(-1, keepdims=True) * 256).astype(np.uint8)])


@pytest.mark.parametrize("bits", [4, 8])
def test_products_with_weights_in_blocks(bits):
    k, columns, width = 40, 6, 32
    blocks = -(-k // width)
    packed = RNG.integers(0, 256, (columns, blocks, width * bits // 8)).astype(np.uint8)
    constants = {"w": packed, "s": RNG.uniform(0.01, 0.1, columns * blocks).astype(np.float32)}
    constants["z"] = RNG.integers(0, 256, columns * -(-blocks * bits // 8)).astype(np.uint8)
    attributes = {"K": k, "N": columns, "bits": bits, "block_size": width, "domain": "com.microsoft"}
    nodes = [
        N("MatMulNBits", ["x", "w", "s"], ["y"], **attributes),
        N("MatMulNBits", ["x", "w", "s", "z"], ["v"], **attributes),
    ]
    outputs = {name: ([2, columns], onnx.TensorProto.FLOAT) for name in "yv"}
    imports = [onnx.helper.make_opsetid("com.microsoft", 1)]
    model = make_model(nodes, {"x": [2, k]}, outputs, constants, opset_imports=imports)
    check(model, {"x": RNG.normal(size=(2, k)).astype(np.float32)})


def test_operators_of_the_optimizer():
    constants = {"g": RNG.uniform(0.5, 2, 6).astype(np.float32), "b": RNG.normal(size=6).astype(np.float32)}
    constants |= {
        "w": RNG.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "m": RNG.normal(size=(5, 6)).astype(np.float32),
    }

    def node(op: str, inputs: list[str], outputs: list[str] | None = None, **attributes: object) -> "onnx.NodeProto":
        return N(op, inputs, outputs or [f"{op}_"], domain="com.microsoft", **attributes)

    nodes = [
        node("BiasGelu", ["x", "b"]), node("FastGelu", ["u", "b"]), node("Gelu", ["u"]), node("QuickGelu", ["x"]),
        node("SkipLayerNormalization", ["x", "u", "g", "b", "b"], ["n", "", "", "sum"]),
        node("SkipSimplifiedLayerNormalization", ["x", "u", "g"]), node("FusedMatMul", ["x", "m"], transB=1, alpha=0.5),
        node("FusedConv", ["i", "w"], activation="LeakyRelu", activation_params=[0.2], pads=[1, 1, 1, 1]),
        node("FusedGemm", ["row", "m"], activation="Relu", transB=1),
    ]  # fmt: skip
    shapes = {"x": [2, 3, 6], "u": [2, 3, 6], "i": [1, 3, 5, 5], "row": [2, 6]}
    feeds = {name: RNG.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    outputs = {name: (None, onnx.TensorProto.FLOAT) for node in nodes for name in node.output if name}
    imports = [onnx.helper.make_opsetid("com.microsoft", 1)]
    check(make_model(nodes, shapes, outputs, constants, opset_imports=imports), feeds)
