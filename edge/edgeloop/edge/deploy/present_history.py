"""The history as rows for people and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from edgeloop.edge.deploy.deploy_result import DeployStatus
from edgeloop.edge.deploy.history_reading import ReadHistory
from edgeloop.edge.deploy.history_rows import STARTED, HistoryRow, shown_time
from edgeloop.edge.deploy.resume import DONE, FAILED, INTERRUPTED, Rollout
from edgeloop.result import CommandResult, Table

SHOWN, REASONS = 200, 20  # rows of a table, and lines below it; the document has all
ENDED: Mapping[str | None, str] = {FAILED: "failed", INTERRUPTED: "was interrupted"}
COLUMNS = ("time (UTC)", "device", "action", "result", "slot", "release", "variant", "p90 ms", "took")


def of_history(read: ReadHistory) -> CommandResult:
    """{"history": [{at, action, device, result, ...}], "rollouts": [{number, at, slot, version, devices, result}]}"""
    document = {"history": [asdict(row) for row in read.rows], "rollouts": [asdict(one) for one in read.rollouts]}
    rows = list(read.rows)[-SHOWN:]
    notes = [f"{shown_time(row.at)} {row.name}: {row.reason}" for row in rows if row.reason and _failed(row)][-REASONS:]
    notes += [note for rollout in read.rollouts if (note := _early(rollout, read))]
    if len(read.rows) > len(rows):
        notes.append(f"{len(read.rows) - len(rows):,} older rows were left out; --json has all of them.")
    if not rows:
        notes.append("The history has no such row.")
    return CommandResult(document, [Table("", COLUMNS, [_cells(row) for row in rows])] if rows else [], notes)


def _cells(row: HistoryRow) -> tuple[str, ...]:
    return (
        _time(row),
        row.name,
        row.action,
        row.result,
        row.slot or "",
        _release(row),
        row.variant or "",
        "" if row.p90_ms is None else f"{row.p90_ms:.3f}",
        "" if row.duration_s is None else f"{row.duration_s:.1f} s",
    )


def _failed(row: HistoryRow) -> bool:
    return row.exit_code is not None or row.result in ("lacks", "damaged")


def _time(row: HistoryRow) -> str:
    """To the second; of an answer that stayed the same, the time of the last one too."""
    if row.until is None:
        return shown_time(row.at)
    last = shown_time(row.until)
    return f"{shown_time(row.at)} to {last[11:] if row.until[:10] == row.at[:10] else last}"


def _release(row: HistoryRow) -> str:
    """What ran there before and what runs there now."""
    if row.result in (DeployStatus.COMMITTED, DeployStatus.ROLLED_BACK) and row.before not in (None, row.version):
        return f"{row.before} → {row.version}"
    if row.result == STARTED:
        return f"→ {row.version}"
    return "" if row.version is None else str(row.version)


def _early(rollout: Rollout, read: ReadHistory) -> str:
    """A sentence about a rollout that did not reach every device; empty: it did, or a later one of its slot began."""
    later = any(one.slot == rollout.slot and one.number > rollout.number for one in read.rollouts)
    if rollout.result == DONE or later:
        return ""
    own: list[Any] = [row for row in read.rows if row.rollout == rollout.number]
    well = {row.device for row in own if row.result in (DeployStatus.COMMITTED, DeployStatus.UNCHANGED)}
    wave = max(row.wave for row in own)
    return (
        f"The rollout of release {rollout.version} of {rollout.slot} that began at {shown_time(rollout.at)} UTC "
        f"{ENDED.get(rollout.result, 'has not ended, or was killed,')} in wave {wave}: "
        f"{len(well)} of {rollout.devices} devices have the release. Repeat its deploy with --resume to continue."
    )
