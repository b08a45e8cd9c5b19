"""Models that TF-MOT trained: fake quantization and the wrappers of pruning and clustering are taken off."""

import subprocess
import sys

import numpy as np
import pytest

from edgeloop.convert.forms.freeze import freeze
from edgeloop.convert.sources.source import open_source
from edgeloop.errors import ModelError

TRAINED = """
import os, sys
os.environ["TF_USE_LEGACY_KERAS"] = "1"  # tfmot builds its layers with tf_keras then
import numpy as np, tf_keras as k, tensorflow_model_optimization as tfmot
def net():
    made = k.Sequential([k.layers.Input((6,), name="x"), k.layers.Dense(4, use_bias=False)])
    made.set_weights([np.load(sys.argv[1])])
    return made
tuned = tfmot.quantization.keras.quantize_model(net())
pruned = tfmot.sparsity.keras.prune_low_magnitude(net())
linear = tfmot.clustering.keras.CentroidInitialization.LINEAR
clustered = tfmot.clustering.keras.cluster_weights(net(), number_of_clusters=4, cluster_centroids_init=linear)
for model, names in (
    (tuned, ("quantized.h5", "quantized", "quantized.keras")),
    (pruned, ("pruned.h5", "pruned", "pruned.keras")),
    (clustered, ("clustered.h5", "clustered.keras")),
):
    for name in names:
        model.save(name)
np.save("clustered.npy", clustered.predict(np.load("x.npy"), verbose=0))
"""
W = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
X = np.random.default_rng(1).random((5, 6), np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("tensorflow_model_optimization")
    path = tmp_path_factory.mktemp("tfmot")
    np.save(path / "w.npy", W)
    np.save(path / "x.npy", X)
    subprocess.run([sys.executable, "-c", TRAINED, "w.npy"], cwd=path, check=True, capture_output=True, timeout=300)
    return path


FAKE, PRUNED = "fake quantization of its training was left out", "wrappers of pruning were taken off"
CLUSTERED, WRITES = "wrappers of clustering were taken off", "writes the same values into its variables at every call"


@pytest.mark.parametrize(
    "name, note",
    [
        ("quantized.h5", FAKE),
        ("quantized.keras", FAKE),
        ("quantized", FAKE),
        ("pruned.h5", PRUNED),
        ("pruned.keras", PRUNED),
        ("pruned", WRITES),
    ],
)
def test_the_plain_model_is_what_remains(folder, name, note):
    source = open_source(folder / name)
    (y,) = source.call({"x": X}).values()
    np.testing.assert_allclose(y, X @ W, atol=1e-5)  # int8 weights would be 1e-2 off
    assert any(note in line for line in source.notes)


@pytest.mark.parametrize("name, note", [("clustered.h5", CLUSTERED), ("clustered.keras", CLUSTERED)])
def test_clustered_weights_stay_clustered(folder, name, note):
    source = open_source(folder / name)
    (y,) = source.call({"x": X}).values()
    np.testing.assert_allclose(y, np.load(folder / "clustered.npy"), atol=1e-6)
    assert np.abs(y - X @ W).max() > 1e-3  # the control: 24 weights in four values
    assert any(note in line for line in source.notes)


def test_variables_that_are_written_at_every_call_are_constants_of_the_frozen_graph(folder):
    frozen = freeze(open_source(folder / "pruned")).functional
    assert {node.op for node in frozen.graph.node} <= {"Const", "Identity", "MatMul", "Mul", "NoOp", "Placeholder"}


WRITING = {
    "halves at each call": lambda tf, v, x: v.assign(v / 2),
    "its input": lambda tf, v, x: v.assign(x[0]),
    "random": lambda tf, v, x: v.assign(tf.random.uniform([2])),
    "in a branch": lambda tf, v, x: tf.cond(tf.reduce_sum(x) > 99.0, lambda: v.assign(v / 2), lambda: v.assign(v)),
    "adds": lambda tf, v, x: v.assign_add([1.0, 1.0]),
}


@pytest.mark.parametrize("case", WRITING)
def test_writes_that_change_what_the_next_call_sees_are_refused(tmp_path, case):
    tf = pytest.importorskip("tensorflow")

    class Writing(tf.Module):
        def __init__(self):
            self.v = tf.Variable([1.0, 2.0])

        @tf.function(input_signature=[tf.TensorSpec([None, 2], name="x")], autograph=False)
        def __call__(self, x):
            WRITING[case](tf, self.v, x)
            return {"y": x * self.v}

    model = Writing()
    tf.saved_model.save(model, str(tmp_path / "m"), signatures=model.__call__)
    with pytest.raises(ModelError, match="keeps state between calls"):
        open_source(tmp_path / "m")
