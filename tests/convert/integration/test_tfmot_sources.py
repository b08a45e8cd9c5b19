"""Models that TF-MOT trained: the wrappers of pruning and clustering are taken off; int8 has the ranges of training."""

import subprocess
import sys

import numpy as np
import pytest

from edgeloop.bundle import Format, Scheme
from edgeloop.convert.convert import convert
from edgeloop.convert.forms.freeze import freeze
from edgeloop.convert.options import ConvertOptions
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
tuned(np.load("x.npy"), training=True)  # until then the range of its inputs is empty
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
for name, model in (("clustered", clustered), ("quantized", tuned)):
    np.save(f"{name}.npy", model.predict(np.load("x.npy"), verbose=0))
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


PRUNED, RANGES = "wrappers of pruning were taken off", "int8 is made with the ranges that the model learned"
STEP = 12 / 255  # of the output, whose range one call moves by a thousandth: -6 to 6
CLUSTERED, WRITES = "wrappers of clustering were taken off", "writes the same values into its variables at every call"


@pytest.mark.parametrize(
    "name, note",
    [
        ("pruned.h5", PRUNED),
        ("pruned.keras", PRUNED),
        ("pruned", WRITES),
    ],
)
def test_the_plain_model_is_what_remains(folder, name, note):
    source = open_source(folder / name)
    (y,) = source.call({"x": X}).values()
    np.testing.assert_allclose(y, X @ W, atol=1e-5)
    assert any(note in line for line in source.notes)


@pytest.mark.parametrize("name", ["quantized.h5", "quantized.keras", "quantized"])
def test_what_was_trained_under_fake_quantization_rounds_as_it_did(folder, name):
    source = open_source(folder / name)
    (y,) = source.call({"x": X}).values()
    np.testing.assert_allclose(y, np.load(folder / "quantized.npy"), atol=1e-6)
    assert np.abs(y - X @ W).max() > STEP / 4  # the control
    assert source.states_ranges and any(RANGES in line for line in source.notes)


def test_int8_has_the_ranges_of_the_training_and_needs_no_others(folder, tmp_path):
    """Off by one step where rounding weights for the second time decides a tie, and right elsewhere."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    convert(folder / "quantized.h5", tmp_path / "b", ConvertOptions(to=(Format.TFLITE,), cache=False))
    reader = interpreter.Interpreter(str(tmp_path / "b" / "int8.tflite"))
    (y,) = reader.get_signature_runner()(x=X).values()
    steps = (y - np.load(folder / "quantized.npy")) / STEP
    assert np.abs(steps).max() < 1.01 and np.mean(np.abs(steps) > 0.01) < 0.2
    scales = [float(tensor["quantization"][0]) for tensor in reader.get_tensor_details()]
    assert any(abs(scale - STEP) < STEP / 500 for scale in scales)


LEARNED = {  # low, high, bits, narrow: what the values below become, and whether int8 can have the range
    "of 8 bits": (-1.0, 2.0, 8, False, True),
    "that begins at 0": (0.0, 6.0, 8, False, True),
    "of steps of 1": (0.0, 255.0, 8, False, True),
    "of 4 bits": (-1.0, 2.0, 4, False, False),
    "of 254 steps": (-1.0, 2.0, 8, True, False),
    "of limits in the graph": (-1.0, 2.0, 8, False, True),
}


@pytest.mark.parametrize("case", LEARNED)
def test_fake_quantization_of_8_bits_is_written_as_arithmetic_and_any_other_is_left_out(tmp_path, case):
    tf = pytest.importorskip("tensorflow")
    low, high, bits, narrow, kept = LEARNED[case]

    class Rounding(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 64], name="x")], autograph=False)
        def __call__(self, x):
            kind = "args" if "in the graph" in case else "vars"
            fake = getattr(tf.quantization, f"fake_quant_with_min_max_{kind}")
            weights = fake(
                np.linspace(-1, 1, 64, dtype=np.float32), -0.5, 0.5, bits, narrow
            )  # known beforehand, so any is kept
            return {"y": fake(x * 1.0, low, high, bits, narrow), "w": x * weights}

    model = Rounding()
    tf.saved_model.save(model, str(tmp_path / "m"), signatures=model.__call__)
    x = np.linspace(-7, 7, 64, dtype=np.float32)[None] + 0.004  # no ties, which TensorFlow rounds up, and these to even
    source, expected = open_source(tmp_path / "m"), model(tf.constant(x))
    found = source.call({"x": x})
    np.testing.assert_allclose(found["w"], expected["w"], atol=1e-6)
    np.testing.assert_allclose(found["y"], expected["y"] if kept else x, atol=1e-6)
    assert source.states_ranges is kept
    assert ["were left out of the model (SNR" in line for line in source.notes] == [not kept]


def test_one_rounded_value_among_others_does_not_make_int8_without_calibration(tmp_path):
    tf = pytest.importorskip("tensorflow")

    class Half(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 6], name="x")], autograph=False)
        def __call__(self, x):
            return {"y": tf.quantization.fake_quant_with_min_max_vars(x @ W, -6.0, 6.0) @ W.T}

    model = Half()
    tf.saved_model.save(model, str(tmp_path / "m"), signatures=model.__call__)
    source = open_source(tmp_path / "m")
    assert source.rounds is Scheme.INT8 and not source.states_ranges  # float32 is judged as one that rounds
    assert "learned no range for 1 of 2 inputs of layers with weights" in source.notes[-1]


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
