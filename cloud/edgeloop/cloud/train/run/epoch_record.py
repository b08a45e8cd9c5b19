"""One epoch's line of metrics.jsonl, and the sentence about it."""

from __future__ import annotations

from dataclasses import dataclass

WAITS = 0.3  # share of the time that a training may wait for its input before it is called bound by it


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
    """One line of metrics.jsonl.

    Attributes:
        step: Steps done since the training began.
        score: What `RunResult.metric` names, of the validation data.
        waited_share: Share of the time that steps waited for their batches, 0 to 1.
    """

    epoch: int
    step: int
    loss: float
    validation_loss: float
    score: float
    learning_rate: float
    seconds: float
    examples_per_s: float
    waited_share: float

    @property
    def bound(self) -> str:
        return "input" if self.waited_share >= WAITS else "compute"


def epoch_line(record: EpochRecord, epochs: int, metric: str) -> str:
    left_s = record.seconds * (epochs - record.epoch)
    score = f"{record.score:.1%}" if metric == "accuracy" else f"{record.score:.4g}"
    return (
        f"Epoch {record.epoch} of {epochs}: loss {record.loss:.4f}, validation loss {record.validation_loss:.4f}, "
        f"{metric.replace('_', ' ')} {score}, {record.examples_per_s:,.0f} examples/s, "
        f"{record.waited_share:.0%} of the time waiting for input, at most {left_s:.0f} s left."
    )
