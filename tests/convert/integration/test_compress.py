"""Pruned, clustered and quantization-aware weights, read from the file that was written."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from edgeloop.convert.compression.compress import CompressOptions, compress
from edgeloop.convert.compression.fit import FitOptions, loss
from edgeloop.convert.compression.legacy import rebuild
from edgeloop.convert.compression.qat import quantization_aware
from edgeloop.convert.compression.tfmot import cluster
from edgeloop.convert.compression.tfmot import kernels as kernel_positions
from edgeloop.errors import DataError, ModelError
from edgeloop.progress import silent

LEFT = "s/depthwise_kernel"  # TF-MOT prunes and clusters no depthwise kernel


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A trained digits net with every case that matters: folded batch norm, a separable convolution, a nested model."""
    keras = pytest.importorskip("keras")
    pytest.importorskip("tensorflow_model_optimization")
    data = pytest.importorskip("sklearn.datasets").load_digits()
    folder = tmp_path_factory.mktemp("digits")
    x, y = (data.images / 16).astype(np.float32)[..., None], data.target.astype(np.int64)
    np.savez(folder / "train.npz", x=x[:1000], y=y[:1000])
    np.savez(folder / "test.npz", x=x[1000:], y=y[1000:])
    keras.utils.set_random_seed(1)
    layers = keras.layers
    base = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, padding="same", use_bias=False, name="c"),
            layers.BatchNormalization(name="b"),
            layers.ReLU(),
            layers.SeparableConv2D(12, 3, padding="same", activation="relu", name="s"),
            layers.MaxPooling2D(2),
        ]
    )
    image = keras.Input((8, 8, 1), name="image")
    h = layers.Dense(20, activation="relu", name="d")(layers.Flatten()(base(image)))
    model = keras.Model(image, layers.Dense(10, activation="softmax", name="p")(h))
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    model.fit(x[:1000], y[:1000], epochs=8, verbose=0)
    model.save(folder / "digits.keras")
    return folder


@pytest.fixture(scope="module")
def make(digits, tmp_path_factory):
    """Compress the digits net into a folder of its own."""

    def run(**options):
        folder = tmp_path_factory.mktemp("made")
        return compress(digits / "digits.keras", CompressOptions(**options), digits / "train.npz", folder)

    return run


@pytest.fixture(scope="module")
def all_three(make):
    return make(prune=0.5, cluster=8, qat_epochs=1, epochs=1)


def kernels(path):
    """{path: array} of what has a kernel's name, from the file."""
    import keras

    model = keras.models.load_model(path, compile=False)
    return {w.path: np.asarray(w) for w in model.weights if "kernel" in w.name}


def accuracy(path, data):
    import keras

    held = np.load(data)
    answers = np.asarray(keras.models.load_model(path, compile=False)(held["x"]))
    return np.mean(answers.argmax(axis=1) == held["y"])


def tflite(path, folder):
    import keras
    import tensorflow as tf

    keras.models.load_model(path, compile=False).export(folder, verbose=False)
    return tf.lite.TFLiteConverter.from_saved_model(str(folder)).convert()


@pytest.fixture
def direct(digits):
    """The digits net in tf_keras, in this process, and how to train it at a given rate."""
    import keras
    import tf_keras

    model = keras.models.load_model(digits / "digits.keras", compile=False)
    data = np.load(digits / "train.npz")

    def fit(learning_rate):
        loss = tf_keras.losses.SparseCategoricalCrossentropy()
        return FitOptions(
            x=[data["x"][:256]],
            y=data["y"][:256],
            loss=loss,
            batch=32,
            learning_rate=learning_rate,
            seed=0,
            told=silent,
        )

    return model, fit


def test_half_of_every_kernel_is_zero_and_held_back_digits_are_still_read(make, digits):
    made = make(prune=0.5)
    found = kernels(made.path)
    assert set(found) == {"c/kernel", LEFT, "s/pointwise_kernel", "d/kernel", "p/kernel"}
    for name, kernel in found.items():
        assert np.mean(kernel == 0) == (0.0 if name == LEFT else 0.5), name  # all of even size
    assert not any(k.pruned for k in made.kernels if k.name == LEFT) and any("were not pruned" in n for n in made.notes)
    # 797 answers: two standard errors of a share near 0.93 are 2 sqrt(.93 * .07 / 797) = 1.8 points, of a difference
    # of two such 2.6; a learning rate too small to win back what pruning took cost 10 points on a net like this one
    assert accuracy(made.path, digits / "test.npz") > accuracy(digits / "digits.keras", digits / "test.npz") - 0.026


def test_a_pruned_tflite_is_as_large_and_its_gzip_is_smaller(all_three, digits, tmp_path):
    before, after = tflite(digits / "digits.keras", tmp_path / "a"), tflite(all_three.path, tmp_path / "b")
    assert len(after) == pytest.approx(len(before), abs=64)  # names are padded
    # half zeros and seven other values are at most .5 + .5 (1 + log2 7) = 2.4 of 32 bits; deflate spends up to twice
    # that, and some 4 kB of this file are structure beside 16 kB of kernels
    assert len(gzip.compress(after)) < 0.6 * len(gzip.compress(before))
    assert all_three.gzip_bytes[1] < 0.3 * all_three.gzip_bytes[0]


def test_no_kernel_has_more_values_than_clusters(direct):
    model, fit = direct
    flat = rebuild(model).model
    names = {layer.name for layer in flat.layers if kernel_positions(layer)}
    weights, left = cluster(flat, 8, False, fit(1e-3), 1)
    assert left == ["s_depthwise"]
    assert {len(np.unique(weights[name][0])) for name in names - set(left)} == {8}


def test_pruned_then_clustered_then_trained_for_int8_keeps_all_three(all_three, digits):
    for name, kernel in kernels(all_three.path).items():
        if name != LEFT:
            assert np.mean(kernel == 0) >= 0.5 and len(np.unique(kernel)) <= 8, name
    before = accuracy(digits / "digits.keras", digits / "test.npz")
    assert accuracy(all_three.path, digits / "test.npz") > before - 0.05  # 3 bits a weight and an epoch each


def test_quantization_aware_training_gives_every_weight_back_to_its_own_layer(direct):
    model, fit = direct
    twin = rebuild(model)
    # 8 steps of Adam move no weight by more than 8 times a learning rate of 1e-9: what comes back is what went in
    weights, left = quantization_aware(twin.model, fit(1e-9), 1)
    before = [(w.path, np.asarray(w)) for w in model.weights]
    twin.hand_back(weights)
    assert left == []
    for (path, old), new in zip(before, model.weights, strict=True):
        if "moving" not in path:  # statistics are measured again
            np.testing.assert_allclose(new, old, atol=1e-6, err_msg=path)


def test_activations_far_beyond_six_survive_quantization_aware_training(direct, digits):
    model, fit = direct
    hidden, last = model.get_layer("d"), model.get_layer("p")
    hidden.set_weights([100 * w for w in hidden.get_weights()])  # relu(100 a) / 100 = relu(a): the same model
    last.kernel.assign(last.kernel / 100)
    held = np.load(digits / "test.npz")
    before, old = np.asarray(model(held["x"])), [np.asarray(w) for w in model.weights]
    twin = rebuild(model)
    twin.hand_back(quantization_aware(twin.model, fit(1e-4), 2)[0])
    after = np.asarray(model(held["x"]))
    assert max(np.abs(np.asarray(w) - v).max() for w, v in zip(model.weights, old, strict=True)) > 1e-4  # it did train
    # 16 steps of 1e-4 move few answers (measured: 96.5% agree); with TF-MOT's own ranges, which start at -6..6 and cut
    # every hidden value to 6, 93.5% did
    assert np.mean(after.argmax(axis=1) == before.argmax(axis=1)) > 0.95


def test_the_same_seed_gives_the_same_weights_in_another_process(make, all_three):
    again = make(prune=0.5, cluster=8, qat_epochs=1, epochs=1)
    for name, kernel in kernels(all_three.path).items():
        np.testing.assert_array_equal(kernels(again.path)[name], kernel)


def test_every_kind_of_layer_answers_the_same_in_tf_keras():
    import keras

    keras.utils.set_random_seed(2)
    layers, x = keras.layers, keras.Input((6, 5))
    h = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(x)
    h = layers.GRU(3, return_sequences=True)(h)
    h = layers.LayerNormalization()(layers.TimeDistributed(layers.Dense(4))(h))
    h = layers.LeakyReLU(negative_slope=0.2)(layers.Conv1D(3, 2)(layers.MultiHeadAttention(2, 4)(h, h)))
    shared = layers.Dense(3, activation="gelu")
    h = layers.Concatenate()([layers.GlobalMaxPooling1D()(h), layers.GlobalAveragePooling1D()(shared(shared(h)))])
    model = keras.Model(x, layers.Dense(2)(h))
    for w in model.weights:  # zeros and ones would hide a mix-up
        w.assign(w + np.random.default_rng(3).normal(0, 0.1, w.shape) ** 2)
    given = np.random.default_rng(0).random((4, 6, 5), np.float32)
    # sums of a dozen unit-scale terms in float32, ten layers deep
    np.testing.assert_allclose(rebuild(model).model(given), model(given), atol=1e-5)


def test_an_operation_without_a_layer_is_refused_by_name():
    import keras

    x = keras.Input((3,))
    with pytest.raises(ModelError, match=r"layer 'multiply.*' \(Multiply\) does not exist"):
        rebuild(keras.Model(x, keras.layers.Dense(2)(x * 2.0)))


@pytest.mark.parametrize(
    ("outputs", "y", "error", "said"),
    [
        (np.eye(2), [0, 2], DataError, "labels y run from 0 to 2, and m has 2 classes"),
        (np.eye(2), [0, -1], DataError, "labels y run from -1 to 0"),
        (np.full((2, 3), 0.7), [0, 1], ModelError, "do not add up to 1"),
        (np.zeros((2, 4, 4, 3)), [0, 1], ModelError, r"\['n', 4, 4, 3\]"),
    ],
)
def test_labels_that_the_answers_cannot_learn_from_are_refused(outputs, y, error, said):
    with pytest.raises(error, match=said):
        loss(outputs, np.array(y), Path("m"))


def test_a_model_without_a_kernel_has_nothing_to_prune(tmp_path):
    keras = pytest.importorskip("keras")
    pytest.importorskip("tensorflow_model_optimization")
    keras.Sequential([keras.Input((4,), name="x"), keras.layers.Softmax()]).save(tmp_path / "m.keras")
    np.savez(tmp_path / "t.npz", x=np.ones((2, 4), np.float32), y=np.array([0, 1]))
    with pytest.raises(ModelError, match="no layer that TF-MOT can prune"):
        compress(tmp_path / "m.keras", CompressOptions(prune=0.5), tmp_path / "t.npz", tmp_path)
