"""Layers before the first trained one: any, without gradients, on both runtimes, against Keras; and augmentations."""

import subprocess
from functools import cache

import numpy as np
import pytest

from edgeloop.convert.convert import convert
from edgeloop.convert.options import ConvertOptions
from edgeloop.errors import ModelError

SHAPE, BATCH, RATE = (6, 6, 2), 4, 0.1
BOUND = 1e-5  # as in test_trainable_layers.py
DEVICE = """
import sys
import numpy as np
runtime, model, data, out = sys.argv[1:]
if runtime == "litert":
    from ai_edge_litert.interpreter import Interpreter
else:
    from tflite_runtime.interpreter import Interpreter
d, run = np.load(data), Interpreter(model_path=model, num_threads=1)
answer = run.get_signature_runner("infer")(x=d["x"])
run.get_signature_runner("train")(x=d["x"], y=d["y"], lr=np.float32(d["lr"]))
weights = run.get_signature_runner("get_weights")(dummy=np.float32(0))
run.get_signature_runner("set_weights")(**weights)
again = run.get_signature_runner("get_weights")(dummy=np.float32(0))
assert all(np.array_equal(again[name], weights[name]) for name in weights)
np.savez(out, **answer, **weights)
"""


def data():
    rng = np.random.default_rng(6)
    return {"x": rng.normal(size=(BATCH, *SHAPE)).astype(np.float32), "y": np.array([0, 1, 2, 1], np.int32)}


def frozen_net(L):
    """Kinds without device gradients, and kinds that act in training, before two layers that learn."""
    head = [L.Flatten(), L.Dense(4, activation="tanh"), L.Dense(3, activation="softmax", name="p")]
    odd = [
        L.RandomFlip(),
        L.Conv2D(4, 3, groups=2, activation="sparsemax"),
        L.Reshape((4, 4, 4, 1)),
        L.Conv3D(3, 2),
        L.GaussianNoise(1.0),
        L.BatchNormalization(),
        L.Dropout(0.5),
        L.TimeDistributed(L.TimeDistributed(L.Conv1D(3, 2, groups=3))),
    ]
    return [*odd, *head]


def augmented_net(L, augmented):
    """Its first layers have no weights, one augments later; the weights do not depend on whether it augments."""
    normal = L.Normalization(name="normal")
    normal.adapt(np.random.default_rng(1).normal(1.0, 2.0, (50, *SHAPE)).astype(np.float32))
    if augmented:
        first, later = [L.RandomFlip(), L.RandomRotation(0.3), L.RandomZoom(0.2)], [L.RandomContrast(0.9)]
    else:
        first, later = [], []
    return [
        *(*first, L.Rescaling(0.5, offset=-1), normal),
        *(L.Conv2D(4, 3, activation="silu", name="conv"), *later),
        *(L.Flatten(), L.Dense(3, activation="softmax", name="p")),
    ]


def step(model, train_last):
    """Keras's weights after one step on the last layers; those before, as inference."""
    import keras
    import tensorflow as tf

    given, layers = data(), [layer for layer in model.layers if layer.weights]
    start = 0 if train_last is None else model.layers.index(layers[-train_last])
    z = x = tf.constant(given["x"])
    with tf.GradientTape() as tape:
        for i, layer in enumerate(model.layers):
            z = layer(z, training=i >= start) if layer._call_has_training_arg else layer(z)
        loss = keras.losses.SparseCategoricalCrossentropy()(given["y"], z)
    trained = [v for layer in model.layers[start:] for v in layer.trainable_variables]
    answer = model(x, training=False).numpy()
    slopes = tape.gradient(loss, [v.value for v in trained])
    keras.optimizers.SGD(RATE).apply_gradients(zip(slopes, trained, strict=True))
    return {"p": answer, **{f"w{i:03d}": v.numpy() for i, v in enumerate(model.weights)}}


@cache
def made(case):
    """The trainable file, and what Keras does."""
    import keras

    from edgeloop.convert.training.trainable import TrainableOptions, to_trainable

    def sequential(layers):
        keras.utils.set_random_seed(5)
        return keras.Sequential([keras.Input(SHAPE, name="x"), *layers])

    if case == "frozen":
        model = sequential(frozen_net(keras.layers))
        return to_trainable(model, TrainableOptions(batch=BATCH, train_last=2)), step(model, 2)
    model, plain = (sequential(augmented_net(keras.layers, augmented)) for augmented in (True, False))
    plain.set_weights(model.get_weights())
    return to_trainable(model, TrainableOptions(batch=BATCH)), step(plain, None)


@pytest.mark.parametrize("runtime", ["litert", "tflite-runtime"])
@pytest.mark.parametrize("case", ["frozen", "augmented"])
def test_the_last_layers_learn_as_in_keras_whatever_comes_before(case, runtime, device_python, tmp_path):
    pytest.importorskip("keras")
    file, want = made(case)
    (tmp_path / "t.tflite").write_bytes(file)
    np.savez(tmp_path / "d.npz", **data(), lr=np.float32(RATE))
    files = [tmp_path / name for name in ("t.tflite", "d.npz", "out.npz")]
    command = [device_python, "-I", "-c", DEVICE, runtime, *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if runtime == "tflite-runtime" and "No module named 'tflite_runtime'" in done.stderr:
        pytest.skip("tflite-runtime has no wheel for this Python")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out.npz") as found:
        assert sorted(found.files) == sorted(want)
        for name, value in want.items():
            np.testing.assert_allclose(found[name], value, atol=BOUND, err_msg=name)


def test_what_cannot_train_is_said_before_the_calibration_data_is_opened(tmp_path):
    keras = pytest.importorskip("keras")
    from edgeloop.convert.training.trainable import TrainableOptions

    L = keras.layers
    layers = [keras.Input(SHAPE), L.Conv2D(2, 1), L.GaussianNoise(0.1), L.Flatten(), L.Dense(3)]
    keras.Sequential(layers).save(tmp_path / "m.keras")
    (tmp_path / "c.npz").write_bytes(b"not an archive")
    options = ConvertOptions(calibration=tmp_path / "c.npz", trainable=TrainableOptions())
    with pytest.raises(ModelError, match=r"GaussianNoise, which has no device gradient.*--train-last 1"):
        convert(tmp_path / "m.keras", tmp_path / "out", options)


def test_a_note_names_the_layers_that_do_not_augment_on_a_device():
    keras = pytest.importorskip("keras")
    from edgeloop.convert.training.trainable import TrainableOptions, check_options

    L = keras.layers
    first = [L.RandomFlip(name="flip"), L.GaussianNoise(0.1, name="noise"), L.Dropout(0.1), L.Rescaling(2.0)]
    layers = [keras.Input(SHAPE), *first, L.Conv2D(2, 1), L.RandomZoom(0.1, name="zoom"), L.Flatten(), L.Dense(3)]
    model = keras.Sequential(layers)
    assert check_options(model, TrainableOptions(), []) == ("flip", "noise", "zoom")
    assert check_options(model, TrainableOptions(train_last=1), []) == ("zoom",)  # what is frozen is so anyway
