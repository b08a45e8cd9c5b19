"""ONNX's Resize in all its ways gives in LiteRT what ONNX Runtime gives, by its own operators where these agree."""

import itertools

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("tensorflow")

from onnx_nodes import check_nodes, operators  # noqa: E402

N = onnx.helper.make_node
RNG = np.random.default_rng(8)
X = RNG.normal(size=(1, 2, 6, 5)).astype(np.float32)
PLACES = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"]
ROUNDINGS = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
FACTORS = {"double": (2, 2), "uneven": (1.7, 0.6), "half": (0.5, 0.5)}
SCALES = {name: np.array([1, 1, *pair], np.float32) for name, pair in FACTORS.items()}


def resize(output: str, scales: str = "", sizes: str = "", **attributes: object) -> "onnx.NodeProto":
    return N("Resize", ["x", "", scales, sizes] if sizes else ["x", "", scales], [output], **attributes)


@pytest.mark.parametrize("factor", SCALES)
def test_nearest_with_every_place_and_rounding(factor):
    nodes = []
    for place, rounding in itertools.product(PLACES, ROUNDINGS):
        if place == "half_pixel_symmetric" and not rounding.startswith("round"):
            continue  # its places are whole numbers but for rounding errors
        attributes = {"coordinate_transformation_mode": place, "nearest_mode": rounding, "mode": "nearest"}
        nodes.append(resize(f"{place}_{rounding}", factor, **attributes))
    check_nodes(nodes, {"x": X}, SCALES, opset=19)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_weighted_neighbours_with_every_place(mode):
    nodes = [
        resize(f"{place}_{factor}", factor, coordinate_transformation_mode=place, mode=mode)
        for place, factor in itertools.product(PLACES if mode == "linear" else PLACES[1:3], SCALES)
    ]
    sizes = {"sizes": np.array([1, 2, 9, 3], np.int64)}
    nodes.append(resize("sizes_", sizes="sizes", mode=mode))
    if mode == "cubic":
        nodes.append(resize("outside", "uneven", mode=mode, exclude_outside=1, cubic_coeff_a=-0.5))
    check_nodes(nodes, {"x": X}, {**SCALES, **sizes}, opset=19)


def test_antialias():
    nodes = [
        resize(f"{mode}_{factor}_{outside}", factor, mode=mode, antialias=1, exclude_outside=outside)
        for mode, factor, outside in itertools.product(["linear", "cubic"], ["half", "uneven"], [0, 1])
    ]
    check_nodes(nodes, {"x": X}, SCALES, opset=18)


def test_litert_resizes_where_it_takes_the_same_pixels():
    nodes = [
        resize("a", "double", mode="linear"), resize("b", "double", mode="nearest"),
        resize("c", "double", mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        resize("d", "double", mode="linear", coordinate_transformation_mode="align_corners"),
        resize("e", sizes="sizes", mode="linear", coordinate_transformation_mode="asymmetric"),
        resize("f", sizes="sizes", mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
    ]  # fmt: skip
    names = operators(check_nodes(nodes, {"x": X}, {**SCALES, "sizes": np.array([1, 2, 7, 11], np.int64)}))
    assert names.count("RESIZE_BILINEAR") == 3 and names.count("RESIZE_NEAREST_NEIGHBOR") == 2  # b and c are one


def test_free_sizes():
    nodes = [
        resize("linear", "uneven", mode="linear"), resize("cubic", "uneven", mode="cubic"),
        resize("nearest", "uneven", mode="nearest"), resize("double_", "double", mode="nearest"),
        resize("corners", "double", mode="linear", coordinate_transformation_mode="align_corners"),
        N("Shape", ["like"], ["goal"]), resize("to", sizes="goal", mode="linear"),
        resize("near", sizes="goal", mode="nearest"), resize("scaled", "computed", mode="linear"),
    ]  # fmt: skip
    feeds = {"x": X, "like": np.zeros((1, 2, 9, 4), np.float32), "computed": np.array([1, 1, 1.5, 2], np.float32)}
    outputs = [name for node in nodes for name in node.output if name != "goal"]
    check_nodes(nodes, feeds, SCALES, free={"x": (0, 2, 3), "like": (0, 2, 3)}, outputs=outputs)


def test_a_region_with_and_without_pixels_outside():
    roi = {
        "in": np.array([0, 0, 0.2, 0.1, 1, 1, 0.9, 0.8], np.float32),
        "out": np.array([0, 0, -0.3, 0.4, 1, 1, 0.5, 1.4], np.float32),
    }
    nodes = [
        N("Resize", ["x", region, "", "sizes"], [f"{mode}_{region}"], mode=mode, extrapolation_value=9.5,
          coordinate_transformation_mode="tf_crop_and_resize")
        for mode, region in itertools.product(["linear", "nearest", "cubic"], roi)
    ]  # fmt: skip
    check_nodes(nodes, {"x": X}, {**roi, "sizes": np.array([1, 2, 4, 7], np.int64)}, opset=17)


def test_aspect_ratio_is_kept_and_axes_are_named():
    nodes = [
        resize(policy, sizes="sizes", mode=mode, axes=[2, 3], keep_aspect_ratio_policy=policy)
        for policy, mode in (("not_larger", "linear"), ("not_smaller", "nearest"))
    ]
    check_nodes(nodes, {"x": X}, {"sizes": np.array([9, 9], np.int64)}, opset=18)


def test_one_and_three_axes_and_images_of_bytes():
    nodes = [
        resize("a", "scales", mode="linear"),
        resize("b", "scales", mode="nearest"),
        resize("c", "fewer", mode="cubic"),
    ]
    constants = {"scales": np.array([1, 1, 2], np.float32), "fewer": np.array([1, 1, 0.7], np.float32)}
    check_nodes(nodes[:2], {"x": X[0]}, constants, free={"x": (0,)})
    volume = RNG.normal(size=(1, 2, 3, 4, 5)).astype(np.float32)
    check_nodes(nodes[:2], {"x": volume}, {"scales": np.array([1, 1, 2, 1.5, 2], np.float32)})
    image = RNG.integers(0, 256, (1, 3, 4, 5)).astype(np.uint8)
    check_nodes([resize("y", "double", mode="nearest")], {"x": image}, SCALES)


def test_the_ways_before_opset_11():
    nodes = [N("Upsample", ["x", "scales"], [mode], mode=mode) for mode in ("nearest", "linear")]
    check_nodes(nodes, {"x": X}, {"scales": np.array([1, 1, 2, 3], np.float32)}, opset=9)
    check_nodes([N("Upsample", ["x"], ["y"], mode="nearest", scales=[1.0, 1.0, 2.0, 2.0])], {"x": X}, opset=7)
    nodes = [
        N("Resize", ["x", scales], [f"{mode}_{scales}"], mode=mode)
        for scales in SCALES
        for mode in ("nearest", "linear")
    ]
    check_nodes(nodes, {"x": X}, SCALES, opset=10)
