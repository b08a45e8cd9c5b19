"""tf2onnx goes through sets of its nodes: in the same order in every process."""

from random import Random

from edgeloop.convert.forms.onnx import _number_nodes


def test_a_set_of_nodes_goes_by_their_first_entry_whatever_their_addresses():
    class Node:
        pass

    _number_nodes(Node)
    nodes = [Node() for _ in range(50)]
    Random(0).shuffle(nodes)  # addresses rise in the order of making
    assert list(set(nodes)) == nodes
