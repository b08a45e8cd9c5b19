"""Examples with a soft target beside each label, and the loss that learns from both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from edgeloop.cloud.input.examples import Examples, Numbered
from edgeloop.cloud.input.parts import numbers_held_out
from edgeloop.cloud.train.distill.options import DistillConfig
from edgeloop.cloud.train.distill.targets import LEAST
from edgeloop.cloud.train.objective import Objective
from edgeloop.errors import DataError
from edgeloop.extras import need


def taught(training: Examples, config: DistillConfig, held_out: float | None, seed: int) -> Examples:
    """The examples to train on, with the soft targets of `config`, if it names any.

    Args:
        held_out: The share that was held out of the examples that the teachers saw; None: all are trained on.

    Raises:
        DataError: The targets cannot be read, or are of other examples.
    """
    if config.targets is None:
        return training
    try:
        targets = np.load(config.targets, allow_pickle=False)
    except (OSError, ValueError) as e:
        raise DataError(
            f"{config.targets} cannot be read as .npy ({e})", advice="Let edgeloop distill write it again."
        ) from e
    if held_out is not None:
        targets = targets[numbers_held_out(len(targets), round(len(targets) * held_out), seed)[0]]
    return with_soft_targets(training, targets)


def with_soft_targets(examples: Examples, targets: np.ndarray) -> Examples:
    """The same examples, each label a pair (label, soft target [classes]).

    Args:
        targets: Float32 [count, classes], in the stored order of the examples.

    Raises:
        DataError: Another number of targets than of examples, or examples that cannot be fetched by number.
    """
    if not isinstance(examples.source, Numbered):
        raise DataError(
            f"{examples.name} is read from one end to the other, so soft targets cannot be matched to its examples",
            advice="Distil from .npz, idx or CSV files, or from images in folders.",
        )
    if len(targets) != examples.source.count:
        raise DataError(
            f"{examples.name} has {examples.source.count} examples, and there are {len(targets)} soft targets",
            advice="Ask the teachers again: edgeloop distill does it.",
        )
    return _relabeled(examples, lambda number, label: (label, _at(targets, number)))


def distillation_objective(hard: Objective, config: DistillConfig, from_logits: bool) -> Objective:
    """The loss of `DistillConfig` for labels that are pairs; labels alone are judged by `hard`."""
    tf = need("tensorflow", extra="cloud")

    def losses(labels: Any, outputs: Any) -> Any:
        if not isinstance(labels, tuple):
            return hard.losses(labels, outputs)
        label, target = labels
        logits = outputs if from_logits else tf.math.log(tf.maximum(outputs, LEAST))
        said = tf.nn.log_softmax(tf.cast(logits, tf.float32) / config.temperature)
        divergence = tf.reduce_sum(target * (tf.math.log(tf.maximum(target, LEAST)) - said), -1)
        return config.alpha * config.temperature**2 * divergence + (1 - config.alpha) * hard.losses(label, outputs)

    def scores(labels: Any, outputs: Any) -> Any:
        return hard.scores(labels[0] if isinstance(labels, tuple) else labels, outputs)

    return replace(hard, losses=losses, scores=scores)


def _relabeled(examples: Examples, relabel: Callable[[Any, Any], Any]) -> Examples:
    source = examples.source
    assert isinstance(source, Numbered)  # checked where the targets came in

    def relabeling(decode: Callable[[Any], tuple[Any, Any]]) -> Callable[[Any], tuple[Any, Any]]:
        def relabeled(number: Any) -> tuple[Any, Any]:
            features, label = decode(number)
            return features, relabel(number, label)

        return relabeled

    many = None if source.decode_batch is None else relabeling(source.decode_batch)
    return replace(examples, source=replace(source, decode=relabeling(source.decode), decode_batch=many))


def _at(targets: np.ndarray, number: Any) -> Any:
    tf = need("tensorflow", extra="cloud")
    return tf.gather(tf.constant(targets), number)
