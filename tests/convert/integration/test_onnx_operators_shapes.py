"""Operators that move elements, at sizes that only the device knows: LiteRT answers as ONNX Runtime does."""

import numpy as np
import pytest
from onnx_cases import Case, Sized, Weight, together
from onnx_models import answers, check, difference, make_model, run_tflite, to_tflite

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("tensorflow")
N = onnx.helper.make_node
FLOAT, INT64, BOOL = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.BOOL
RNG = np.random.default_rng(11)


def floats(*shape) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def whole(*numbers) -> np.ndarray:
    return np.array(numbers, np.int64)


X = floats(2, 3, 4)
RESHAPES = [
    Case("Reshape", [X, Weight(whole(0, -1))]),
    Case("Reshape", [X, Weight(whole(4, 0, 2))]),
    Case("Flatten", [X], {"axis": 2}),
    Case("Flatten", [X], {"axis": -3}),
    Case("Transpose", [X], {"perm": [2, 0, 1]}),
    Case("Unsqueeze", [X, Weight(whole(-1, 0))]),
    Case("Squeeze", [floats(1, 3, 1), Weight(whole(0, -1))]),
    Case("Expand", [floats(3, 1), Weight(whole(2, 1, 4))]),
    Case("Expand", [floats(2, 3), whole(4, 2, 3)]),
    Case("Tile", [X, whole(1, 2, 3)]),
    Case("Concat", [X, floats(2, 1, 4)], {"axis": -2}),
    Case("Split", [X], {"axis": 2, "num_outputs": 2}, outputs=2),
    Case("Split", [X, whole(1, 2)], {"axis": 1}, outputs=2),
    Case("Shape", [X], {"start": -2}),
    Case("Size", [X]),
    Case("Trilu", [X, whole(1).reshape(())], {"upper": 0}),
    Case("OneHot", [whole(1, -1, 5), Weight(np.int64(3)), Weight(np.float32([0.5, 2]))], {"axis": 0}),
    Case("Range", [np.float32(1), np.float32(9), np.float32(2.5)]),
    Case("ConstantOfShape", [whole(2, 3)]),
    Case("DepthToSpace", [floats(1, 8, 2, 3)], {"blocksize": 2}),
    Case("ReverseSequence", [floats(4, 3), whole(4, 1, 3)]),
]
SLICES = [
    Case("Slice", [X, Weight(whole(-1)), Weight(whole(-(2**63))), Weight(whole(2)), Weight(whole(-2))]),
    Case("Slice", [X, Weight(whole(1, 0)), Weight(whole(2**63 - 1, 2)), Weight(whole(-1, 1))]),
    Case("Slice", [Sized(X), Weight(whole(-9)), Weight(whole(-99)), Weight(whole(2)), Weight(whole(-1))]),
    Case("Slice", [X, whole(1), whole(3), Weight(whole(1))]),
    Case("Slice", [X, whole(-2, 0), whole(100, 2), whole(2, -2), whole(1, 1)]),
    Case("Slice", [X, whole(3, 1), whole(0, -(2**31)), whole(2, 0), whole(-2, -1)]),
]
NUMBERS = np.float32([[3, 1, 2], [1, 3, 3]])
INDEXED = [
    Case("Gather", [X, whole(-1, 0)], {"axis": 1}),
    Case("Gather", [X, whole(0, 2, 1, -2).reshape(2, 2)], {"axis": 2}),
    Case("Gather", [X, Weight(np.int64(-1))], {"axis": 0}),
    Case("GatherElements", [X, whole(0, -1, 1, 0, 2, 1, -3, 0).reshape(2, 1, 4)], {"axis": 1}),
    Case("GatherND", [X, whole(0, 1, 1, -1).reshape(2, 2)]),
    Case("GatherND", [X, whole(2, 0).reshape(2, 1)], {"batch_dims": 1}),
    Case("Compress", [X, np.array([False, True, True])], {"axis": 1}),
    Case("Compress", [X, np.array([False, True, True, False, True])]),
    Case("NonZero", [np.float32([[0, 1, 0], [2, 0, -3]])]),
    Case("Unique", [NUMBERS], outputs=4),
    Case("Unique", [NUMBERS], {"sorted": 0}, outputs=4),
]
PLACES, UPDATES = whole(1, 1, 0, 1).reshape(2, 2), np.float32([[2, 3], [4, 5]])
SCATTERED = [
    *(
        Case("ScatterElements", [floats(2, 3), PLACES, UPDATES], {"axis": 1, "reduction": reduction})
        for reduction in ("add", "mul", "max", "min")
    ),
    *(
        Case("ScatterND", [floats(3, 2), whole(2, 0, 2, -3).reshape(4, 1), floats(4, 2)], {"reduction": reduction})
        for reduction in ("add", "mul", "max", "min")
    ),
    Case("ScatterElements", [floats(3, 2), whole(-1, 0).reshape(1, 2), floats(1, 2)]),
    Case("ScatterND", [floats(3, 2), whole(2, 0).reshape(2, 1), floats(2, 2)]),
]


@pytest.mark.parametrize(
    "cases", [RESHAPES, SLICES, INDEXED, SCATTERED], ids=["reshapes", "slices", "indexed", "scattered"]
)
def test_elements_are_moved_as_onnx_runtime_moves_them_at_free_sizes(cases):
    check(*together(cases))


def test_a_tensor_that_lies_channels_last_is_reshaped_sliced_and_gathered_in_onnx_s_order():
    nodes = [
        N("DepthToSpace", ["x"], ["y"], blocksize=2),  # LiteRT's kernel leaves it channels last
        N("Reshape", ["y", "flat"], ["a"]),
        N("Slice", ["y", "one", "three", "axis"], ["b"]),
        N("Gather", ["y", "three"], ["c"], axis=3),
        N("ScatterElements", ["y", "places", "numbers"], ["d"], axis=1),
        N("Concat", ["y", "y"], ["e"], axis=1),
        N("Squeeze", ["y", "first"], ["f"]),
        N("Compress", ["y", "condition"], ["g"], axis=2),
    ]
    weights = {
        "flat": whole(1, 2, -1),
        "one": whole(1),
        "three": whole(3),
        "axis": whole(2),
        "first": whole(0),
        "places": whole(1, 0, 1).reshape(1, 1, 1, 3),
        "numbers": np.float32([1, 2, 3]).reshape(1, 1, 1, 3),
        "condition": np.array([True, False, True]),
    }
    model = make_model(nodes, {"x": [1, 8, "height", "width"]}, dict.fromkeys("abcdefg"), weights, opset=22)
    check(model, {"x": floats(1, 8, 2, 3)})


def test_as_many_of_some_constants_as_a_free_dimension_has_are_cut_when_the_model_runs():
    nodes = [
        N("Shape", ["x"], ["length"], start=1),
        N("Slice", ["all_places", "zero", "length"], ["places"]),  # the positions of a text's tokens
        N("Sub", ["length", "one"], ["before"]),
        N("Slice", ["all_places", "before", "length"], ["last"]),
        N("Gather", ["table", "places"], ["y"]),
    ]
    weights = {"zero": whole(0), "one": whole(1), "all_places": np.arange(2, 18), "table": floats(18, 3)}
    model = make_model(nodes, {"x": [1, "length"]}, {"y": None, "last": ([1], INT64)}, weights)
    check(model, {"x": floats(1, 5)})


def test_a_convolution_behind_widths_that_are_computed_from_a_free_size_keeps_its_channels():
    """PyTorch's F.pad: the widths of the last axis come first, so that they are turned round as pairs."""
    nodes = [
        N("Shape", ["x"], ["shape"]),
        N("Gather", ["shape", "two"], ["height"]),
        N("Mod", ["height", "eight"], ["over"]),
        N("Sub", ["eight", "over"], ["more"]),
        N("Concat", ["one", "one", "none", "more", "none", "none", "none", "none"], ["widths"], axis=0),
        N("Reshape", ["widths", "pairs"], ["turned"]),
        N("Slice", ["turned", "last", "before", "none", "last"], ["right"]),
        N("Transpose", ["right"], ["sides"], perm=[1, 0]),
        N("Reshape", ["sides", "last"], ["flat"]),
        N("Pad", ["x", "flat"], ["padded"]),
        N("Conv", ["padded", "w"], ["y"], strides=[2, 2]),
        N("Slice", ["shape", "none", "two_of"], ["front"]),
        N("Concat", ["front", "five", "four"], ["size"], axis=0),
        N("AffineGrid", ["theta", "size"], ["grid"]),
    ]
    constants = {
        **{name: whole(value) for name, value in {"eight": 8, "one": 1, "none": 0, "last": -1, "before": -9}.items()},
        "two": whole(2),
        "two_of": whole(2),
        "five": whole(5),
        "four": whole(4),
        "pairs": whole(-1, 2),
    }
    ends = {"x": ["n", 3, "height", 6], "theta": ["n", 2, 3]}
    model = make_model(nodes, ends, dict.fromkeys(["y", "grid"]), {**constants, "w": floats(4, 3, 3, 3)}, opset=20)
    check(model, {"x": floats(2, 3, 13, 6), "theta": floats(2, 2, 3)})


def test_what_a_computed_size_is_as_a_bool_or_without_its_fraction_is_not_known_before():
    nodes = [
        N("Shape", ["x"], ["length"]),
        N("Mod", ["length", "three"], ["rest"]),
        N("Cast", ["rest"], ["some"], to=BOOL),
        N("Cast", ["length"], ["long"], to=FLOAT),
        N("Mul", ["long", "part"], ["few"]),
        N("Cast", ["few"], ["none"], to=INT64),
    ]
    model = make_model(
        nodes, {"x": ["length"]}, {"some": None, "none": None}, {"three": whole(3), "part": np.float32(1e-6)}
    )
    check(model, {"x": floats(6)})
    data = to_tflite(model)
    assert [v.tolist() for v in run_tflite(data, [floats(7)])] == [[True], [0]]
    assert [v.tolist() for v in run_tflite(data, [np.zeros(2_000_000, np.float32)])] == [[True], [2]]


def test_unique_slices_along_an_axis_come_in_order():
    rows = np.float32([[1, 0], [0, 1], [1, 0], [0, 0]])
    model = make_model([N("Unique", ["x"], list("abcd"), axis=0)], {"x": ["n", 2]}, dict.fromkeys("abcd"))
    check(model, {"x": rows}, [np.float32([[0, 0], [0, 1], [1, 0]]), whole(3, 1, 0), whole(2, 1, 2, 0), whole(1, 1, 2)])


def test_sequences_of_a_known_length_leave_no_trace():
    nodes = [
        N("SplitToSequence", ["x"], ["parts"], axis=1, keepdims=0),
        N("SequenceInsert", ["parts", "x0", "zero"], ["more"]),
        N("SequenceErase", ["more", "two"], ["fewer"]),
        N("SequenceLength", ["fewer"], ["count"]),
        N("SequenceAt", ["fewer", "last"], ["z"]),
        N("ConcatFromSequence", ["fewer"], ["y"], axis=1, new_axis=1),
    ]
    weights = {"zero": np.int64(0), "two": np.int64(2), "last": np.int64(-1)}
    outputs = {"count": ([], INT64), "z": ["n"], "y": ["n", 3]}
    data = check(
        make_model(nodes, {"x": ["n", 3], "x0": ["n"]}, outputs, weights), {"x": floats(2, 3), "x0": floats(2)}
    )
    assert b"while" not in data.lower()


@pytest.mark.parametrize("batch", [2, "n"])
def test_rows_of_no_elements_stay_as_many(batch):
    from edgeloop.convert.onnx.importer import import_onnx

    model = make_model([N("Flatten", ["x"], ["y"], axis=1)], {"x": [batch, 0, 3]}, {"y": None})
    found = import_onnx(model).traced()(np.zeros((2, 0, 3), np.float32))
    assert found["output_0"].shape == answers(model, {"x": np.zeros((2, 0, 3), np.float32)})[0].shape == (2, 0)


def test_a_model_that_was_converted_at_one_size_answers_at_another():
    model, feeds = together(RESHAPES[2:5] + INDEXED[:1])
    data = to_tflite(model)
    larger = {
        name: np.tile(array, (2, *[1] * (array.ndim - 1))) if array.ndim == 3 else array
        for name, array in feeds.items()
    }
    found = run_tflite(data, [larger[v.name] for v in model.graph.input])
    assert max(difference(e, f) for e, f in zip(answers(model, larger), found, strict=True)) == 0
