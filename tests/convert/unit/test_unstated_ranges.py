"""Whether a model that was trained under fake quantization states what int8 needs."""

from types import SimpleNamespace

import pytest

from edgeloop.convert.sources.unstated_ranges import unstated_inputs


def graph(inner=(), **nodes):
    """name="Op input input" of the main graph; `inner` are operators in a function."""
    made = [SimpleNamespace(name=n, op=text.split()[0], input=text.split()[1:]) for n, text in nodes.items()]
    function = SimpleNamespace(node_def=[SimpleNamespace(op=op) for op in inner])
    return SimpleNamespace(node=made, library=SimpleNamespace(function=[function] if inner else []))


NET = {"x": "Placeholder", "rx": "Mul x", "w": "Const", "same": "Identity w", "a": "Conv2D rx same", "r": "Mul a"}
NET |= {"p": "Pad x:0 sizes ^a", "sizes": "Const", "q": "ConcatV2 r rx axis", "axis": "Const"}


@pytest.mark.parametrize(
    ("more", "stated", "expected"),
    [
        ({}, {"rx", "r"}, (0, 1)),
        ({}, {"r"}, (1, 1)),  # one annotated layer: what it makes is rounded, what it takes is not
        ({"y": "MatMul a w"}, {"rx", "r"}, (1, 2)),
        ({"y": "MatMul w r:0"}, {"rx", "r"}, (0, 2)),
        ({"y": "MatMul q w"}, {"rx", "r"}, (0, 2)),
        ({"y": "MatMul q w"}, {"r"}, (2, 2)),  # both parts of a concatenation
        ({"y": "MatMul p w"}, {"rx", "r"}, (1, 2)),
        ({"y": "MatMul p w"}, {"rx", "x"}, (0, 2)),
        ({"s": "Sigmoid r", "y": "MatMul s w"}, {"rx", "r"}, (1, 2)),
        ({"inner": ["Relu", "MatMul"]}, {"rx", "r"}, (1, 2)),
    ],
)
def test_the_inputs_of_weighted_operators_whose_ranges_are_not_stated_are_counted(more, stated, expected):
    assert unstated_inputs(graph(**NET, **more), stated) == expected
