"""A classifier's answers and its labels in, how to go on training it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.errors import DataError, ModelError
from edgeloop.extras import need
from edgeloop.progress import Progress

ROUNDING = 1e-3  # how far a row of probabilities may be from 1: float16 weights lose three digits


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """How to train: inputs in the model's order [n, ...], integer labels [n], a tf_keras loss."""

    x: Sequence[np.ndarray]
    y: np.ndarray
    loss: Any
    batch: int
    learning_rate: float
    seed: int
    told: Progress

    @property
    def steps(self) -> int:
        """Of one epoch."""
        return -(-len(self.y) // self.batch)

    def run(self, model: Any, what: str, epochs: int, callbacks: Sequence[Any] = ()) -> None:
        """Train `model` in place.

        Raises:
            ModelError: The weights are no longer finite.
        """
        tf_keras = need("tf_keras", extra="convert")
        tf_keras.utils.set_random_seed(self.seed)  # dropout and shuffling of this step, whatever ran before it
        model.compile(tf_keras.optimizers.Adam(self.learning_rate), self.loss)
        told = tf_keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, _: self.told(what, epoch + 1, epochs))
        x = list(self.x) if len(self.x) > 1 else self.x[0]
        model.fit(x, self.y, self.batch, epochs, verbose=0, callbacks=[*callbacks, told])
        if not all(np.isfinite(array).all() for array in model.get_weights()):
            raise ModelError(f"{what} diverged: weights are NaN or infinite", advice="Lower the learning rate.")


def loss(outputs: np.ndarray, labels: np.ndarray, path: Path) -> Any:
    """Cross entropy that fits what the trained model answers [n, classes], or [n, 1] for two classes.

    Raises:
        ModelError: No classifier of one label.
        DataError: A label beyond the classes.
    """
    losses = need("tf_keras", extra="convert").losses
    if outputs.ndim != 2 or outputs.dtype.kind != "f":
        shape = ["n", *outputs.shape[1:]]
        raise ModelError(
            f"{path} has an output of {outputs.dtype} {shape}",
            advice="Pruning, clustering and QAT need a classifier: [n, classes].",
        )
    classes = max(2, outputs.shape[1])
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            f"the labels y run from {labels.min()} to {labels.max()}, and {path} has {classes} classes",
            advice="Number the labels from 0.",
        )
    shares = bool((outputs >= 0).all() and (outputs <= 1 + ROUNDING).all())
    if outputs.shape[1] == 1:
        return losses.BinaryCrossentropy(from_logits=not shares)
    if shares and not np.allclose(outputs.sum(axis=1), 1, atol=ROUNDING):
        raise ModelError(
            f"{path} gives several labels at once: its outputs do not add up to 1",
            advice="Pass a model with one label per sample.",
        )
    return losses.SparseCategoricalCrossentropy(from_logits=not shares)


def accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Share answered rightly, 0..1. One output is a probability where all are, else a logit."""
    if outputs.shape[1] == 1:
        middle = 0.5 if (outputs >= 0).all() and (outputs <= 1).all() else 0.0
        return float(np.mean((outputs[:, 0] > middle) == labels))
    return float(np.mean(outputs.argmax(axis=1) == labels))
