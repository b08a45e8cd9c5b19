"""Operations that a format lacks, written as others: the graph answers what it did in TensorFlow."""

import numpy as np
import pytest

from edgeloop.convert.forms.graph_nodes import shapes_of
from edgeloop.convert.forms.node_substitutes import POOLS, SUBSTITUTES, write_pools, write_rolls, write_substitutes

tf = pytest.importorskip("tensorflow")

VALUES = np.array([-100, -2.5, -0.5, -1e-8, 0, 1e-30, 1e-8, 1e-4, 0.3, 1, 2.5, 3.5, 88, 100], np.float32)
OF_ONE = {"Expm1": tf.math.expm1, "Log1p": tf.math.log1p, "Softsign": tf.nn.softsign, "Rint": tf.math.rint}
OF_TWO = {"Xdivy": tf.math.xdivy, "Xlogy": tf.math.xlogy, "Xlog1py": tf.math.xlog1py}


def before_and_after(compute, given, shapes, write):
    """The answers of `compute` of placeholders of these shapes, those after `write`, and its operations then."""
    with tf.Graph().as_default() as graph:
        inputs = [tf.compat.v1.placeholder(tf.float32, shape, f"x{i}") for i, shape in enumerate(shapes)]
        tf.identity(compute(*inputs), "y")
    written = graph.as_graph_def()
    write(written)
    answers = []
    for definition in (graph.as_graph_def(), written):
        with tf.Graph().as_default() as again, tf.compat.v1.Session(graph=again) as session:
            tf.import_graph_def(definition, name="")
            answers.append(session.run("y:0", {f"x{i}:0": value for i, value in enumerate(given)}))
    return *answers, {node.op for node in written.node}


@pytest.mark.parametrize("operation", SUBSTITUTES)
def test_a_substitute_answers_within_three_roundings_also_near_zero(operation):
    """Relative: 3 * 2^-23, so the loss of exp(x) - 1 or log(1 + x) at 1e-8 would show."""
    compute = OF_ONE.get(operation) or OF_TWO[operation]
    given = [VALUES] if operation in OF_ONE else [VALUES, np.roll(VALUES, 4)]
    before, after, operations = before_and_after(
        compute, given, [[None]] * len(given), lambda graph: write_substitutes(graph, [operation])
    )
    assert operation not in operations
    np.testing.assert_allclose(after, before, rtol=3 * 2**-23, atol=0)


@pytest.mark.parametrize("sizes", [(7, 6, 5), (None, None, 5)], ids=str)
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("pool", ["max_pool3d", "avg_pool3d"])
def test_a_pooling_of_volumes_is_two_of_images(pool, padding, sizes):
    volumes = np.random.default_rng(0).normal(size=(2, 7, 6, 5, 3)).astype(np.float32)
    before, after, operations = before_and_after(
        lambda x: getattr(tf.nn, pool)(x, (3, 2, 2), (2, 1, 2), padding),
        [volumes],
        [[None, *sizes, 3]],
        lambda graph: write_pools(graph, shapes_of(graph)),
    )
    assert not operations & set(POOLS)
    np.testing.assert_allclose(after, before, atol=1e-6)


def test_a_roll_of_two_axes_is_a_gather_of_each():
    value = np.arange(60, dtype=np.float32).reshape(2, 6, 5)
    before, after, operations = before_and_after(
        lambda x: tf.roll(x, [2, -1], [1, 2]), [value], [[None, 6, 5]], write_rolls
    )
    assert "Roll" not in operations
    np.testing.assert_array_equal(after, before)
    np.testing.assert_array_equal(after, np.roll(value, (2, -1), (1, 2)))
