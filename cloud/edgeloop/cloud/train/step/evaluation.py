"""What a model comes to on validation data, under any strategy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeloop.cloud.train.step.objective import Objective
from edgeloop.extras import need


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Means over all examples: the loss, and what `Objective.metric` names."""

    loss: float
    score: float
    examples: int


def evaluation(strategy: Any, model: Any, objective: Objective) -> Callable[[Iterable[Any]], Evaluation]:
    """A function of batches (distributed as the strategy needs them) to the means over all their examples."""
    tf = need("tensorflow", extra="cloud")

    def replica(item: tuple[Any, Any]) -> Any:
        features, labels = item
        outputs = model(features, training=False)
        losses, scores = objective.losses(labels, outputs), objective.scores(labels, outputs)
        count = tf.cast(tf.shape(losses)[0], tf.float32)
        return tf.stack([tf.reduce_sum(losses), tf.reduce_sum(scores), count])

    @tf.function(reduce_retracing=True)
    def sums(item: Any) -> Any:
        return strategy.reduce("SUM", strategy.run(replica, args=(item,)), axis=None)

    def evaluate(batches: Iterable[Any]) -> Evaluation:
        every = np.array([sums(item).numpy() for item in batches], np.float64)
        loss, score, count = every.sum(0)
        return Evaluation(loss=float(loss / count), score=float(score / count), examples=int(count))

    return evaluate


def evaluation_here(model: Any, objective: Objective) -> Callable[[Iterable[Any]], Evaluation]:
    """The evaluation of a model of this process, outside of any strategy."""
    return evaluation(need("tensorflow", extra="cloud").distribute.get_strategy(), model, objective)
