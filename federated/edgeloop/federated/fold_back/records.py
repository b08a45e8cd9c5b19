"""What became of the rounds that were folded back: `cloud.json` in the folder of a run.

It is {"format": "edgeloop-cloud/1", "rounds": [...]}, one row a round, by number. A row is written once its release is
published; who is killed between the two publishes the same weights again, under the next number.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgeloop.atomic import write_file
from edgeloop.errors import DataError

FORMAT = "edgeloop-cloud/1"
FILE = "cloud.json"
WORK = "cloud"  # round-N/: the Keras model, its training, and a bundle that is not published
RELEASES = "releases"  # a registry, as `edgeloop publish` writes it


class Outcome(enum.StrEnum):
    """What became of a round's weights."""

    RELEASED = "released"
    BLOCKED = "blocked"  # a variant is worse than the limit allows
    FAILED = "failed"  # the training or the conversion


@dataclass(frozen=True, kw_only=True)
class FoldBackRecord:
    """One round that was folded back.

    Attributes:
        error: Why there is no release, as `error_to_json` has it; empty where there is one.
        version: Of the release, whose folder is `release` below that of the run; 0 and empty: there is none.
        signed: Whether enrolled devices take it.
        metric: `accuracy`, `auc` or `rmse`; empty where nothing was measured.
        source: What the Keras model came to.
        model: The Keras model that was converted, below the folder of the run.
        variants: What each variant came to, on the worst of its runtimes.
        told: What was done, a sentence each.
        options_sha256: Of `CloudOptions.resolved` then.
    """

    round: int
    outcome: Outcome
    error: Mapping[str, Any] = field(default_factory=dict)
    version: int = 0
    release: str = ""
    signed: bool = False
    model: str = ""
    metric: str = ""
    source: float | None = None
    variants: Mapping[str, float] = field(default_factory=dict)
    told: tuple[str, ...] = ()
    options_sha256: str = ""

    @property
    def reason(self) -> str:
        """Why there is no release, and what to do."""
        return f"{self.error['found']} {self.error['advice']}".strip() if self.error else ""

    def sentence(self) -> str:
        """`Round 3 is release 2: accuracy 0.9712, int8 0.97.` or why it is none."""
        if self.outcome is not Outcome.RELEASED:
            return f"Round {self.round} is not released ({self.outcome.value}): {self.reason}"
        worst = ", ".join(f"{name} {value:.4g}" for name, value in sorted(self.variants.items()))
        signed = "" if self.signed else " It is not signed: enrolled devices do not take it."
        return f"Round {self.round} is release {self.version}: {self.metric} {self.source:.4g}, {worst}.{signed}"


def read_records(out: Path) -> tuple[FoldBackRecord, ...]:
    """Of the run in `out`, by round; none where nothing was folded back.

    Raises:
        DataError: cloud.json is damaged.
    """
    try:
        document = json.loads((out / FILE).read_bytes())
        if document["format"] != FORMAT:
            raise ValueError(f"its format is {document['format']!r}")
        return tuple(_record(row) for row in document["rounds"])
    except FileNotFoundError:
        return ()
    except (ValueError, KeyError, TypeError) as e:
        raise DataError(
            f"{out / FILE} cannot be read ({e}), expected {FORMAT}",
            advice="Move it away: the rounds are then folded back again.",
        ) from e


def write_record(out: Path, record: FoldBackRecord) -> None:
    """Put the row of a round into cloud.json, in the place of an earlier one of that round."""
    _write(out, (*read_records(out), record))


def forget_from(out: Path, number: int) -> None:
    """Take the rows of this round and of later ones out of cloud.json: the run has gone back to it. Their releases stay
    published, with lower numbers than any that follows."""
    records = read_records(out)
    if records:
        _write(out, [record for record in records if record.round < number])


def _write(out: Path, records: Sequence[FoldBackRecord]) -> None:
    rows = {one.round: one for one in records}
    document = {"format": FORMAT, "rounds": [asdict(rows[number]) for number in sorted(rows)]}
    write_file(out / FILE, json.dumps(document, indent=1, allow_nan=False).encode() + b"\n")


def is_open(number: int, records: Sequence[FoldBackRecord], options_sha256: str = "") -> bool:
    """Whether a round that is due is still to be folded back. One that failed is, and one that was blocked under other
    options than these, until a later one has ended: devices never get older weights as a newer release."""
    ended = [
        one.round
        for one in records
        if one.outcome is Outcome.RELEASED or (one.outcome is Outcome.BLOCKED and one.options_sha256 == options_sha256)
    ]
    return number > max(ended, default=0)


def _record(row: Mapping[str, Any]) -> FoldBackRecord:
    return FoldBackRecord(**{**row, "outcome": Outcome(row["outcome"]), "told": tuple(row["told"])})
