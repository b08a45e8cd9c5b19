"""The history in; which rollout of a release ended early, and which devices it need not ask again, out."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from edgeloop.edge.deploy.deploy_result import DeployOptions, DeployStatus
from edgeloop.edge.deploy.history_database import COLUMNS, row_from
from edgeloop.edge.deploy.history_rows import EMPTY, HistoryAction, HistoryRow
from edgeloop.edge.deploy.known_devices import absolute_name
from edgeloop.edge.on_device.releases.protocol import COMMITTED
from edgeloop.runtime.device import Device

DONE, FAILED, INTERRUPTED = "done", "failed", "interrupted"
WELL = (DeployStatus.COMMITTED.value, DeployStatus.UNCHANGED.value)
NO_DEMAND = ("timeout_s", "take_over", "slot")  # options that say nothing of how a release must be
TELL_A_RELEASE = (HistoryAction.DEPLOY, HistoryAction.ROLLBACK, HistoryAction.STATUS)


@dataclass(frozen=True, slots=True)
class Rollout:
    """One release to many devices, in waves; several commands where it was resumed.

    Attributes:
        devices: How many were named.
        result: DONE, FAILED on some device, or INTERRUPTED; None: it runs still, or was killed.
    """

    number: int
    at: str
    slot: str
    version: int
    manifest_sha256: str
    waves: str
    devices: int
    ended_at: str | None = None
    result: str | None = None


@dataclass(frozen=True, slots=True)
class KnownOfSlot:
    """What the history knows of one slot: its last rollout, and of each device, by its address, the last deploy and
    the last thing that told which release runs there."""

    rollout: Rollout | None
    deploys: Mapping[str, HistoryRow]
    releases: Mapping[str, HistoryRow]


def demands(options: DeployOptions) -> str:
    """What a release must satisfy on a device, as JSON: equal texts, equal demands."""
    values = {name: value for name, value in asdict(options).items() if name not in NO_DEMAND}
    return json.dumps(values, sort_keys=True)


def known_of_slot(db: sqlite3.Connection, slot: str) -> KnownOfSlot:
    """Read it from the database of the history."""
    names = ", ".join(field.name for field in fields(Rollout))
    found = db.execute(f"SELECT {names} FROM rollouts WHERE slot = ? ORDER BY number DESC LIMIT 1", (slot,)).fetchone()
    deploys = _last(db, slot, (HistoryAction.DEPLOY,))
    return KnownOfSlot(Rollout(*found) if found else None, deploys, _last(db, slot, TELL_A_RELEASE))


def unfinished(known: KnownOfSlot | None, manifest_sha256: str) -> Rollout | None:
    """The last rollout of the slot, if it is of this release and did not reach every device."""
    last = known.rollout if known else None
    return last if last and last.manifest_sha256 == manifest_sha256 and last.result != DONE else None


def done_before(
    known: KnownOfSlot, manifest_sha256: str, each: Mapping[Device, DeployOptions]
) -> dict[Device, HistoryRow]:
    """The devices that run this release, as far as is known here, and the deploy that brought it.

    A device with other demands now than then is none of them, nor is one that was rolled back, failed or answered
    something else since.
    """
    done = {}
    for device, options in each.items():
        deployed, last = (rows.get(absolute_name(device)) for rows in (known.deploys, known.releases))
        if (
            deployed is not None
            and last is not None
            and (deployed.manifest_sha256, deployed.options) == (manifest_sha256, demands(options))
            and deployed.result in WELL
            and (last == deployed or (last.manifest_sha256, last.result) == (manifest_sha256, COMMITTED))
        ):
            done[device] = deployed
    return done


def _last(db: sqlite3.Connection, slot: str, actions: tuple[HistoryAction, ...]) -> dict[str, HistoryRow]:
    """The last row of each device that tells of the slot; a device that holds no release tells of every slot."""
    marks = ", ".join("?" * len(actions))
    rows = db.execute(
        f"SELECT {', '.join(COLUMNS)} FROM actions WHERE id IN "
        "(SELECT MAX(id) FROM actions WHERE (slot = ? OR (slot IS NULL AND result = ?)) "
        f"AND action IN ({marks}) GROUP BY device)",
        (slot, EMPTY, *actions),
    )
    return {row.device: row for row in map(row_from, rows)}
