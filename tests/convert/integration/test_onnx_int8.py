"""int8 ONNX of graphs made by hand: what stays in float, and how near the answers are to the float graph's own."""

from types import SimpleNamespace

import numpy as np
import pytest
from signal_to_noise import snr_db

from edgeloop.bundle import Format, Scheme
from edgeloop.convert.form import Form, FormLog
from edgeloop.convert.samples import Samples
from edgeloop.errors import ModelError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 8, 16)).astype(np.float32)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "1")


def graph(nodes, constants, shape=("batch", 8, 16)):
    """A model of nodes (operator, inputs, output, attributes) from `x` to `y`."""
    import onnx

    make, number = onnx.helper, onnx.TensorProto.FLOAT
    made = [make.make_node(op, given.split(), [out], name=f"net/{out}", **more) for op, given, out, more in nodes]
    ends = [[make.make_tensor_value_info(name, number, of)] for name, of in (("x", shape), ("y", None))]
    weights = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    model = make.make_model(
        make.make_graph(made, "g", *ends, weights), opset_imports=[make.make_opsetid("", 18)], ir_version=9
    )
    return model.SerializeToString()


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def number(value):
    return np.array(value, np.float32)


def run(data, x=X):
    import onnxruntime

    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def in_int8(data, x=X):
    from edgeloop.convert.forms.onnx_int8 import to_int8

    return to_int8(data, Samples(inputs={"x": x}), None)


def gelu():
    """Dense, x / 2 * (1 + erf(x / 1.41)), Dense."""
    nodes = [
        ("MatMul", "x a", "h", {}),
        ("Mul", "h root", "scaled", {}),
        ("Erf", "scaled", "erf", {}),
        ("Add", "erf one", "gate", {}),
        ("Mul", "h gate", "gated", {}),
        ("Mul", "gated half", "act", {}),
        ("MatMul", "act b", "y", {}),
    ]
    weights = {"a": normal(16, 32), "b": normal(32, 8)}
    return graph(nodes, {**weights, "root": number(0.5**0.5), "one": number(1), "half": number(0.5)})


def test_what_has_no_int8_kernel_stays_in_float_with_the_arithmetic_around_it():
    data = gelu()
    made = in_int8(data)
    assert sorted(op.op for op in made.left) == ["Add", "Erf", "Mul", "Mul", "Mul"]
    # a range of 4 deviations in 255 steps is -49 dB; there are four of them, of 16 and 32 terms each
    assert snr_db(run(data), run(made.data)) > 33


def test_a_mean_on_which_a_normalization_depends_stays_in_float():
    nodes = [
        ("MatMul", "x a", "h", {}),
        ("ReduceMean", "h axes", "mean", {}),
        ("Sub", "h mean", "centred", {}),
        ("Mul", "centred centred", "square", {}),
        ("ReduceMean", "square axes", "variance", {}),
        ("Add", "variance least", "positive", {}),
        ("Sqrt", "positive", "deviation", {}),
        ("Div", "centred deviation", "normal", {}),
        ("MatMul", "normal b", "y", {}),
    ]
    # over the positions, as an instance normalization does, in which GlobalAveragePool would otherwise do
    data = graph(nodes, {"a": normal(16, 16), "b": normal(16, 8), "axes": np.array([1]), "least": number(1e-3)})
    made = in_int8(data)
    assert {op.op for op in made.left} == {"ReduceMean", "Sub", "Mul", "Add", "Sqrt", "Div"}
    assert snr_db(run(data), run(made.data)) > 33


def test_a_mean_over_positions_behind_a_normalization_stays_in_float_across_what_moves_its_values():
    nodes = [
        ("MatMul", "x a", "h", {}),
        ("Tanh", "h", "t", {}),
        ("Reshape", "t shape", "r", {}),
        ("Transpose", "r", "turned", {"perm": [0, 2, 1]}),
        ("GlobalAveragePool", "turned", "m", {}),
        ("Flatten", "m", "f", {}),
        ("Gemm", "f b", "y", {}),
    ]
    data = graph(nodes, {"a": normal(16, 16) / 4, "shape": np.array([0, -1, 16]), "b": normal(16, 8)})
    made = in_int8(data)
    assert sorted(op.op for op in made.left) == ["GlobalAveragePool", "Tanh"]
    assert snr_db(run(data), run(made.data)) > 33


def test_the_weights_of_a_layer_that_stays_in_float_are_stored_in_int8():
    nodes = [
        ("Transpose", "x", "t", {"perm": [1, 0, 2]}),
        ("LSTM", "t w r", "all", {"hidden_size": 32}),
        ("Squeeze", "all one", "s", {}),
        ("MatMul", "s b", "y", {}),
    ]
    weights = {"w": normal(1, 128, 16) / 4, "r": normal(1, 128, 32) / 4, "b": normal(32, 8)}
    data = graph(nodes, {**weights, "one": np.array([1])})
    made = in_int8(data)
    assert [op.op for op in made.left] == ["LSTM"]
    assert len(made.data) < 0.5 * len(data)  # 25 kB of weights; names and scales are 3 kB
    assert snr_db(run(data), run(made.data)) > 33


def test_a_mask_does_not_take_the_range_of_the_scores():
    """Softmax of scores between -20 and 20 and a mask of -1e9: in 255 steps of one range, all scores would be equal."""
    nodes = [
        ("MatMul", "x a", "q", {}),
        ("Transpose", "x", "k", {"perm": [0, 2, 1]}),
        ("MatMul", "q k", "scores", {}),
        ("Add", "scores mask", "masked", {}),
        ("Softmax", "masked", "share", {}),
        ("MatMul", "share x", "y", {}),
    ]
    mask = np.triu(np.full((8, 8), -1e9, np.float32), 1)
    data = graph(nodes, {"a": normal(16, 16) / 8, "mask": mask})
    made = in_int8(data)
    assert {op.op for op in made.left} == {"Add", "Softmax"}
    assert snr_db(run(data), run(made.data)) > 28


def test_biases_make_up_for_what_rounded_weights_lose_on_average():
    """Inputs of mean 5 through 0.3 steps that each weight is rounded by: 16 * 9 * 0.3 * 5 steps too little."""
    kernel = np.full((4, 16, 3, 3), 0.3 / 127, np.float32)  # rounds to 0
    kernel[:, 0, 1, 1] = 1
    data = graph([("Conv", "x k", "y", {})], {"k": kernel}, ("batch", 16, 8, 8))
    x = (5 + RNG.normal(size=(32, 16, 8, 8))).astype(np.float32)
    made = in_int8(data, x)
    assert not made.left
    lost = 5 * 0.3 / 127 * (16 * 9 - 1)  # 1.7
    assert abs(float((run(made.data, x) - run(data, x)).mean())) < lost / 50


def test_pooled_in_steps_of_its_own_a_sequence_leaves_nothing_in_float():
    nodes = [("MatMul", "x a", "h", {}), ("ReduceMean", "h axes", "m", {"keepdims": 0}), ("MatMul", "m b", "y", {})]
    data = graph(nodes, {"a": normal(16, 32), "b": normal(32, 8), "axes": np.array([1])})
    made = in_int8(data)
    assert not made.left
    assert snr_db(run(data), run(made.data)) > 30


def test_a_file_that_would_be_no_smaller_is_refused_by_what_keeps_it_large():
    with pytest.raises(
        ModelError, match=r"save less than 10% of the bytes of its weights: Tanh of net/y stayed in float"
    ):
        in_int8(graph([("Tanh", "x", "y", {})], {}))


def test_int8_in_part_is_mixed_in_the_manifest_and_refused_where_int8_was_asked_for(tmp_path):
    from edgeloop.convert.exports.graph_variants import _onnx_int8

    said = []
    source = SimpleNamespace(inputs=[SimpleNamespace(name="x", shape=(None, 8, 16))], signature="infer")
    log = FormLog("m.keras", tmp_path / "m", said.append)
    form = Form(id="onnx-int8", format=Format.ONNX, scheme=Scheme.INT8)
    variant = _onnx_int8(gelu(), source, Samples(inputs={"x": X}), form, log).variant
    assert variant.id == "onnx-int8" and variant.scheme is Scheme.MIXED
    note = (
        "Mul of net/scaled and 2 more stayed in float; Erf of net/erf stayed in float; Add of net/gate stayed in float"
    )
    assert variant.notes == (f"int8, but {note}",)
    assert said == ["onnx-int8 is int8 in part: Mul, Erf, Add stayed in float."]
    named = Form(id="onnx-int8", format=Format.ONNX, scheme=Scheme.INT8, named=True)
    with pytest.raises(ModelError, match="cannot be fully int8: Mul of net/scaled"):
        _onnx_int8(gelu(), source, Samples(inputs={"x": X}), named, log)


def test_the_way_of_a_mask_through_sums_of_sums_is_walked_once():
    """40 sums of a value and its transpose: 2^40 ways from the last to the first."""
    onnx = pytest.importorskip("onnx")
    from edgeloop.convert.forms.onnx_graph import OnnxGraph
    from edgeloop.convert.forms.onnx_islands import float_nodes

    make, nodes, last = onnx.helper.make_node, [], "x"
    for i in range(40):
        nodes.append(make("Transpose", [last], [f"t{i}"], perm=[0, 1]))
        nodes.append(make("Add", [last, f"t{i}"], [f"a{i}"]))
        last = f"a{i}"
    nodes.append(make("Softmax", [last], ["y"]))
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [4, 4]) for name in "xy")
    graph = OnnxGraph(onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [x], [y])))
    ranges = {name: (np.float32(-1e4), np.float32(1e4)) for name in ("x", *graph.made_by)}
    assert len(float_nodes(graph, ranges)) == 81
