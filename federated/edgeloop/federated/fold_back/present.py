"""What became of the rounds that were folded back, for whoever ran the command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgeloop.errors import EdgeloopError, error_from_json
from edgeloop.federated.fold_back.gate import Verdict
from edgeloop.federated.fold_back.records import FoldBackRecord
from edgeloop.result import Table

COLUMNS = ("round", "outcome", "metric", "Keras model", "worst variant", "release")


@dataclass(frozen=True)
class FoldBackTold:
    """The rows of cloud.json in words; nothing where no round was folded back."""

    records: Sequence[FoldBackRecord]

    def document(self) -> dict[str, Any]:
        return {"cloud": [asdict(record) for record in self.records]} if self.records else {}

    def tables(self) -> list[Table]:
        return [Table("releases", COLUMNS, [_row(record) for record in self.records])] if self.records else []

    def notes(self) -> list[str]:
        return [record.sentence() for record in self.records]

    def error(self) -> EdgeloopError | None:
        """What kept the newest round from its release. The rounds are whole all the same."""
        last = self.records[-1].error if self.records else None
        if not last:
            return None
        where = f"round {self.records[-1].round} is not released"
        return error_from_json(last, EdgeloopError, where, "its conversion or training")


def _row(record: FoldBackRecord) -> tuple[str, ...]:
    measured = ("none", "none", "none")
    if record.source is not None:
        verdict = Verdict(metric=record.metric, source=record.source, variants=record.variants)
        worst = verdict.worst
        measured = (record.metric, f"{record.source:.4g}", f"{worst} {record.variants[worst]:.4g}")
    return (str(record.round), record.outcome.value, *measured, record.release or "none")
