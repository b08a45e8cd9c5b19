"""Train a Keras 3 classifier under a tf.distribute strategy, with early stopping.

The loop is our own because `fit` of Keras 3 fails under MultiWorkerMirrored and ParameterServer (TF 2.21), while one
step function under `strategy.run` serves them all.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeloop.errors import DataError, OptionsError
from edgeloop.extras import need
from edgeloop.progress import Progress, silent


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """How long and how fast.

    Attributes:
        epochs: Passes over the data, at most.
        batch: Samples of one step, over all replicas.
        learning_rate: Of Adam.
        patience: Passes without a lower validation loss before training stops.
        validation: Share of the data held out to decide when to stop, above 0 and below 1.
        seed: Of the split and the shuffles.
    """

    epochs: int = 60
    batch: int = 32
    learning_rate: float = 2e-3
    patience: int = 8
    validation: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "patience", "learning_rate"):
            if not getattr(self, name) > 0:
                raise OptionsError(f"{name} is {getattr(self, name)}", advice="It must be above 0.")
        if not 0 < self.validation < 1:
            raise OptionsError(f"validation is {self.validation}", advice="It must be above 0 and below 1.")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """A Keras model with the weights of its best epoch; `losses` holds each epoch's validation loss."""

    model: Any
    losses: tuple[float, ...]
    strategy: str


def choose_strategy() -> Any:
    """MultiWorkerMirrored under TF_CONFIG, Mirrored on several GPUs, else the one device there is."""
    tf = need("tensorflow", extra="cloud")
    if os.environ.get("TF_CONFIG"):
        return tf.distribute.MultiWorkerMirroredStrategy()
    gpus = tf.config.list_logical_devices("GPU")
    if len(gpus) > 1:
        return tf.distribute.MirroredStrategy([gpu.name for gpu in gpus])
    return tf.distribute.OneDeviceStrategy(gpus[0].name if gpus else "/cpu:0")


def train(
    build: Callable[[], Any],
    x: np.ndarray,
    y: np.ndarray,
    options: TrainOptions = TrainOptions(),
    progress: Progress = silent,
    what: str = "train",
) -> TrainResult:
    """Train the model that `build` makes inside the strategy's scope, with Adam and sparse cross entropy.

    Args:
        build: Makes a Keras 3 classifier; called once, within the scope of the strategy.
        x: Inputs [n, ...], as the model takes them.
        y: Labels [n], integers from 0.
        what: Name of this training for `progress`.

    Raises:
        DataError: Too few samples for one batch and a validation part.
    """
    strategy = choose_strategy()
    held = int(options.validation * len(y))
    order = np.random.default_rng(options.seed).permutation(len(y))
    validation, training = order[:held], order[held:]
    if held < 1 or len(training) < options.batch:
        raise DataError(
            f"{len(y)} samples are too few for one batch of {options.batch} and a validation part of {held}",
            advice="Pass more samples, or a smaller batch.",
        )
    with strategy.scope():
        model = build()
        optimizer = need("keras", extra="cloud").optimizers.Adam(options.learning_rate)
        optimizer.build(model.trainable_variables)
    step = _step(strategy, model, optimizer, options.batch)
    batches = _batches(strategy, x[training], y[training], options)
    held_x, held_y = x[validation], y[validation]
    best, losses, waited = model.get_weights(), [mean_loss(model, held_x, held_y)], 0
    for epoch in range(options.epochs):
        for batch in batches:
            step(batch)
        losses.append(mean_loss(model, held_x, held_y))
        if losses[-1] < min(losses[:-1]):
            best, waited = model.get_weights(), 0
        else:
            waited += 1
        last = waited == options.patience or epoch + 1 == options.epochs
        progress(what, options.epochs if last else epoch + 1, options.epochs)
        if last:
            break
    model.set_weights(best)
    return TrainResult(model=model, losses=tuple(losses[1:]), strategy=type(strategy).__name__)


def copy_of(model: Any) -> Any:
    """The same layers and weights, made in the current strategy's scope: the `build` of fine-tuning."""
    copy = need("keras", extra="cloud").models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def accuracy(model: Any, x: np.ndarray, y: np.ndarray) -> float:
    """Share of samples, 0 to 1, whose largest output is the label."""
    return float(np.mean(np.argmax(predict(model, x), -1) == y))


def mean_loss(model: Any, x: np.ndarray, y: np.ndarray) -> float:
    """Mean cross entropy of the model's probabilities, in nats."""
    p = predict(model, x)[np.arange(len(y)), y]
    return float(np.mean(-np.log(np.maximum(p, 1e-7))))


def predict(model: Any, x: np.ndarray, batch: int = 1024) -> np.ndarray:
    """Outputs [n, classes] for `x` [n, ...]."""
    return np.concatenate([np.asarray(model(x[i : i + batch], training=False)) for i in range(0, len(x), batch)])


def _batches(strategy: Any, x: np.ndarray, y: np.ndarray, options: TrainOptions) -> Any:
    tf = need("tensorflow", extra="cloud")
    batches = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(y), seed=options.seed)
    batches = batches.batch(options.batch, drop_remainder=True).prefetch(2)
    sharding = tf.data.Options()
    sharding.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return strategy.experimental_distribute_dataset(batches.with_options(sharding))


def _step(strategy: Any, model: Any, optimizer: Any, batch: int) -> Callable:
    tf, keras = need("tensorflow", extra="cloud"), need("keras", extra="cloud")
    entropy = keras.losses.SparseCategoricalCrossentropy(reduction="none")
    variables = model.trainable_variables

    def replica(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            loss = tf.nn.compute_average_loss(entropy(y, model(x, training=True)), global_batch_size=batch)
        gradients = tape.gradient(loss, [v.value for v in variables])
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    @tf.function
    def step(item: Any) -> None:
        strategy.run(replica, args=item)

    return step
