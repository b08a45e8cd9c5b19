"""The loss that learns from labels and from soft targets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgeloop.cloud.train.distill.options import DistillConfig
from edgeloop.cloud.train.step.objective import Objective
from edgeloop.extras import need

LEAST = 1e-30  # of a probability in float32, before its logarithm: a clip that is met has no gradient


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
