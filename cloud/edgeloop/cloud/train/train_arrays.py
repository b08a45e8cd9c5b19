"""Arrays and a function that builds a model in, the trained model out: what the demo calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeloop.cloud.train.cluster.cluster import read_cluster
from edgeloop.cloud.train.config.tables import Loss, MemoryConfig
from edgeloop.cloud.train.step.loop import distributed, run_steps
from edgeloop.cloud.train.step.objective import make_objective
from edgeloop.cloud.train.step.step import gradient_step, traced_steps
from edgeloop.cloud.train.strategies.strategies import make_strategy
from edgeloop.cloud.train.strategies.strategy_config import StrategyConfig
from edgeloop.cloud.train.strategies.where import where
from edgeloop.errors import DataError, OptionsError
from edgeloop.extras import need
from edgeloop.progress import Progress, silent
from edgeloop.quantities import above_zero


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """How long and how fast arrays are trained on.

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
            above_zero(getattr(self, name), name)
        if not 0 < self.validation < 1:
            raise OptionsError(f"validation is {self.validation}", advice="It must be above 0 and below 1.")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """A Keras model with the weights of its best epoch; `losses` holds each epoch's validation loss."""

    model: Any
    losses: tuple[float, ...]
    strategy: str


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
    cluster = read_cluster()
    choice, place = where(StrategyConfig(), cluster)
    strategy = make_strategy(choice.strategy, place)
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
    objective = make_objective(Loss.SPARSE_CATEGORICAL_CROSSENTROPY, from_logits=False)
    step = traced_steps(strategy, gradient_step(model, optimizer, objective, MemoryConfig(), options.batch))
    batches = distributed(strategy, _shuffled(x[training], y[training], options))
    steps = len(training) // options.batch
    held_x, held_y = x[validation], y[validation]
    best, losses, waited = model.get_weights(), [mean_loss(model, held_x, held_y)], 0
    for epoch in range(options.epochs):
        run_steps(step, iter(batches), steps, steps)
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


def _shuffled(x: np.ndarray, y: np.ndarray, options: TrainOptions) -> Any:
    tf = need("tensorflow", extra="cloud")
    batches = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(y), seed=options.seed)
    return batches.batch(options.batch, drop_remainder=True).prefetch(2)
