"""ONNX's convolutions and pools give in LiteRT what ONNX Runtime gives, channels last, without needless operators."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("tensorflow")

from onnx_nodes import check_nodes, operators  # noqa: E402

N = onnx.helper.make_node
RNG = np.random.default_rng(3)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def test_convolutions_of_images():
    constants = {
        "w": normal(6, 4, 3, 3),
        "b": normal(6),
        "g": normal(6, 2, 3, 3),
        "d": normal(8, 1, 3, 3),
        "p": normal(6, 4, 2, 2),
    }
    nodes = [
        N("Conv", ["x", "w", "b"], ["same"], pads=[1, 1, 1, 1]),
        N("Conv", ["x", "w"], ["stride"], strides=[2, 2], pads=[1, 1, 1, 1]),
        N("Conv", ["x", "w"], ["uneven"], strides=[2, 1], pads=[0, 2, 1, 0]),
        N("Conv", ["x", "w"], ["holes"], dilations=[2, 2]),
        N("Conv", ["x", "g", "b"], ["groups"], group=2),
        N("Conv", ["x", "d"], ["depth"], group=4, pads=[1, 1, 1, 1]),
        N("Conv", ["x", "d"], ["depth21"], group=4, strides=[2, 1]),
        N("Conv", ["x", "d"], ["depth_holes"], group=4, dilations=[2, 1]),
        N("Conv", ["x", "p"], ["upper"], auto_pad="SAME_UPPER", strides=[2, 2]),
        N("Conv", ["x", "p"], ["lower"], auto_pad="SAME_LOWER"),
        N("Conv", ["x", "w"], ["valid"], auto_pad="VALID", strides=[3, 2]),
    ]
    data = check_nodes(nodes, {"x": normal(2, 4, 9, 8)}, constants, free={"x": (0,)})
    assert operators(data).count("DEPTHWISE_CONV_2D") == 2


def test_convolutions_of_one_and_three_axes_and_of_free_sizes():
    constants = {"w": normal(6, 4, 3), "b": normal(6), "d": normal(4, 1, 5)}
    nodes = [
        N("Conv", ["x", "w", "b"], ["a"], pads=[1, 1], strides=[2]),
        N("Conv", ["x", "d"], ["b_"], group=4, dilations=[2]),
    ]
    check_nodes(nodes, {"x": normal(2, 4, 13)}, constants, free={"x": (0, 2)})
    constants = {"w": normal(4, 2, 2, 3, 3), "g": normal(4, 1, 2, 2, 2)}
    nodes = [
        N("Conv", ["x", "w"], ["a"], pads=[0, 1, 1, 1, 1, 1]),
        N("Conv", ["x", "g"], ["b"], group=2, strides=[1, 2, 2]),
    ]
    check_nodes(nodes, {"x": normal(1, 2, 4, 5, 6)}, constants)
    nodes = [
        N("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER", strides=[2, 2]),
        N("Conv", ["x", "w"], ["z"], pads=[1] * 4),
    ]
    check_nodes(nodes, {"x": normal(1, 3, 7, 9)}, {"w": normal(5, 3, 3, 3)}, free={"x": (0, 2, 3)})


def test_weights_that_are_computed():
    nodes = [N("Conv", ["x", "w", "b"], ["y"], pads=[1] * 4), N("Conv", ["x", "d"], ["z"], group=3)]
    check_nodes(nodes, {"x": normal(1, 3, 6, 6), "w": normal(4, 3, 3, 3), "b": normal(4), "d": normal(3, 1, 2, 2)})


def test_transposed_convolutions():
    constants = {
        "w": normal(4, 5, 3, 3),
        "k": normal(4, 5, 2, 2),
        "b": normal(5),
        "g": normal(4, 3, 3, 3),
        "d": normal(4, 1, 4, 4),
    }
    constants["m"] = normal(4, 2, 3, 3)
    nodes = [
        N("ConvTranspose", ["x", "w", "b"], ["plain"]),
        N("ConvTranspose", ["x", "k", "b"], ["double"], strides=[2, 2]),
        N("ConvTranspose", ["x", "w"], ["pads"], strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]),
        N("ConvTranspose", ["x", "w"], ["gap"], strides=[4, 5]),
        N("ConvTranspose", ["x", "w"], ["holes"], dilations=[2, 2]),
        N("ConvTranspose", ["x", "g"], ["groups"], group=2, strides=[2, 1]),
        N("ConvTranspose", ["x", "d"], ["depth"], group=4, strides=[2, 2], pads=[1, 1, 1, 1]),
        N(
            "ConvTranspose",
            ["x", "m"],
            ["multiplied"],
            group=4,
            strides=[2, 3],
            pads=[0, 1, 2, 0],
            output_padding=[1, 2],
        ),
        N("ConvTranspose", ["x", "w"], ["shape"], strides=[3, 3], output_shape=[16, 18]),
        N("ConvTranspose", ["x", "w"], ["upper"], strides=[2, 2], auto_pad="SAME_UPPER"),
    ]
    data = check_nodes(nodes, {"x": normal(2, 4, 5, 6)}, constants, free={"x": (0,)})
    assert operators(data).count("TRANSPOSE_CONV") == 9  # one channel a group is one depthwise convolution
    assert operators(data).count("DEPTHWISE_CONV_2D") == 2
    nodes = [
        N("ConvTranspose", ["x", "w"], ["y"], strides=[2], pads=[1, 0]),
        N("ConvTranspose", ["x", "d"], ["z"], group=3, strides=[2]),
    ]
    check_nodes(nodes, {"x": normal(2, 3, 7)}, {"w": normal(3, 2, 4), "d": normal(3, 1, 4)}, free={"x": (0, 2)})
    check_nodes(
        [N("ConvTranspose", ["x", "w"], ["y"], strides=[1, 2, 2])],
        {"x": normal(1, 2, 3, 4, 4)},
        {"w": normal(2, 3, 2, 3, 3)},
    )


def test_maxima():
    nodes = [
        N("MaxPool", ["x"], ["plain"], kernel_shape=[2, 2], strides=[2, 2]),
        N("MaxPool", ["x"], ["ceil"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
        N("MaxPool", ["x"], ["pads"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        N("MaxPool", ["x"], ["same"], kernel_shape=[5, 5], pads=[2] * 4),
        N("MaxPool", ["x"], ["holes"], kernel_shape=[2, 3], dilations=[2, 2], pads=[1, 1, 1, 1]),
        N("MaxPool", ["x"], ["far"], kernel_shape=[2, 2], pads=[1, 0, 1, 1], strides=[3, 2]),
        N("MaxPool", ["x"], ["upper"], kernel_shape=[3, 2], auto_pad="SAME_UPPER", strides=[2, 2]),
        N("GlobalMaxPool", ["x"], ["global"]),
    ]
    data = check_nodes(nodes, {"x": normal(2, 3, 9, 8) - 5}, free={"x": (0,)})
    assert operators(data).count("PADV2") == 1  # with holes; the others take elements of their windows twice
    check_nodes(
        [N("MaxPool", ["x"], ["y"], kernel_shape=[3], strides=[2], pads=[1, 1])],
        {"x": normal(2, 3, 9)},
        free={"x": (0, 2)},
    )
    check_nodes(
        [N("MaxPool", ["x"], ["y"], kernel_shape=[2, 2, 3], strides=[2, 1, 2], pads=[0, 1, 1, 1, 0, 1])],
        {"x": normal(1, 2, 4, 5, 6)},
    )
    check_nodes(
        [N("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)],
        {"x": normal(1, 2, 8, 7)},
        free={"x": (2, 3)},
    )
    check_nodes(
        [N("MaxPool", ["x"], ["y"], kernel_shape=[2, 2])], {"x": RNG.integers(-100, 100, (1, 2, 4, 4)).astype(np.int8)}
    )


def test_what_is_never_negative_is_padded_with_zeros():
    nodes = [N("Relu", ["x"], ["a"]), N("Sigmoid", ["x"], ["b"]), N("Concat", ["a", "b"], ["c"], axis=1)]
    nodes += [N("MaxPool", ["c"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])]
    names = operators(check_nodes(nodes, {"x": normal(1, 3, 8, 8)}, outputs=["y"]))
    assert "PAD" in names and not {"PADV2", "MIRROR_PAD"} & set(names)


def test_places_of_maxima():
    x = RNG.integers(0, 6, (2, 3, 6, 7)).astype(np.float32)  # with equal ones
    nodes = [
        N("MaxPool", ["x"], ["a", "ia"], kernel_shape=[2, 2], strides=[2, 2]),
        N("MaxPool", ["x"], ["b", "ib"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
        N("MaxPool", ["x"], ["c", "ic"], kernel_shape=[3, 2], storage_order=1),
        N("MaxPool", ["x"], ["d", "id"], kernel_shape=[2, 2], dilations=[2, 2]),
    ]
    check_nodes(nodes, {"x": x}, free={"x": (0,)})
    check_nodes([N("MaxPool", ["x"], ["y", "i"], kernel_shape=[3], strides=[2])], {"x": normal(2, 3, 9)})
    check_nodes([N("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2, 2])], {"x": normal(1, 2, 3, 4, 3)})


def test_averages_count_what_counts():
    nodes = [
        N("AveragePool", ["x"], ["plain"], kernel_shape=[2, 2], strides=[2, 2]),
        N("AveragePool", ["x"], ["pads"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        N("AveragePool", ["x"], ["all"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1, strides=[2, 2]),
        N("GlobalAveragePool", ["x"], ["global"]),
        N("AveragePool", ["x"], ["ceil"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
        N("AveragePool", ["x"], ["uneven"], kernel_shape=[3, 2], pads=[1, 0, 0, 1], strides=[2, 2]),
        N(
            "AveragePool",
            ["x"],
            ["ceil_all"],
            kernel_shape=[3, 3],
            strides=[2, 2],
            pads=[1] * 4,
            ceil_mode=1,
            count_include_pad=1,
        ),
        N("AveragePool", ["x"], ["holes"], kernel_shape=[2, 2], dilations=[2, 2], pads=[1, 1, 1, 1]),
        N("AveragePool", ["x"], ["upper"], kernel_shape=[3, 3], auto_pad="SAME_UPPER", strides=[2, 2]),
    ]
    check_nodes(nodes, {"x": normal(2, 3, 8, 8)}, opset=19, free={"x": (0,)})
    check_nodes(
        [N("AveragePool", ["x"], ["y"], kernel_shape=[3], strides=[2], pads=[1, 1])],
        {"x": normal(2, 3, 9)},
        free={"x": (0, 2)},
    )
    check_nodes([N("AveragePool", ["x"], ["y"], kernel_shape=[2, 2, 2], pads=[1] * 6)], {"x": normal(1, 2, 4, 5, 6)})


def test_norms_of_windows():
    nodes = [
        N("LpPool", ["x"], ["two"], kernel_shape=[2, 2]),
        N("LpPool", ["x"], ["one"], kernel_shape=[3, 3], p=1, pads=[1, 0, 1, 1], strides=[2, 2]),
        N("LpPool", ["x"], ["three"], kernel_shape=[2, 3], p=3, dilations=[2, 1]),
        N("GlobalLpPool", ["x"], ["global"]),
        N("GlobalLpPool", ["x"], ["global3"], p=3),
        N("LpPool", ["x"], ["upper"], kernel_shape=[3, 3], auto_pad="SAME_UPPER", strides=[2, 2]),
    ]
    check_nodes(nodes, {"x": normal(2, 3, 7, 8)}, opset=18)


def test_convolutions_that_read_where_the_net_says():
    constants = {"w": normal(4, 3, 3, 2), "g": normal(4, 2, 2, 2), "b": normal(4)}
    nodes = [
        N("DeformConv", ["x", "w", "o", "b", "m"], ["a"], pads=[1, 0, 1, 1], strides=[2, 1]),
        N("DeformConv", ["v", "g", "p"], ["c"], group=2, offset_group=2, dilations=[2, 1]),
    ]
    feeds = {"x": normal(2, 3, 5, 6), "o": normal(2, 12, 3, 6) * 2, "m": normal(2, 6, 3, 6)}
    feeds |= {"v": normal(1, 4, 5, 4), "p": normal(1, 16, 3, 3) * 2}
    check_nodes(nodes, feeds, constants, opset=22, free={"x": (0,), "o": (0,), "m": (0,)})


def test_images_out_of_blocks_that_overlap():
    nodes = [
        N("Col2Im", ["x", "image", "block"], ["a"], strides=[2, 1], pads=[1, 0, 1, 1], dilations=[1, 2]),
        N("Col2Im", ["v", "line", "three"], ["b"], strides=[2]),
    ]
    constants = {"image": np.array([6, 7]), "block": np.array([2, 3]), "line": np.array([9]), "three": np.array([3])}
    check_nodes(nodes, {"x": normal(2, 12, 16), "v": normal(2, 6, 4)}, constants, opset=18, free={"x": (0,)})
