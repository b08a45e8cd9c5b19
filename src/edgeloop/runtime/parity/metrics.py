"""Answers and labels in, how good the answers are out: accuracy, AUC, or the error of predicted numbers.

What the labels mean is read off their values and the shape of the source's answers, not their dtype: Keras users keep
classes as floats, as one-hot rows and as columns [n, 1].

AUC is the Mann-Whitney statistic, ties counted as half: https://doi.org/10.1148/radiology.143.1.7063747
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

DECIDING = ("accuracy", "auc", "rmse")
TOP = 5
MANY_CLASSES = 10  # with no more of them, five guesses say little


class Task(Enum):
    """What a model with one output does, by its answers and labels."""

    CLASSES = "one class: probabilities that add up to 1"
    LOGITS = "one class: scores of any size"
    CLASS_NUMBERS = "one class: its number"
    YES_OR_NO = "yes or no: a probability each"
    RANKING = "yes or no: a score each, such as an anomaly score or a logit"
    NUMBERS = "numbers: regression"

    @property
    def classifies(self) -> bool:
        """Whether the answers are [..., classes]."""
        return self in (Task.CLASSES, Task.LOGITS)


@dataclass(frozen=True)
class Scores:
    """How good answers are; None: not a metric of this task, or not defined for these labels.

    Attributes:
        accuracy: Share that is right, 0 to 1; of probabilities, those on the label's side of 0.5.
        top5: Share whose class is among the five most probable; of more than 10 classes.
        auc: Area under the ROC curve, 0 to 1; of several answers a sample, their mean. None where all labels are equal.
        mae: Mean absolute error, in the labels' unit.
        rmse: Root of the mean squared error, in the labels' unit.
        r2: 1 - squared error / variance of the labels; of several answers a sample, their mean.
    """

    accuracy: float | None = None
    top5: float | None = None
    auc: float | None = None
    mae: float | None = None
    rmse: float | None = None
    r2: float | None = None

    @property
    def metric(self) -> str | None:
        """The one that decides: the first that is defined of accuracy, AUC and RMSE."""
        return next((name for name in DECIDING if getattr(self, name) is not None), None)


def task_of(output: np.ndarray, labels: np.ndarray) -> Task | None:
    """What the source, which gave `output` [n, ...], does with `labels` [n, ...]; None: they do not fit."""
    out, y = _squeezed(output), _squeezed(labels)
    if len(out) != len(y) or out.dtype.kind not in "fiu" or not np.isfinite(out).all():
        return None
    whole = bool((y == np.rint(y)).all())
    if y.shape != out.shape:
        fits = out.ndim > 1 and y.shape == out.shape[:-1] and whole and out.dtype.kind == "f"
        return _of_classes(out) if fits else None
    if out.dtype.kind != "f":
        return Task.CLASS_NUMBERS if whole else Task.NUMBERS
    if not ((y == 0) | (y == 1)).all():
        return Task.NUMBERS
    if out.ndim > 1 and (y.sum(-1) == 1).all():
        return _of_classes(out)
    return Task.YES_OR_NO if _within_0_1(out) else Task.RANKING


def scores(task: Task, output: np.ndarray, labels: np.ndarray) -> Scores:
    """How good answers of the same shape as the source's are."""
    out, y = _squeezed(output), _squeezed(labels)
    if task.classifies:
        return _of_class_scores(out, class_numbers(out, y), task)
    out = out.astype(np.float64)
    if task is Task.CLASS_NUMBERS:
        return Scores(accuracy=float(np.mean(out == y)))
    if task is Task.NUMBERS:
        return _of_numbers(out.reshape(len(out), -1), y.reshape(len(y), -1).astype(np.float64))
    accuracy = float(np.mean((out > 0.5) == y)) if task is Task.YES_OR_NO else None
    return Scores(accuracy=accuracy, auc=_mean_auc(out.reshape(len(out), -1), y.reshape(len(y), -1)))


def class_numbers(output: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Labels of a classifier, class numbers or one-hot rows, as numbers, without axes of length 1."""
    out, y = _squeezed(output), _squeezed(labels)
    return (y.argmax(-1) if y.shape == out.shape else y).astype(np.int64)


def auc(values: np.ndarray, positive: np.ndarray) -> float | None:
    """The probability that a positive sample scores higher than a negative one, by ranks; None without one of each."""
    yes = int(positive.sum())
    no = len(positive) - yes
    if not yes or not no:
        return None
    _, at, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # of equal values the mean of their ranks
    return float((ranks[at][positive].sum() - yes * (yes + 1) / 2) / (yes * no))


def _of_classes(out: np.ndarray) -> Task:
    sure = bool((out >= 0).all() and np.allclose(out.sum(-1), 1, atol=1e-3))
    return Task.CLASSES if sure else Task.LOGITS


def _of_class_scores(out: np.ndarray, y: np.ndarray, task: Task) -> Scores:
    known = (y >= 0) & (y < out.shape[-1])  # others are void: labels.py refuses them, or says that they do not count
    if not known.all():
        out, y = out[known], y[known]
    if not y.size:
        return Scores()
    two = None
    if out.shape[-1] == 2 and ((y == 0) | (y == 1)).all():
        wide = out.astype(np.float64)
        two = auc((wide[..., 1] if task is Task.CLASSES else wide[..., 1] - wide[..., 0]).ravel(), y.ravel() == 1)
    top5 = float(np.mean(_among_first(out, y, TOP))) if out.shape[-1] > MANY_CLASSES else None
    return Scores(accuracy=float(np.mean(out.argmax(-1) == y)), top5=top5, auc=two)


def _among_first(out: np.ndarray, y: np.ndarray, count: int) -> np.ndarray:
    """Whether fewer than `count` classes come before the label's. Of equal values the first does, as argmax has it:
    probabilities in uint8 have many equal ones."""
    classes = out.shape[-1]
    label = y[..., None]
    own = np.take_along_axis(out, label, -1)
    before = (out > own) | ((out == own) & (np.arange(classes) < label))
    return before.sum(-1) < count


def _mean_auc(out: np.ndarray, y: np.ndarray) -> float | None:
    """Over the columns [n, k] that have labels of both kinds."""
    known = [a for k in range(out.shape[1]) if (a := auc(out[:, k], y[:, k] == 1)) is not None]
    return float(np.mean(known)) if known else None


def _of_numbers(out: np.ndarray, y: np.ndarray) -> Scores:
    error = out - y
    around = np.square(y - y.mean(0)).sum(0)
    varied = around > 0
    r2 = 1 - np.square(error).sum(0)[varied] / around[varied]
    return Scores(
        mae=float(np.abs(error).mean()),
        rmse=float(np.sqrt(np.square(error).mean())),
        r2=float(r2.mean()) if varied.any() else None,
    )


def _within_0_1(out: np.ndarray) -> bool:
    return bool(((out >= 0) & (out <= 1)).all())


def _squeezed(array: np.ndarray) -> np.ndarray:
    """Without axes of length 1 but the first: [n] and [n, 1] are the same."""
    return array.reshape(array.shape[:1] + tuple(d for d in array.shape[1:] if d != 1))
