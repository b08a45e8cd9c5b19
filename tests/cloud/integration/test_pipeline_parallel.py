"""Stages of a divided model learn what the whole model learns."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

from edgeloop.cloud.train.parallel.pipeline import GPipeOptions, Pipeline  # noqa: E402
from edgeloop.errors import OptionsError  # noqa: E402

layers = keras.layers
N = 24
# float32 sums of 24 gradients, each below 1, in another order: roundings of 6e-8, of which some 24 / 2 add up: 7e-7
CLOSE = 1e-6


def loss(labels, outputs):
    return keras.losses.sparse_categorical_crossentropy(labels, outputs, from_logits=True)


def convolutions():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.Conv2D(8, 3, strides=2, activation="relu", kernel_regularizer=keras.regularizers.L2(0.01)),
            layers.Flatten(),
            layers.Dense(16, activation="relu"),
            layers.Dense(5),
        ]
    )


def residual():
    image = keras.Input((8, 8, 3))
    start = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    end = start
    for _ in range(4):
        end = layers.Conv2D(8, 3, padding="same", activation="relu")(end)
    pooled = layers.GlobalAveragePooling2D()(layers.Add()([start, end]))
    return keras.Model(image, layers.Dense(5)(pooled))


def texts_and_numbers():
    words, numbers = keras.Input((6,), dtype="int32", name="words"), keras.Input((3,), name="numbers")
    mean = layers.GlobalAveragePooling1D()(layers.LSTM(4, return_sequences=True)(layers.Embedding(11, 4)(words)))
    both = layers.Concatenate()([mean, layers.Dense(4)(numbers)])
    return keras.Model([words, numbers], layers.Dense(5)(layers.Dense(8, activation="tanh")(both)))


def shared():
    x = keras.Input((6,))
    twice = layers.Dense(6, activation="tanh")
    return keras.Model(x, layers.Dense(5)(layers.Dense(6, activation="tanh")(twice(twice(x)))))


def data(model):
    rng = np.random.default_rng(0)
    return [
        tf.constant(rng.integers(0, 11, (N, *t.shape[1:]), np.int32))
        if "int" in t.dtype
        else tf.constant(rng.normal(size=(N, *t.shape[1:])).astype(np.float32))
        for t in model.inputs
    ], tf.constant(rng.integers(0, 5, N, np.int32))


def whole_step(model, optimizer, features, labels):
    """One step without stages; returns the loss with penalties, and the gradients of it without them."""
    with tf.GradientTape(persistent=True) as tape:
        answers = model(features if len(features) > 1 else features[0], training=True)
        mean = tf.reduce_mean(loss(labels, answers))
        everything = mean + sum(model.losses, tf.zeros(()))
    weights = [v.value for v in model.trainable_variables]
    plain = tape.gradient(mean, weights)
    optimizer.apply(tape.gradient(everything, weights), model.trainable_variables)
    return float(everything), plain


def divided(model, options, features, optimizer=lambda: keras.optimizers.SGD(0.1)):
    return Pipeline(model, optimizer, loss, options, ["CPU:0"] * options.stages * options.replicas, features)


def collect(pipeline):
    """The values of the stages in the layers of the model that was divided."""
    for stage in pipeline.replicas[0]:
        for whole, part in stage.pairs:
            whole.assign(part.value)


@pytest.mark.parametrize(
    ("net", "options"),
    [(convolutions, (2, 5, 1)), (residual, (3, 2, 1)), (texts_and_numbers, (2, 3, 2)), (shared, (2, 1, 1))],
)
def test_gradients_and_the_step_are_those_of_the_undivided_model(net, options):
    keras.utils.set_random_seed(0)
    model = net()
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    features, labels = data(model)
    stages, micro_batches, replicas = options
    with divided(
        model, GPipeOptions(stages=stages, micro_batches=micro_batches, replicas=replicas), features
    ) as pipeline:
        gradients = pipeline.gradients(features, labels)
        step = pipeline.step(features, labels)
    collect(pipeline)
    mean, expected = whole_step(twin, keras.optimizers.SGD(0.1), features, labels)
    assert step.loss == pytest.approx(mean, abs=CLOSE)
    by_size = lambda tensors: sorted(np.sort(np.ravel(tf.convert_to_tensor(g))).tolist() for g in tensors)  # noqa: E731
    for ours, theirs in zip(by_size(gradients), by_size(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=CLOSE)
    for ours, theirs in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=CLOSE)


def test_dropout_drops_the_same_units_forward_and_backward():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(6),
            layers.Dropout(0.5, seed=3),
            layers.Dense(6, use_bias=False),
            layers.Dense(5),
        ]
    )
    features, labels = data(model)
    with divided(model, GPipeOptions(stages=4, micro_batches=2), features) as pipeline:
        stages = pipeline.replicas[0]
        kept = [stages[1].forward([tf.ones((12, 6))], tf.constant(i))[0].numpy() for i in (0, 1, 0)]
        incoming = stages[1].backward([tf.ones((12, 6))], [tf.ones((12, 6))], tf.constant(0))[0][0].numpy()
        pipeline.step(features, labels)
        later = stages[1].forward([tf.ones((12, 6))], tf.constant(0))[0].numpy()
    np.testing.assert_array_equal(kept[0], kept[2])
    np.testing.assert_array_equal(kept[0], incoming)  # the gradient of a mask times 1 is the mask
    assert (kept[0] != kept[1]).any()
    assert (kept[0] != later).any()


def test_moving_statistics_of_batch_normalization_move_once_a_step():
    model = keras.Sequential([keras.Input((3,)), layers.BatchNormalization(momentum=0.9), layers.Dense(5)])
    features = [tf.constant(np.arange(24 * 3, dtype=np.float32).reshape(24, 3))]
    with divided(model, GPipeOptions(stages=2, micro_batches=4), features) as pipeline:
        pipeline.step(features, tf.zeros(24, tf.int32))
    collect(pipeline)
    mean = model.layers[0].moving_mean.numpy()
    np.testing.assert_allclose(mean, 0.1 * np.mean(features[0], axis=0), rtol=1e-6)  # 0.9 * 0 + 0.1 * mean


def test_an_activity_loss_and_a_global_clip_are_refused_and_too_few_devices_named():
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(6, activity_regularizer="l2", name="held"), layers.Dense(5)]
    )
    features, labels = data(model)
    with divided(model, GPipeOptions(), features) as pipeline, pytest.raises(OptionsError, match="held adds a loss"):
        pipeline.step(features, labels)
    with pytest.raises(OptionsError, match="global_clipnorm"):
        divided(model, GPipeOptions(), features, lambda: keras.optimizers.SGD(0.1, global_clipnorm=1.0))
    with pytest.raises(OptionsError, match="2 stages of 1 replicas need 2 devices, and there are 1"):
        Pipeline(model, keras.optimizers.SGD, loss, GPipeOptions(), ["CPU:0"], features)


CHILD = """
import json, keras, tensorflow as tf, sys
sys.path.insert(0, sys.argv[1])
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)
import test_pipeline_parallel as t
keras.utils.set_random_seed(0)
model = t.residual()
features, labels = t.data(model)
devices = [f"CPU:{i}" for i in range(4)]
options = t.GPipeOptions(stages=2, micro_batches=3, replicas=2)
with t.Pipeline(model, lambda: keras.optimizers.Adam(0.01), t.loss, options, devices, features) as pipeline:
    losses = [pipeline.step(features, labels).loss for _ in range(8)]
    where = [[{v.value.device[-5:] for v in s.model.variables} for s in r] for r in pipeline.replicas]
print(json.dumps([losses, [[sorted(s) for s in r] for r in where]]))
"""


def test_two_replicas_of_two_stages_lie_on_four_devices_and_learn():
    result = subprocess.run(
        [sys.executable, "-c", CHILD, str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    losses, where = json.loads(result.stdout.splitlines()[-1])
    assert where == [[["CPU:0"], ["CPU:1"]], [["CPU:2"], ["CPU:3"]]]
    assert losses[-1] < 0.9 * losses[0]
