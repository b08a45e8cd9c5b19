"""One update of the weights from their gradients, with its state in variables of the file.

The arithmetic and the order of operations are Keras's own (https://keras.io/api/optimizers/), the learning rate is an
input of every step. Momentum 0.9; Adam's betas 0.9 and 0.999, epsilon 1e-7 (Kingma and Ba 2015, arXiv:1412.6980).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgeloop.extras import need

MOMENTUM, BETA_1, BETA_2, EPSILON = 0.9, 0.9, 0.999, 1e-7

Variables = Sequence[Any]


class Optimizer(enum.StrEnum):
    SGD = "sgd"
    MOMENTUM = "momentum"
    ADAM = "adam"


@dataclass(frozen=True, slots=True)
class UpdateRule:
    """How weights move.

    Attributes:
        state: Variables that start at zero, and are zero again after set_weights.
        apply: Gradients, in the order of the weights, and the learning rate in; assigns weights and state.
        scaled: Whether `apply` takes gradients that the learning rate has multiplied already. That of the loss is where
            it costs least.
    """

    state: list[Any]
    apply: Callable[[Sequence[Any], Any], None]
    scaled: bool


def sgd(weights: Variables) -> UpdateRule:
    def apply(gradients: Sequence[Any], lr: Any) -> None:
        for w, g in zip(weights, gradients, strict=True):
            w.assign(w - g)

    return UpdateRule([], apply, scaled=True)


def momentum(weights: Variables) -> UpdateRule:
    """Keras's SGD(momentum=0.9): the velocity holds the learning rate of the step that added to it."""
    velocities = _zeros(weights)

    def apply(gradients: Sequence[Any], lr: Any) -> None:
        for w, g, velocity in zip(weights, gradients, velocities, strict=True):
            moved = MOMENTUM * velocity - g
            velocity.assign(moved)
            w.assign(w + moved)

    return UpdateRule(velocities, apply, scaled=True)


def adam(weights: Variables) -> UpdateRule:
    tf = need("tensorflow", extra="convert")
    means, squares = _zeros(weights), _zeros(weights)
    steps = tf.Variable(0.0)

    def apply(gradients: Sequence[Any], lr: Any) -> None:
        t = steps + 1.0
        steps.assign(t)
        rate = lr * tf.sqrt(1.0 - tf.pow(BETA_2, t)) / (1.0 - tf.pow(BETA_1, t))
        for w, g, mean, square in zip(weights, gradients, means, squares, strict=True):
            m = mean + (g - mean) * (1.0 - BETA_1)
            v = square + (g * g - square) * (1.0 - BETA_2)
            mean.assign(m)
            square.assign(v)
            w.assign(w - m * rate / (tf.sqrt(v) + EPSILON))

    return UpdateRule([*means, *squares, steps], apply, scaled=False)


RULES: dict[Optimizer, Callable[[Variables], UpdateRule]] = {
    Optimizer.SGD: sgd,
    Optimizer.MOMENTUM: momentum,
    Optimizer.ADAM: adam,
}


def _zeros(weights: Variables) -> list[Any]:
    tf = need("tensorflow", extra="convert")
    return [tf.Variable(tf.zeros(w.shape)) for w in weights]
