"""What a device tells of its data in a round, where the server asks for it: counts by class, or of labels that are
numbers their mean and variance; never a sample.

The counts of correct labels are of the weights that the server sent, before they are trained. The mean of one label is
that label, and those of a few are nearly told by it, so a device with few samples does not tell it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeloop.runtime.agent.trainer import Trainer

STATISTICS = "statistics"  # key of `config`, and the record of a reply
LABEL_MOMENTS = "label-moments"  # key of `config`: of labels that are numbers
EXAMPLES_BY_CLASS = "examples-by-class"
CORRECT_BY_CLASS, PERSONAL_CORRECT_BY_CLASS = "correct-by-class", "personal-correct-by-class"
LABEL_MEAN, LABEL_VARIANCE = "label-mean", "label-variance"
LEAST = 10  # samples, for a mean and a variance of their labels


class Tell(str, enum.Enum):
    """What devices are asked to tell in each round."""

    NONE = "none"
    EXAMPLES = "examples"  # how many labels of each class a device holds
    EVALUATION = "evaluation"  # the same, and how many of each class the weights of the round get right


def tells(config: Mapping[str, Any], trainer: Trainer) -> Tell:
    """What this model allows of what the server asks for; a word that is unknown here is none."""
    asked = config.get(STATISTICS)
    return Tell(asked) if trainer.tells_classes and asked in [tell.value for tell in Tell] else Tell.NONE


def label_counts(y: np.ndarray, trainer: Trainer, config: Mapping[str, Any]) -> dict[str, Any]:
    """Of the labels alone: their number by class, or, where they are numbers and it is asked for, mean and variance
    of `LEAST` samples or more."""
    if tells(config, trainer) is not Tell.NONE:
        labels = np.asarray(y).reshape(-1).astype(np.int64)
        return {EXAMPLES_BY_CLASS: np.bincount(labels, minlength=trainer.classes or 0).tolist()}
    if trainer.classes is None and config.get(LABEL_MOMENTS) is True and len(y) >= LEAST:
        return {LABEL_MEAN: float(y.mean(dtype=np.float64)), LABEL_VARIANCE: float(y.var(dtype=np.float64))}
    return {}
