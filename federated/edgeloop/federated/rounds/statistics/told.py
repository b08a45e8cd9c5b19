"""The statistics of one reply, read and checked. They may come from a device that is hostile."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.errors import OptionsError, one_line
from edgeloop.federated.device.statistics import (
    CORRECT_BY_CLASS,
    EXAMPLES_BY_CLASS,
    LABEL_MEAN,
    LABEL_VARIANCE,
    PERSONAL_CORRECT_BY_CLASS,
    STATISTICS,
    Tell,
)
from edgeloop.federated.rounds.statistics.options import StatisticsOptions

if TYPE_CHECKING:
    from flwr.app import Message

    from edgeloop.federated.rounds.guard.update import Update

LARGEST = 1e30  # of a mean and a variance: sums over all examples of all devices stay finite


@dataclass(frozen=True)
class Labels:
    """The labels of a model.

    Attributes:
        classes: Each is one of so many; 0: they are numbers, or answers to several yes-or-no questions.
        each: Labels of one sample.
    """

    classes: int = 0
    each: int = 1


@dataclass(frozen=True)
class ToldCounts:
    """Of one device, by class, int64 [classes]: its labels, and those that the weights of the round got right, and its
    own personal ones. None: not told."""

    examples: np.ndarray
    correct: np.ndarray | None = None
    personal_correct: np.ndarray | None = None


@dataclass(frozen=True)
class ToldLabels:
    """Of one device, whose labels are numbers."""

    mean: float
    variance: float


def check_labels(labels: Labels, asked: StatisticsOptions) -> None:
    """See that noise on counts by class, which costs privacy in each round, is not for nothing.

    Raises:
        OptionsError: The model has no classes.
    """
    if asked.noisy and not labels.classes:
        raise OptionsError(
            "[statistics] noise-multiplier is of counts by class, and the labels of this model are no classes",
            advice="Leave noise-multiplier and clipping-norm of [statistics] out.",
        )


def told_in(
    reply: Message, update: Update, labels: Labels, asked: StatisticsOptions
) -> ToldCounts | ToldLabels | str | None:
    """What a reply tells, or why that does not count; None: it tells nothing."""
    record = reply.content.metric_records.get(STATISTICS)
    return None if record is None else told_of(dict(record), update.examples, labels, asked)


def told_of(
    record: Mapping[str, Any], examples: int, labels: Labels, asked: StatisticsOptions
) -> ToldCounts | ToldLabels | str:
    """What a record tells, or why it does not count.

    Args:
        examples: The number of samples that the same reply reports.
    """
    strange = sorted(set(record) - _expected(labels, asked))
    if strange:
        return f"{one_line(strange[0], 40)!r} is told, and was not asked for"
    if not labels.classes:
        return _moments_of(record)
    counts = {}
    for key in record:
        wrong = _wrong_counts(key, record[key], labels.classes)
        if wrong:
            return wrong
        counts[key] = np.array(record[key], np.int64)
    for key in (EXAMPLES_BY_CLASS, *([CORRECT_BY_CLASS] if asked.tell is Tell.EVALUATION else [])):
        if key not in counts:
            return f"it lacks {key}"
    total, held = sum(record[EXAMPLES_BY_CLASS]), examples * labels.each
    if total != held:
        return f"{EXAMPLES_BY_CLASS} adds up to {one_line(total, 40)}, and the device reports {held} labels"
    for key in (CORRECT_BY_CLASS, PERSONAL_CORRECT_BY_CLASS):
        if key in counts and (counts[key] > counts[EXAMPLES_BY_CLASS]).any():
            return f"{key} has more labels of a class than {EXAMPLES_BY_CLASS}"
    return ToldCounts(counts[EXAMPLES_BY_CLASS], counts.get(CORRECT_BY_CLASS), counts.get(PERSONAL_CORRECT_BY_CLASS))


def _expected(labels: Labels, asked: StatisticsOptions) -> set[str]:
    if not labels.classes:
        return {LABEL_MEAN, LABEL_VARIANCE} if asked.label_moments else set()
    evaluated = {CORRECT_BY_CLASS, PERSONAL_CORRECT_BY_CLASS} if asked.tell is Tell.EVALUATION else set()
    return {EXAMPLES_BY_CLASS, *evaluated} if asked.tell not in (None, Tell.NONE) else set()


def _wrong_counts(key: str, found: Any, classes: int) -> str | None:
    if type(found) is not list or len(found) != classes:
        what = f"{len(found)} numbers" if type(found) is list else one_line(found, 40)
        return f"{key} is {what}, expected one count for each of {classes} classes"
    wrong = [one for one in found if type(one) is not int or not 0 <= one < 1 << 62]
    return f"{key} holds {one_line(wrong[0], 40)}, expected whole numbers of 0 or more" if wrong else None


def _moments_of(record: Mapping[str, Any]) -> ToldLabels | str:
    if set(record) != {LABEL_MEAN, LABEL_VARIANCE}:
        return f"it lacks {LABEL_MEAN} or {LABEL_VARIANCE}"
    mean, variance = record[LABEL_MEAN], record[LABEL_VARIANCE]
    for key, value, least in ((LABEL_MEAN, mean, -LARGEST), (LABEL_VARIANCE, variance, 0.0)):
        if type(value) not in (int, float) or not math.isfinite(value) or not least <= value <= LARGEST:
            return f"{key} is {one_line(value, 40)}, expected a number of {least:g} to {LARGEST:g}"
    return ToldLabels(float(mean), float(variance))
