"""What a training came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from edgeloop.cloud.train.run.epoch_record import EpochRecord
from edgeloop.cloud.train.run.run_folder import LOGS, MODEL, SAVED_MODEL


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What a training came to.

    Attributes:
        reason: Which rule chose the strategy.
        stopped: Why it ended.
        examples: Trained on.
        judged_on: Examples that the validation loss and the score are means over.
    """

    out: Path
    strategy: str
    reason: str
    replicas: int
    batch: int
    metric: str
    epochs: tuple[EpochRecord, ...]
    best_epoch: int
    stopped: str
    examples: int
    judged_on: int
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> EpochRecord:
        return self.epochs[self.best_epoch - 1]

    @property
    def model(self) -> Path:
        return self.out / MODEL

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> RunResult:
        """The result that `to_json` wrote."""
        known = {field.name: document[field.name] for field in fields(cls)}
        epochs = tuple(EpochRecord(**record) for record in document["epochs"])
        return cls(**{**known, "out": Path(document["out"]), "epochs": epochs, "notes": tuple(document["notes"])})

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "out": str(self.out),
            "model": str(self.model),
            "saved_model": str(self.out / SAVED_MODEL),
            "logs": str(self.out / LOGS),
            "bound": self.epochs[-1].bound,
        }


def silence(line: str) -> None:
    """The `say` of a caller who does not listen."""
