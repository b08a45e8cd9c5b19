"""What was done to devices, and what runs there: as rows for people and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from edgeloop.edge.deploy.deploy_result import DeployResult, DeployStatus
from edgeloop.edge.deploy.device_status import StatusResult
from edgeloop.edge.deploy.enroll import EnrollResult
from edgeloop.edge.deploy.rollback import RollbackResult
from edgeloop.errors import EdgeloopError
from edgeloop.result import CommandResult, Table
from edgeloop.runtime.device import Device


def of_enroll(enrolled: Sequence[EnrollResult]) -> CommandResult:
    """{"devices": [{device, result: enrolled | failed, reason}]}"""
    rows = [(e.device.name, "failed" if e.error else "enrolled", _reason(e.device, e.error)) for e in enrolled]
    document = {"devices": [{"device": name, "result": result, "reason": reason} for name, result, reason in rows]}
    return CommandResult(document, [Table("", ("device", "result", "reason"), rows)])


def of_deploy(outcomes: Sequence[DeployResult]) -> CommandResult:
    """{"devices": [...]}, a row each in the order they were named."""
    columns = ("device", "result", "release", "variant", "runtime", "p50 ms", "p90 ms", "sent", "why")
    return CommandResult(
        {"devices": [_outcome(o) for o in outcomes]},
        [Table("", columns, [_cells(o) for o in outcomes])],
    )


def of_rollback(done: Sequence[RollbackResult]) -> CommandResult:
    """{"devices": [{device, slot, was, version, variant, reason}]}"""
    columns = ("device", "slot", "was", "release", "variant", "reason")
    rows = [
        (
            d.device.label,
            d.slot or "",
            _release(d.was),
            _release(d.version),
            d.variant or "",
            _reason(d.device, d.error),
        )
        for d in done
    ]
    documents = [
        {
            "device": d.device.name,
            "slot": d.slot,
            "was": d.was,
            "version": d.version,
            "variant": d.variant,
            "reason": None if d.error is None else str(d.error),
        }
        for d in done
    ]
    return CommandResult({"devices": documents}, [Table("", columns, rows)])


def of_statuses(found: Sequence[StatusResult]) -> CommandResult:
    """{"devices": [{device, reachable, reason | enrolled, machine, slots: {NAME: {...}}}]}"""
    columns = ("device", "slot", "release", "variant", "runtime", "state", "floor", "enrolled")
    rows = [row for one in found for row in _what_runs(one)]
    return CommandResult({"devices": [_found(one) for one in found]}, [Table("", columns, rows)])


def state(o: DeployResult) -> str:
    """How an interrupted deploy left the device."""
    if o.result is not DeployStatus.FAILED:
        return o.result.value
    if o.step == "activate":
        return f"stopped on probation: it goes back to release {_release(o.before)} by itself, unless it was done"
    return f"stopped at {o.step}: nothing was changed, what was pushed is kept for the next deploy"


def _cells(o: DeployResult) -> tuple[str, ...]:
    times = [("" if ms is None else f"{ms:.3f}") for ms in (o.p50_ms, o.p90_ms)]
    sent = f"{o.sent_bytes / 1e3:,.1f} kB"
    reason = o.reason.removeprefix(f"{o.device.name}: ")
    return (o.device.label, o.result.value, _change(o), o.variant or "", o.runtime or "", *times, sent, reason)


def _outcome(o: DeployResult) -> dict[str, Any]:
    return {
        "device": o.device.name,
        "wave": o.wave,
        "result": o.result.value,
        "version": o.version,
        "before": o.before,
        "variant": o.variant,
        "runtime": o.runtime,
        "step": o.step,
        "reason": o.reason,
        "p50_ms": o.p50_ms,
        "p90_ms": o.p90_ms,
        "sent_bytes": o.sent_bytes,
        "exit_code": 0 if o.error is None else o.error.exit_code,
    }


def _change(o: DeployResult) -> str:
    """What ran there and what runs there now."""
    if o.result is DeployStatus.COMMITTED and o.before not in (None, o.version):
        return f"{o.before} → {o.version}"
    return str(o.version) if o.result in (DeployStatus.COMMITTED, DeployStatus.UNCHANGED) else _release(o.before)


def _release(version: int | None) -> str:
    return "none" if version is None else str(version)


def _reason(device: Device, error: EdgeloopError | None) -> str:
    """The error, for a table that names the device already."""
    return "" if error is None else str(error).removeprefix(f"{device.name}: ")


def _what_runs(found: StatusResult) -> list[tuple[str, ...]]:
    """A row a slot; one that says why there is none."""
    name = found.device.name
    if found.status is None:
        return [(name, "", "", "", "", f"unreachable: {_reason(found.device, found.error)}", "", "")]
    enrolled = "yes" if found.status.enrolled else "no"
    return [
        (name, slot, _release(s.current), s.variant or "", s.runtime or "", s.state, str(s.floor), enrolled)
        for slot, s in found.status.slots.items()
    ] or [(name, "", "none", "", "", "empty", "", enrolled)]


def _found(found: StatusResult) -> dict[str, Any]:
    if found.status is None:
        return {"device": found.device.name, "reachable": False, "reason": str(found.error)}
    slots = {name: asdict(slot) for name, slot in found.status.slots.items()}
    own = {"enrolled": found.status.enrolled, "machine": dict(found.status.machine), "slots": slots}
    return {"device": found.device.name, "reachable": True, **own}
