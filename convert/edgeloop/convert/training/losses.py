"""What a device minimises: labels in, a loss and a measure that a person understands out.

`z` is the model's output before its softmax or sigmoid for the cross entropies, its output itself for `mse`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgeloop.errors import ModelError
from edgeloop.extras import need

Tensor = Any


class Loss(enum.StrEnum):
    SPARSE = "sparse"  # cross entropy of one class among several
    BINARY = "binary"  # cross entropy of yes and no, a unit each
    MSE = "mse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """One loss for one output.

    Attributes:
        y: Shape and dtype of the labels, the batch included.
        value: (z, y) to the mean loss, a scalar.
        trained, evaluated: (z, y) to what `train` and `evaluate` say beside the loss.
    """

    y: Any
    value: Callable[[Tensor, Tensor], Tensor]
    trained: Callable[[Tensor, Tensor], dict[str, Tensor]]
    evaluated: Callable[[Tensor, Tensor], dict[str, Tensor]]


def inferred_loss(end: str, units: int) -> Loss:
    """The loss of an output whose last activation is `end` ("softmax", "sigmoid" or another)."""
    if end == "sigmoid":
        return Loss.BINARY
    return Loss.SPARSE if end == "softmax" or units > 1 else Loss.MSE


def check_loss(loss: Loss, end: str, units: int) -> None:
    """Raises: ModelError: The output ends in another activation than the loss is about, or one class."""
    fits = {Loss.SPARSE: end != "sigmoid" and units > 1, Loss.BINARY: end != "softmax", Loss.MSE: True}
    if not fits[loss]:
        raise ModelError(
            f"the loss {loss.value} does not fit an output of {units} units that ends in {end or 'no activation'}",
            advice=f"Use {inferred_loss(end, units).value}, or change the model's last layer.",
        )


def objective(loss: Loss, shape: tuple[int, ...]) -> Objective:
    """`shape` is the output's, with the static batch first."""
    return OBJECTIVES[loss](shape)


def _sparse(shape: tuple[int, ...]) -> Objective:
    tf = need("tensorflow", extra="convert")
    classes, labels = shape[-1], _count(shape[:-1])

    @tf.custom_gradient
    def value(z: Tensor, y: Tensor) -> Any:
        chosen = tf.one_hot(y, classes)
        entropies = tf.reduce_sum(chosen * tf.nn.log_softmax(z), -1)

        def gradient(d: Tensor) -> tuple[Tensor, None]:
            known = tf.reduce_sum(chosen, -1, keepdims=True)  # 0 for a label of no class, which counts for nothing
            return (tf.nn.softmax(z) * known - chosen) * (d / labels), None

        return -tf.reduce_mean(entropies), gradient

    def correct(z: Tensor, y: Tensor) -> Tensor:
        return tf.reduce_sum(tf.cast(tf.equal(tf.argmax(z, -1, output_type=tf.int32), y), tf.float32))

    return _classifier(tf.TensorSpec(shape[:-1], tf.int32), value, correct, labels)


def _binary(shape: tuple[int, ...]) -> Objective:
    tf = need("tensorflow", extra="convert")

    @tf.custom_gradient
    def entropy(z: Tensor, y: Tensor) -> Any:
        # log(1 + exp(z)) - y z, without overflow; the gradient of abs and of a maximum would need more ops
        positive = z * tf.cast(z > 0.0, tf.float32)
        return positive - z * y + tf.math.log(1.0 + tf.exp(-tf.abs(z))), lambda d: (d * (tf.sigmoid(z) - y), None)

    def value(z: Tensor, y: Tensor) -> Tensor:
        return tf.reduce_mean(entropy(z, tf.reshape(tf.cast(y, tf.float32), shape)))

    def correct(z: Tensor, y: Tensor) -> Tensor:
        return tf.reduce_sum(tf.cast(tf.equal(tf.cast(z > 0.0, tf.int32), tf.reshape(y, shape)), tf.float32))

    return _classifier(tf.TensorSpec(_squeezed(shape), tf.int32), value, correct, _count(shape))


def _mse(shape: tuple[int, ...]) -> Objective:
    tf = need("tensorflow", extra="convert")

    def value(z: Tensor, y: Tensor) -> Tensor:
        return tf.reduce_mean(tf.square(z - tf.reshape(y, shape)))

    def error(z: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"mae": tf.reduce_mean(tf.abs(z - tf.reshape(y, shape)))}

    return Objective(y=tf.TensorSpec(_squeezed(shape), tf.float32), value=value, trained=error, evaluated=error)


OBJECTIVES: dict[Loss, Callable[[tuple[int, ...]], Objective]] = {
    Loss.SPARSE: _sparse,
    Loss.BINARY: _binary,
    Loss.MSE: _mse,
}


def _classifier(y: Any, value: Callable, correct: Callable, labels: int) -> Objective:
    return Objective(
        y=y,
        value=value,
        trained=lambda z, y: {"accuracy": correct(z, y) / labels},
        evaluated=lambda z, y: {"correct": correct(z, y)},
    )


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """One number a sample needs no axis of its own."""
    return shape[:-1] if shape[-1] == 1 else shape


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for n in shape:
        count *= n
    return count
