"""What the graph for TF.js holds instead of what Grappler would make an operation of that TF.js lacks."""

import base64
from types import SimpleNamespace

import numpy as np
import pytest

from edgeloop.convert.forms.tfjs_graph import for_tfjs, unfuse_tensors
from edgeloop.convert.forms.tfjs_nodes import needs_shapes

tf = pytest.importorskip("tensorflow")

X = np.array([[-4.0, -3.0, -1.0, 0.0, 2.0, 3.0, 5.0]], np.float32)
HARD_SWISH = X * np.clip(X + 3, 0, 6) / 6


def test_a_hard_swish_is_clipped_without_relu6_and_computes_the_same():
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 7], "x")
        tf.identity(x * tf.nn.relu6(x + 3.0) * (1 / 6), "y")
        tf.identity(tf.nn.relu6(x), "z")
    made = for_tfjs(SimpleNamespace(graph=graph.as_graph_def()))
    assert [node.op for node in made.node].count("Relu6") == 1  # the one of z
    with tf.Graph().as_default() as again, tf.compat.v1.Session(graph=again) as session:
        tf.import_graph_def(made, name="")
        np.testing.assert_allclose(session.run("y:0", {"x:0": X}), HARD_SWISH, rtol=1e-6)


def same(made, graph, feeds):
    """The result `y` of both graphs."""
    results = []
    for definition in (made, graph.as_graph_def()):
        with tf.Graph().as_default() as again, tf.compat.v1.Session(graph=again) as session:
            tf.import_graph_def(definition, name="")
            results.append(session.run("y:0", feeds))
    np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("depth", "strides", "operations"),
    [(1, 2, {"DepthwiseConv2dNative": 1}), (2, 1, {"Conv2D": 3}), (6, 1, {"Conv2D": 1})],
)
def test_a_convolution_of_groups_is_depthwise_or_one_for_each_group(depth, strides, operations):
    rng = np.random.default_rng(0)
    image, weights = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 7, 6, 6), (3, 3, depth, 12)))
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, None, 6, 6], "x")
        tf.identity(tf.nn.conv2d(x, tf.constant(weights), strides, "SAME"), "y")
    made = for_tfjs(SimpleNamespace(graph=graph.as_graph_def()))
    found = [node.op for node in made.node if "Conv" in node.op]
    assert {op: found.count(op) for op in found} == operations
    same(made, graph, {"x:0": image})


@pytest.mark.parametrize("between", ["relu", "concat"])
def test_channels_are_told_without_shapes_only_across_operations_that_keep_them(between):
    """A concatenation of 8 channels twice has 16, of which weights of 8 make a convolution of two groups."""
    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 3, 4, 8), (3, 3, 8, 4)))
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 6, 6, 4], "x")
        y = tf.nn.conv2d(x, first, 1, "SAME")
        y = tf.nn.relu(y) if between == "relu" else tf.concat([y, y], -1)
        tf.identity(tf.nn.conv2d(y, second, 1, "SAME"), "y")
    known = between == "relu"
    assert needs_shapes(graph.as_graph_def()) is not known
    made = for_tfjs(SimpleNamespace(graph=graph.as_graph_def()))
    assert [node.op for node in made.node].count("Conv2D") == (2 if known else 3)
    same(made, graph, {"x:0": rng.normal(size=(2, 6, 6, 4)).astype(np.float32)})


def test_each_row_is_reversed_from_its_own_end():
    rng = np.random.default_rng(0)
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, None, 3], "x")
        n = tf.compat.v1.placeholder(tf.int32, [None], "n")
        tf.identity(tf.reverse_sequence(x, n, seq_axis=0, batch_axis=1), "y")
    made = for_tfjs(SimpleNamespace(graph=graph.as_graph_def()))
    assert not {"ReverseSequence", "GatherNd"} & {node.op for node in made.node}
    same(made, graph, {"x:0": rng.normal(size=(5, 4, 3)).astype(np.float32), "n:0": [0, 1, 3, 5]})


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_a_batch_norm_in_training_measures_its_input(layout):
    """As in Keras 2's LayerNormalization; TF.js would take the empty mean and variance. Expected: by NumPy."""
    rng, epsilon = np.random.default_rng(0), 1e-3
    image, scale, offset = (rng.normal(size=size).astype(np.float32) for size in ((2, 3, 4, 5), 5, 5))
    off = image - image.mean((0, 1, 2))
    expected = off / np.sqrt((off**2).mean((0, 1, 2)) + epsilon) * scale + offset
    image = image if layout == "NHWC" else image.transpose(0, 3, 1, 2)
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, image.shape, "x")
        norm = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=scale,
            offset=offset,
            mean=tf.zeros([0]),
            variance=tf.zeros([0]),
            epsilon=epsilon,
            data_format=layout,
            is_training=True,
        )
        tf.identity(norm.y, "y")
    made = for_tfjs(SimpleNamespace(graph=graph.as_graph_def()))
    assert "FusedBatchNormV3" not in {node.op for node in made.node}
    with tf.Graph().as_default() as again, tf.compat.v1.Session(graph=again) as session:
        tf.import_graph_def(made, name="")
        answer = session.run("y:0", {"x:0": image})
    np.testing.assert_allclose(answer if layout == "NHWC" else answer.transpose(0, 2, 3, 1), expected, atol=1e-5)


@pytest.mark.parametrize(("turned", "ops"), [(True, ["MatMul", "AddV2"]), (False, ["_FusedMatMul"])])
def test_a_fused_product_of_a_transposed_matrix_is_split_as_tfjs_computes_it_wrong(turned, ops):
    vector = {"value": {"tensor": {"tensorShape": {"dim": [{"size": "3"}]}}}}
    fused = {
        "T": {},
        "fused_ops": {"list": {"s": [base64.b64encode(b"BiasAdd").decode()]}},
        "transpose_a": {"b": turned},
    }
    product = {"name": "y", "op": "_FusedMatMul", "input": ["x", "w", "b"], "attr": fused}
    topology = {"node": [{"name": "b", "op": "Const", "attr": vector}, product]}
    unfuse_tensors(topology)
    assert [node["op"] for node in topology["node"][1:]] == ops


@pytest.mark.parametrize(
    ("activation", "operations"), [("Tanh", ["Conv2D", "AddV2", "Tanh"]), ("Relu", ["_FusedConv2D"])]
)
def test_an_activation_that_tfjs_does_not_fuse_is_an_operation_of_its_own(activation, operations):
    words = [base64.b64encode(word.encode()).decode() for word in ("BiasAdd", activation)]
    fused = {"T": {"type": "DT_FLOAT"}, "fused_ops": {"list": {"s": words}}}
    vector = {"value": {"tensor": {"dtype": "DT_FLOAT", "tensorShape": {"dim": [{"size": "4"}]}}}}
    bias = {"name": "b", "op": "Const", "attr": vector}
    topology = {"node": [bias, {"name": "y", "op": "_FusedConv2D", "input": ["x", "w", "b"], "attr": fused}]}
    unfuse_tensors(topology)
    assert [node["op"] for node in topology["node"][1:]] == operations
    assert topology["node"][-1]["name"] == "y"
