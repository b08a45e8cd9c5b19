"""The loss of each example and the figure a person reads, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgeloop.cloud.train.config.tables import Loss
from edgeloop.errors import DataError, OptionsError
from edgeloop.extras import need


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What a step lowers.

    Attributes:
        losses: (labels [n, ...], outputs [n, ...]) to the loss of each example [n], float32.
        scores: The same arguments to what `metric` averages [n], float32.
        metric: `accuracy`, or `mean_absolute_error`.
    """

    losses: Callable[[Any, Any], Any]
    scores: Callable[[Any, Any], Any]
    metric: str


def resolve_loss(loss: Loss, classes: int | None, outputs: int) -> Loss:
    """The loss for labels of that many classes (None: numbers) and a model with that many outputs.

    Raises:
        OptionsError: The loss does not fit the labels.
        DataError: The model has another number of outputs than the labels have classes.
    """
    crossentropy = {Loss.SPARSE_CATEGORICAL_CROSSENTROPY, Loss.BINARY_CROSSENTROPY}
    if loss == Loss.AUTO and classes is None:
        return Loss.MEAN_SQUARED_ERROR
    if loss == Loss.AUTO:
        loss = Loss.BINARY_CROSSENTROPY if outputs == 1 else Loss.SPARSE_CATEGORICAL_CROSSENTROPY
    if loss in crossentropy and classes is None:
        raise OptionsError(
            f"the loss {loss.value} needs labels that are classes, and the labels are numbers",
            advice="Store the labels as integers from 0, or use mean-squared-error.",
        )
    if loss in crossentropy:
        room = 2 if loss == Loss.BINARY_CROSSENTROPY else outputs
        if classes is not None and classes > room:
            raise DataError(
                f"the data has {classes} classes, and the model tells {room} apart",
                advice=f"Give the model {classes} outputs, or leave classes out.",
            )
    return loss


def make_objective(loss: Loss, from_logits: bool) -> Objective:
    """The functions of a loss that `resolve_loss` returned."""
    tf, keras = need("tensorflow", extra="cloud"), need("keras", extra="cloud")
    made = {
        Loss.SPARSE_CATEGORICAL_CROSSENTROPY: (
            lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits, reduction="none")
        ),
        Loss.BINARY_CROSSENTROPY: lambda: keras.losses.BinaryCrossentropy(from_logits=from_logits, reduction="none"),
        Loss.MEAN_SQUARED_ERROR: lambda: keras.losses.MeanSquaredError(reduction="none"),
        Loss.MEAN_ABSOLUTE_ERROR: lambda: keras.losses.MeanAbsoluteError(reduction="none"),
        Loss.HUBER: lambda: keras.losses.Huber(reduction="none"),
    }[loss]()

    def alike(labels: Any, outputs: Any) -> Any:
        """Labels [n] for outputs [n, 1] as [n, 1]: else Keras would broadcast them to [n, n]."""
        labels = tf.cast(labels, tf.float32)
        return tf.reshape(labels, tf.shape(outputs))

    def top_1(labels: Any, outputs: Any) -> Any:
        return tf.cast(tf.equal(tf.argmax(outputs, -1), tf.cast(labels, tf.int64)), tf.float32)

    def same_side(labels: Any, outputs: Any) -> Any:
        sides = outputs > (0.0 if from_logits else 0.5)
        return tf.cast(tf.equal(sides[:, 0], tf.cast(labels, tf.bool)), tf.float32)

    def distance(labels: Any, outputs: Any) -> Any:
        away = tf.abs(alike(labels, outputs) - tf.cast(outputs, tf.float32))
        return tf.reduce_mean(tf.reshape(away, [tf.shape(away)[0], -1]), -1)

    if loss == Loss.SPARSE_CATEGORICAL_CROSSENTROPY:
        return Objective(losses=made, scores=top_1, metric="accuracy")
    if loss == Loss.BINARY_CROSSENTROPY:
        return Objective(losses=lambda y, z: made(alike(y, z), z), scores=same_side, metric="accuracy")
    return Objective(losses=lambda y, z: made(alike(y, z), z), scores=distance, metric="mean_absolute_error")


def gives_probabilities(model: Any) -> bool:
    """Whether the last layer is a softmax or a sigmoid."""
    last = model.layers[-1]
    activation = getattr(getattr(last, "activation", None), "__name__", "")
    return activation in {"softmax", "sigmoid"} or type(last).__name__ == "Softmax"
