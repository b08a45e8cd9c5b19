"""The form of the history: a row for each action on a device and each answer of one."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from edgeloop.edge.deploy.known_devices import absolute_name
from edgeloop.errors import EdgeloopError
from edgeloop.runtime.device import Device

STARTED = "started"  # the result of a deploy whose end nobody wrote down: it runs still, or was killed
FAILED = "failed"
EMPTY = "empty"  # a slot that holds no release; without a slot: a device that holds none at all


class HistoryAction(enum.StrEnum):
    """What was done to a device, or asked of it."""

    DEPLOY = "deploy"
    ROLLBACK = "rollback"
    ENROLL = "enroll"
    CHECK = "check"
    STATUS = "status"


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRow:
    """One action on one device; None: it does not apply, or is not known.

    Attributes:
        at: When it began, ISO 8601 in UTC.
        until: Of a status: when the device last gave this answer.
        device: Its address, valid in any folder; `name`: what its fleet file calls it, or else its label.
        result: A DeployStatus or STARTED; "rolled back", "enrolled", "ok", "lacks", "failed"; of a status the state of
            the slot or "unreachable".
        version: The release that runs there after it.
        before: The release that ran there before it.
        manifest_sha256: Of that release, or of the one that was deployed.
        rollout: The number of the rollout it belongs to, `wave` that of its wave.
        options: Of a deploy, what the release had to satisfy there, as JSON.
        step: Of a deploy, the last one that began.
        runs, p50_ms, p90_ms: Of the probation.
        exit_code, reason: Of the error; of a deploy that ended well, why this variant.
    """

    at: str
    action: HistoryAction
    device: str
    name: str
    result: str
    until: str | None = None
    slot: str | None = None
    version: int | None = None
    before: int | None = None
    variant: str | None = None
    runtime: str | None = None
    manifest_sha256: str | None = None
    rollout: int | None = None
    wave: int | None = None
    options: str | None = None
    step: str | None = None
    duration_s: float | None = None
    runs: int | None = None
    p50_ms: float | None = None
    p90_ms: float | None = None
    sent_bytes: int | None = None
    exit_code: int | None = None
    reason: str | None = None


def now() -> str:
    """The time in UTC, to the millisecond; such texts sort by time."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def shown_time(at: str) -> str:
    """Of a row, to the second: `2026-11-30 12:00:00`."""
    return at[:19].replace("T", " ")


def of_device(at: str, action: HistoryAction, device: Device) -> dict[str, Any]:
    """The fields of a row that every action has but its result."""
    return {"at": at, "action": action, "device": absolute_name(device), "name": device.label}


def of_end(device: Device, error: EdgeloopError | None, well: str) -> dict[str, Any]:
    """The result of an action, `well` where it succeeded, and why it failed."""
    if error is None:
        return {"result": well}
    return {"result": FAILED, "exit_code": error.exit_code, "reason": error.told_beside(device.name)}
