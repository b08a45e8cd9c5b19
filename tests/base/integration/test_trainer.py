"""The device's trainer, in both runtimes, against TensorFlow's own gradients; and what it refuses."""

import subprocess

import numpy as np
import pytest

from edgeloop.errors import DataError, DeviceError, MissingExtra, OptionsError, TargetError
from edgeloop.runtime.agent.trainer import Trainer

BATCH, CLASSES, LR, SEED = 8, 4, 0.2, 5
DEVICE_SCRIPT = """
import importlib.util, sys
import numpy as np
from edgeloop.runtime.agent.trainer import Trainer
folder, runtime, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
data = np.load(folder + "/data.npz")
trainer = Trainer(open(folder + "/t.tflite", "rb").read(), runtime)
trainer.set_weights(dict(np.load(folder + "/start.npz")))
done = trainer.train({"image": data["x"][:n]}, data["y"][:n], epochs=3, lr=float(sys.argv[4]), seed=int(sys.argv[5]))
record = {"loss": done.loss, "steps": done.steps, "examples": done.examples}
np.savez(folder + "/" + runtime + ".npz", **record, **trainer.get_weights())
assert "tensorflow" not in sys.modules and importlib.util.find_spec("tensorflow") is None
"""


@pytest.fixture(scope="module")
def model():
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(3)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((6, 6, 1), name="image"),
            layers.Conv2D(4, 3, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(CLASSES),
        ]
    )


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    from edgeloop.convert.training.trainable import TrainableOptions, to_trainable

    folder = tmp_path_factory.mktemp("trainer")
    (folder / "t.tflite").write_bytes(to_trainable(model, TrainableOptions(batch=BATCH)))
    generator = np.random.default_rng(0)
    np.savez(folder / "data.npz", x=generator.normal(size=(21, 6, 6, 1)).astype("f4"), y=np.arange(21) % CLASSES)
    np.savez(folder / "start.npz", **{f"w{i:03d}": w for i, w in enumerate(model.get_weights())})
    return folder


@pytest.fixture
def trainer(folder):
    return Trainer((folder / "t.tflite").read_bytes())


def tensorflow_sgd(model, x, y) -> tuple[list[float], list[np.ndarray]]:
    """Three epochs of Keras's own layers under TensorFlow's own gradients, the order of the samples written anew."""
    import keras
    import tensorflow as tf

    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    generator, losses = np.random.default_rng(SEED), []
    for _ in range(3):
        order, epoch = list(generator.permutation(len(y))), []
        for start in range(0, len(y), BATCH):
            rows = [order[i % len(y)] for i in range(start, start + BATCH)]
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(
                    tf.nn.sparse_softmax_cross_entropy_with_logits(y[rows], twin(x[rows], training=True))
                )
            for variable, slope in zip(
                twin.trainable_variables, tape.gradient(loss, twin.trainable_variables), strict=True
            ):
                variable.assign_sub(LR * slope)
            epoch.append(float(loss))
        losses.append(np.mean(epoch))
    return losses, twin.get_weights()


@pytest.mark.parametrize("runtime", ["litert", "tflite-runtime"])
@pytest.mark.parametrize("n", [21, 3])  # 21: a last batch of 5 is filled up; 3: fewer than one batch
def test_a_device_without_tensorflow_takes_the_steps_tensorflow_takes(model, folder, device_python, runtime, n):
    command = [device_python, "-I", "-c", DEVICE_SCRIPT, folder, runtime, n, LR, SEED]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    data, found = np.load(folder / "data.npz"), np.load(folder / f"{runtime}.npz")
    losses, weights = tensorflow_sgd(model, data["x"][:n], data["y"][:n])
    assert found["steps"] == 3 * -(-n // BATCH) and found["examples"] == n
    # The longest float32 sum of a step has batch * 6 * 6 = 288 terms, relative error 288 * 2**-24 = 1.7e-5; nine steps
    # move weights and losses by less than 1, and an error grows with the steps after it: 9 * 1.7e-5 = 1.5e-4.
    np.testing.assert_allclose(found["loss"], losses, atol=1.5e-4)
    for index, expected in enumerate(weights):
        np.testing.assert_allclose(found[f"w{index:03d}"], expected, atol=1.5e-4, err_msg=f"w{index:03d}")
    assert max(np.abs(w - s).max() for w, s in zip(weights, model.get_weights(), strict=True)) > 0.05  # it did move


def test_the_seed_decides_the_order_and_a_sequence_is_a_seed(folder, trainer):
    data, start = np.load(folder / "data.npz"), dict(np.load(folder / "start.npz"))

    def losses(seed):
        trainer.set_weights(start)
        return trainer.train({"image": data["x"]}, data["y"], seed=seed).loss

    assert losses((1, 2, 3)) == losses((1, 2, 3)) != losses((1, 2, 4))


def test_weights_come_back_as_they_were_set(trainer):
    generator = np.random.default_rng(1)
    weights = {name: generator.normal(size=shape).astype("f4") for name, shape in trainer.weights.items()}
    trainer.set_weights(weights)
    assert all(np.array_equal(array, weights[name]) for name, array in trainer.get_weights().items())


X, Y = np.zeros((5, 6, 6, 1), np.float32), np.zeros(5, np.int64)


@pytest.mark.parametrize(
    ("inputs", "y", "says"),
    [
        ({"image": X[:0]}, Y[:0], "at least one integer"),
        ({"picture": X}, Y, r"inputs \['picture'\], the model takes \['image'\]"),
        ({"image": X[:, :5]}, Y, r"shape \(5, 5, 6, 1\), expected \(5, 6, 6, 1\)"),
        ({"image": X[:4]}, Y, "for 5 labels"),
        ({"image": np.full_like(X, np.nan)}, Y, "NaN or Infinity"),
        ({"image": np.full_like(X, 1e300, dtype=np.float64)}, Y, "NaN or Infinity in float32"),
        ({"image": X.astype(complex)}, Y, "holds complex128"),
        ({"image": X}, Y + CLASSES, f"labels run from {CLASSES} to {CLASSES}"),
        ({"image": X}, Y - 1, "labels run from -1 to -1"),
        ({"image": X}, Y.astype(float), "float64"),
        ({"image": X}, Y[:, None], r"shape \(5, 1\)"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered")  # 1e300 has no float32
def test_a_shard_that_does_not_fit_the_model_is_refused(trainer, inputs, y, says):
    with pytest.raises(DataError, match=says):
        trainer.train(inputs, y)


def test_weights_that_do_not_fit_are_refused(trainer):
    weights = trainer.get_weights()
    with pytest.raises(DataError, match=r"weight w000 has shape None"):
        trainer.set_weights({name: array for name, array in weights.items() if name != "w000"})
    with pytest.raises(DataError, match=r"weight w001 has shape \(\), the model has \(4,\)"):
        trainer.set_weights({**weights, "w001": np.float32(0)})


def test_a_loss_that_is_not_finite_names_step_and_rate(trainer):
    generator = np.random.default_rng(0)
    with pytest.raises(DeviceError, match=r"the loss is (nan|inf) at step [2-9] with learning rate 1e\+30"):
        trainer.train({"image": generator.normal(size=(64, 6, 6, 1))}, np.arange(64) % CLASSES, epochs=3, lr=1e30)


@pytest.mark.parametrize(("epochs", "lr"), [(0, 0.1), (1, 0.0), (1, float("nan"))])
def test_no_training_at_all_is_refused(trainer, epochs, lr):
    with pytest.raises(OptionsError, match="above 0"):
        trainer.train({"image": X}, Y, epochs=epochs, lr=lr)


def test_files_and_runtimes_that_cannot_train_are_refused(model):
    import tensorflow as tf

    inference_only = tf.lite.TFLiteConverter.from_keras_model(model).convert()
    with pytest.raises(TargetError, match="edgeloop convert MODEL --trainable"):
        Trainer(inference_only)
    with pytest.raises(TargetError, match="refuses the model"):
        Trainer(b"not a flatbuffer")
    with pytest.raises(OptionsError, match="runtime 'tensorflow' cannot train"):
        Trainer(inference_only, "tensorflow")
    with pytest.raises(MissingExtra, match="tflite-runtime does not load here"):  # it needs numpy < 2
        Trainer(inference_only, "tflite-runtime")


def test_correct_labels_are_counted_by_class(trainer, folder):
    data = np.load(folder / "data.npz")  # 21 samples: the last batch is not full
    infer = trainer._call["infer"]
    rows = np.resize(np.arange(21), (-(-21 // BATCH), BATCH))
    answers = np.concatenate([next(iter(infer(image=data["x"][part]).values())) for part in rows])[:21]
    right = answers.argmax(axis=1) == data["y"]
    counts = trainer.correct_by_class({"image": data["x"]}, data["y"])
    assert counts.tolist() == [int(right[data["y"] == k].sum()) for k in range(CLASSES)] and 0 < counts.sum() < 21
    accuracy = trainer.evaluate({"image": data["x"]}, data["y"]).accuracy
    assert accuracy == pytest.approx(counts.sum() / 21, abs=1e-6)  # sums of whole numbers below 2^24 in float32


@pytest.mark.parametrize(
    ("units", "end", "classes", "good", "bad", "says"),
    [
        (1, "sigmoid", 2, [0, 1, 1], [0, 2, 1], "labels run from 0 to 2; the model has the classes 0 to 1"),
        (2, "sigmoid", 2, [[0, 1], [1, 1]], [0, 1], r"at least one integer in \[N, 2\]"),
        (1, None, None, [0.5, -3.0, 8], [0.5, float("nan")], "NaN or Infinity"),
    ],
)
def test_labels_are_what_the_loss_of_the_file_takes(units, end, classes, good, bad, says):
    keras = pytest.importorskip("keras")
    from edgeloop.convert.training.trainable import TrainableOptions, to_trainable

    layers = [keras.Input((3,), name="x"), keras.layers.Dense(units, activation=end)]
    trainer = Trainer(to_trainable(keras.Sequential(layers), TrainableOptions(batch=2)))
    assert trainer.classes == classes
    losses = trainer.train({"x": np.eye(3)[: len(good)]}, np.array(good), epochs=30, lr=0.1).loss
    assert losses[-1] < losses[0]
    with pytest.raises(DataError, match=says):
        trainer.train({"x": np.eye(3)[: len(bad)]}, np.array(bad))
    assert trainer.tells_classes == (units == 1 and end is not None)
    if trainer.tells_classes:  # one weight for each of three samples: 0 is no, 1 and 2 are yes after the training
        assert trainer.correct_by_class({"x": np.eye(3)}, np.array([0, 1, 0])).tolist() == [1, 1]
    else:
        with pytest.raises(OptionsError, match="no classes to count"):
            trainer.correct_by_class({"x": np.eye(3)[: len(good)]}, np.array(good))
