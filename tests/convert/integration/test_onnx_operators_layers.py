"""Layers, loops and branches, at sizes that only the device knows: LiteRT answers as ONNX Runtime does."""

import time

import numpy as np
import pytest
from onnx_cases import Case, Sized, Weight, together
from onnx_models import answers, check, difference, make_model, run_tflite, to_tflite

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("tensorflow")
N = onnx.helper.make_node
FLOAT, INT64, BOOL = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.BOOL
RNG = np.random.default_rng(3)


def floats(*shape) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def weight(*shape) -> Weight:
    return Weight(floats(*shape) * 0.5)


IMAGE, ROWS = Sized(floats(2, 4, 3, 5), 3), Sized(floats(2, 3, 8))
NORMALIZED = [
    Case("BatchNormalization", [IMAGE, weight(4), weight(4), weight(4), Weight(np.float32([1, 2, 0.5, 3]))]),
    Case("BatchNormalization", [IMAGE, floats(4), floats(4), floats(4), np.float32([1, 2, 0.5, 3])]),
    Case("InstanceNormalization", [IMAGE, weight(4), weight(4)]),
    Case("LayerNormalization", [ROWS, weight(8), weight(8)], {"axis": -1}, outputs=3),
    Case("LayerNormalization", [ROWS, weight(3, 8)], {"axis": 1}),
    Case("LRN", [IMAGE], {"size": 3, "alpha": 0.1}),
    Case("LpNormalization", [ROWS], {"p": 1, "axis": 1}),
    Case("MeanVarianceNormalization", [IMAGE]),
    Case("Softmax", [IMAGE], {"axis": 1}),
    Case("LogSoftmax", [ROWS]),
    Case("Hardmax", [IMAGE], {"axis": 2}),
]


def test_layers_that_normalise_answer_as_onnx_runtime():
    check(*together(NORMALIZED, opset=17))


def test_groups_and_the_root_mean_square_are_normalised_as_onnx_runtime_does():
    cases = [
        Case("GroupNormalization", [IMAGE, weight(4), weight(4)], {"num_groups": 2}),
        Case("RMSNormalization", [ROWS, weight(8)], {"epsilon": 1e-3}),
    ]
    check(*together(cases, opset=23))


def test_softmax_before_opset_13_is_of_everything_from_its_axis_on():
    check(*together([Case("Softmax", [IMAGE]), Case("LogSoftmax", [ROWS], {"axis": 2})], opset=11))


# hidden 3, features 4, batch 2
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
LENGTHS = np.array([2, 5], np.int32)


def layer(kind: str, steps: int, *more, directions: int = 1, layout: int = 0, bias: bool = True, **attributes) -> Case:
    """A recurrent layer; `more` are the inputs behind its bias."""
    g = GATES[kind]
    shape = (2, steps, 4) if layout else (steps, 2, 4)
    inputs = [
        weight(directions, g * 3, 4),
        weight(directions, g * 3, 3),
        weight(directions, 2 * g * 3) if bias else None,
    ]
    attributes |= {"hidden_size": 3, "layout": layout} if layout else {"hidden_size": 3}
    return Case(kind, [Sized(floats(*shape)), *inputs, *more], attributes, outputs=3 if kind == "LSTM" else 2)


def state(directions: int) -> Sized:
    return Sized(floats(directions, 2, 3))


BOTH = {"directions": 2, "direction": "bidirectional"}
RECURRENT = [
    layer("LSTM", 5, LENGTHS, state(2), state(2), weight(2, 9), **BOTH),
    layer("LSTM", 5, clip=0.3, bias=False),
    layer(
        "LSTM",
        5,
        activations=["HardSigmoid", "ScaledTanh", "Affine"],
        activation_alpha=[0.3, 1.5, 0.7],
        activation_beta=[0.4, 0.8, 0.1],
    ),
    layer("LSTM", 5, direction="reverse", input_forget=1),
    layer("GRU", 5, LENGTHS, state(2), linear_before_reset=1, **BOTH),
    layer("GRU", 5, clip=0.4, direction="reverse"),
    layer("GRU", 5, activations=["Sigmoid", "Softsign"], bias=False),
    layer("RNN", 5, None, state(1), activations=["Relu"]),
    layer("RNN", 5, np.array([0, 4], np.int32), activations=["LeakyRelu", "Elu"], activation_alpha=[0.2, 0.6], **BOTH),
    layer("RNN", 5, activations=["ThresholdedRelu"], activation_alpha=[0.5], clip=2.0),
    layer("RNN", 5, activations=["Softplus"]),
]


def test_recurrent_layers_of_free_length_answer_as_onnx_runtime():
    check(*together(RECURRENT))


def test_recurrent_layers_whose_batch_comes_first_keep_the_same_numbers():
    """ONNX Runtime has no layout 1: the answers are those of layout 0, turned."""
    case = layer("GRU", 5, layout=1)
    model, feeds = together([case])
    plain = Case("GRU", [np.swapaxes(case.inputs[0].array, 0, 1), *case.inputs[1:]], {"hidden_size": 3}, outputs=2)
    y, last = answers(*together([plain]))
    check(model, feeds, [y.transpose(2, 0, 1, 3), last.transpose(1, 0, 2)])


def test_a_dynamically_quantized_lstm_rounds_as_onnx_runtime_does():
    weights = {
        "w": RNG.integers(-127, 128, (1, 4, 12)).astype(np.int8),
        "r": RNG.integers(-127, 128, (1, 3, 12)).astype(np.int8),
        "scale": np.float32([0.01]),
        "zero": np.int8([3]),
    }
    inputs = ["x", "w", "r", *[""] * 5, "scale", "zero", "scale", "zero"]
    node = N("DynamicQuantizeLSTM", inputs, ["y", "h", "c"], domain="com.microsoft", hidden_size=3)
    imports = [onnx.helper.make_opsetid("com.microsoft", 1)]
    outputs = dict.fromkeys("yhc")
    model = make_model([node], {"x": ["t", 1, 4]}, outputs, weights, opset_imports=imports)
    check(model, {"x": floats(40, 1, 4)})


def test_windows_are_added_up_and_maxima_put_back_where_they_came_from():
    cases = [
        Case("Col2Im", [Sized(floats(2, 8, 6), 2), Weight(np.array([4, 3])), Weight(np.array([2, 2]))]),
        Case(
            "Col2Im",
            [Sized(floats(1, 4, 12), 2), Weight(np.array([5, 5])), Weight(np.array([2, 2]))],
            {"pads": [0, 1, 0, 1], "strides": [2, 1]},
        ),
    ]
    check(*together(cases, opset=18))
    pooled = [
        N("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2], strides=[1, 2]),
        N("MaxUnpool", ["y", "i"], ["z"], kernel_shape=[2, 2], strides=[1, 2]),
    ]
    x = floats(1, 2, 4, 6)
    y, i = answers(make_model(pooled[:1], {"x": list(x.shape)}, {"y": None, "i": None}), {"x": x})
    expected = np.zeros(x.size, np.float32)
    expected[i.ravel()] = y.ravel()
    check(make_model(pooled, {"x": list(x.shape)}, {"z": None}), {"x": x}, [expected.reshape(x.shape)])


def test_a_long_recurrent_layer_takes_time_in_proportion_to_its_length():
    model, feeds = together([layer("GRU", 64)])
    data = to_tflite(model)
    (name,) = feeds

    def seconds(steps: int) -> float:
        x = np.tile(feeds[name], (steps // 64, 1, 1))
        found, best = None, float("inf")
        for _ in range(3):
            begin = time.perf_counter()
            found = run_tflite(data, [x])
            best = min(best, time.perf_counter() - begin)
        assert difference(answers(model, {name: x})[0], found[0]) < 1e-4
        return best

    assert seconds(6400) < 30 * seconds(640)  # rows copied at every step made it 60 times


def body(nodes, inputs, outputs, constants=()):
    def values(specs):
        return [onnx.helper.make_tensor_value_info(name, kind, shape) for name, (shape, kind) in specs.items()]

    tensors = [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in dict(constants).items()]
    return onnx.helper.make_graph(nodes, "body", values(inputs), values(outputs), tensors)


def test_loops_with_scan_outputs_run_as_long_as_the_data_say():
    """acc = acc / 2 + x[i], until it is above 3 or x has ended; every acc is an output."""
    step = body(
        [
            N("Gather", ["x", "i"], ["row"]),
            N("Mul", ["acc", "half"], ["less"]),
            N("Add", ["less", "row"], ["new"]),
            N("ReduceMax", ["new"], ["top"], keepdims=0),
            N("Less", ["top", "three"], ["go_on"]),
            N("Identity", ["new"], ["out"]),
        ],
        {"i": ([], INT64), "go": ([], BOOL), "acc": ([2], FLOAT)},
        {"go_on": ([], BOOL), "new": ([2], FLOAT), "out": ([2], FLOAT)},
        {"half": np.float32(0.5), "three": np.float32(3)},
    )
    nodes = [
        N("Shape", ["x"], ["n"], end=1),
        N("Squeeze", ["n"], ["count"]),
        N("Loop", ["count", "", "zero"], ["last", "all"], body=step),
        N("Loop", ["few", "yes", "zero"], ["last_few", "all_few"], body=step),
    ]
    weights = {"zero": np.zeros(2, np.float32), "few": np.int64(4), "yes": np.array(True)}
    outputs = dict.fromkeys(("last", "all", "last_few", "all_few"))
    model = make_model(nodes, {"x": ["n", 2]}, outputs, weights)
    data = check(model, {"x": np.full((100, 2), 0.7, np.float32)})
    for x in (np.full((5, 2), 0.5, np.float32), np.full((9, 2), 2, np.float32)):
        for expected, found in zip(answers(model, {"x": x}), run_tflite(data, [x]), strict=True):
            assert difference(expected, found) < 1e-6


def test_scans_of_free_length_walk_both_ways_and_put_their_axis_where_it_belongs():
    step = body(
        [N("Add", ["total", "a"], ["new"]), N("Mul", ["new", "b"], ["out"])],
        {"total": ([3], FLOAT), "a": ([3], FLOAT), "b": ([3], FLOAT)},
        {"new": ([3], FLOAT), "out": ([3], FLOAT)},
    )
    directions = {"scan_input_axes": [0, 1], "scan_input_directions": [0, 1], "scan_output_axes": [1]}
    nodes = [
        N("Scan", ["start", "a", "b"], ["last", "all"], body=step, num_scan_inputs=2, **directions),
        N(
            "Scan",
            ["start", "a", "b"],
            ["end", "back"],
            body=step,
            num_scan_inputs=2,
            scan_output_directions=[1],
            **directions,
        ),
    ]
    inputs = {"start": [3], "a": ["n", 3], "b": [3, "n"]}
    model = make_model(nodes, inputs, dict.fromkeys(("last", "all", "end", "back")))
    data = check(model, {"start": floats(3), "a": floats(7, 3), "b": floats(3, 7)})
    feeds = {"start": floats(3), "a": floats(150, 3) * 0.1, "b": floats(3, 150)}
    for expected, found in zip(answers(model, feeds), run_tflite(data, list(feeds.values())), strict=True):
        assert difference(expected, found) < 1e-5


def test_the_branch_of_an_if_is_chosen_by_the_sizes_or_by_the_data():
    def branch(op, **attributes):
        return body([N(op, ["x"], [f"{op}_out"], **attributes)], {}, {f"{op}_out": (None, FLOAT)})

    nodes = [
        N("Shape", ["x"], ["sizes"]),
        N("Gather", ["sizes", "one"], ["width"]),
        N("Equal", ["width", "one"], ["narrow"]),
        N("If", ["narrow"], ["y"], then_branch=branch("Flatten", axis=0), else_branch=branch("Relu")),
        N("ReduceMax", ["x"], ["top"], keepdims=0),
        N("Greater", ["top", "zero"], ["positive"]),
        N("If", ["positive"], ["z"], then_branch=branch("Relu"), else_branch=branch("Neg")),
    ]
    weights = {"one": np.int64(1), "zero": np.float32(0)}
    model = make_model(nodes, {"x": ["n", 2]}, {"y": None, "z": None}, weights)
    data = check(model, {"x": np.abs(floats(3, 2))})
    below = -np.abs(floats(4, 2))
    assert difference(-below, run_tflite(data, [below])[1]) == 0
