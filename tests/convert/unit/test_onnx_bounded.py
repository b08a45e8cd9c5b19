"""Which outputs of an .onnx lie in 0..1 by construction."""

import pytest

from edgeloop.convert.sources.onnx_bounded import bounded_outputs

helper = pytest.importorskip("onnx").helper


def graph(*nodes, outputs):
    made = [helper.make_node(op, inputs, [name], **attributes) for op, inputs, name, attributes in nodes]
    return helper.make_graph(made, "g", [], [helper.make_tensor_value_info(name, 1, None) for name in outputs])


def test_a_sigmoid_that_is_only_moved_is_bounded_and_one_that_is_scaled_is_not():
    made = graph(
        ("Sigmoid", ["x"], "s", {}),
        ("Reshape", ["s", "shape"], "r", {}),
        ("Mul", ["s", "two"], "m", {}),
        ("Softmax", ["x"], "p", {}),
        outputs=["r", "m", "p", "x"],
    )
    assert bounded_outputs(made) == ["r", "p"]


def test_an_if_is_bounded_where_both_of_its_branches_are():
    sigmoid, relu = (graph((op, ["x"], "y", {}), outputs=["y"]) for op in ("Sigmoid", "Relu"))
    for other, found in ((sigmoid, ["z"]), (relu, [])):
        made = graph(("If", ["c"], "z", {"then_branch": sigmoid, "else_branch": other}), outputs=["z"])
        assert bounded_outputs(made) == found


def test_a_branch_may_move_what_is_bounded_outside_of_it():
    moved, kept = (graph((op, ["p"], "y", {}), outputs=["y"]) for op in ("Squeeze", "Identity"))  # PyTorch's squeeze
    made = graph(
        ("Sigmoid", ["x"], "p", {}), ("If", ["c"], "z", {"then_branch": moved, "else_branch": kept}), outputs=["z"]
    )
    assert bounded_outputs(made) == ["z"]
