"""A source's answers and labels in, what a budget of --max-drop is on out, and what a drop of it means.

Shares (accuracy, agreement, AUC, signal) fall by percentage points. An RMSE is in the labels' unit, so it grows by per
cent of the source's own.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgeloop.runtime.parity.compare import Parity, is_classifier, label_task
from edgeloop.runtime.parity.metrics import scores

Arrays = Mapping[str, np.ndarray]

NEGLIGIBLE = 0.01  # of the labels' standard deviation: an RMSE below it (R² 0.9999) is not told from none


class Metric(enum.StrEnum):
    """What the budget is on, in the words of a report."""

    ACCURACY = "accuracy"
    AUC = "AUC"
    RMSE = "RMSE"
    AGREEMENT = "top-1 agreement with the source"
    SIGNAL = "share of the output's power that is not error"

    @property
    def unit(self) -> str:
        """Of a drop."""
        return "%" if self is Metric.RMSE else "points"

    def text(self, value: float) -> str:
        """`91.20%`, or `3.057` of an RMSE."""
        return f"{value:.4g}" if self is Metric.RMSE else f"{value:.2%}"

    def limit(self, drop: float) -> str:
        """`0.5 points of accuracy`, or `5% of RMSE`."""
        return f"{drop:g}{'' if self is Metric.RMSE else ' '}{self.unit} of {self.value}"

    def drop_text(self, drop: float, source: float) -> str:
        """`0.31 points below the source's 91.20%`, or `4.20% above the source's 3.057`."""
        if self is Metric.RMSE:
            return f"{drop:.2f}% above the source's {self.text(source)}"
        return f"{drop:.2f} points below the source's {self.text(source)}"

    @property
    def axis(self) -> str:
        return self.value if self is Metric.RMSE else f"{self.value}, %"

    def drawn(self, value: float) -> float:
        """On that axis."""
        return value if self is Metric.RMSE else 100 * value

    def badness(self, value: float) -> float:
        """What is smaller of the better one."""
        return value if self is Metric.RMSE else -value


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceScore:
    """What the source itself scores.

    Attributes:
        value: 0..1; an RMSE in the labels' unit.
        unit: An RMSE grows by per cent of this: its value, or where that is too small to matter, of NEGLIGIBLE.
    """

    metric: Metric
    value: float
    unit: float = 1.0

    def drop(self, value: float) -> float:
        """How much worse `value` is: percentage points, or per cent of an RMSE; below 0 where it is better."""
        return 100 * (self.metric.badness(value) - self.metric.badness(self.value)) / self.unit


def source_score(expected: Arrays, labels: np.ndarray | None, label_output: str | None = None) -> SourceScore:
    """With labels the first of accuracy, AUC and RMSE that the task has. Without, of a classifier its agreement; of
    anything else 1 - noise / signal, the worst output's: 23 dB of SNR are 99.5%."""
    task = label_task(expected, labels, label_output)
    if task is not None and labels is not None:
        own = scores(task, expected[label_output or next(iter(expected))], labels)
        if own.accuracy is not None:
            return SourceScore(metric=Metric.ACCURACY, value=own.accuracy)
        if own.auc is not None:
            return SourceScore(metric=Metric.AUC, value=own.auc)
        if own.rmse is not None:
            return rmse_score(own.rmse, labels)
    return SourceScore(metric=Metric.AGREEMENT if is_classifier(expected, False) else Metric.SIGNAL, value=1.0)


def rmse_score(rmse: float, labels: np.ndarray) -> SourceScore:
    """Of a source with this RMSE on these labels."""
    spread = float(np.sqrt(labels.astype(np.float64).var(axis=0).mean()))
    unit = max(rmse, NEGLIGIBLE * spread, float(np.finfo(np.float32).tiny))
    return SourceScore(metric=Metric.RMSE, value=rmse, unit=unit)


def score(rows: list[Parity], metric: Metric) -> float:
    """What a variant scores, by its records, one an output."""
    if metric is Metric.SIGNAL:
        return min(1.0 if row.snr_db is None else max(0.0, 1 - 10 ** (-row.snr_db / 10)) for row in rows)
    name = {
        Metric.ACCURACY: "accuracy",
        Metric.AUC: "auc",
        Metric.RMSE: "rmse",
        Metric.AGREEMENT: "top1_agreement",
    }[metric]
    found = next((value for row in rows if (value := getattr(row, name)) is not None), None)  # of the labelled output
    if found is not None:
        return found
    return float(np.finfo(np.float32).max) if metric is Metric.RMSE else 0.0  # nothing to compare: as bad as can be
