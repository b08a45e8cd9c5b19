"""What was done to devices, and what runs there: as rows for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from edgeloop.edge.deploy.deploy_result import DeployResult, DeployStatus
from edgeloop.edge.deploy.device_status import UNREACHABLE, StatusResult
from edgeloop.edge.deploy.enroll import EnrollResult
from edgeloop.edge.deploy.rollback import RollbackResult
from edgeloop.edge.on_device.releases.protocol import PullStatus, SlotStatus
from edgeloop.errors import EdgeloopError
from edgeloop.result import CommandResult, Table
from edgeloop.runtime.device import Device


def of_enroll(enrolled: Sequence[EnrollResult]) -> CommandResult:
    """{"devices": [{device, name, result: enrolled | failed, error}]}"""
    rows = [(e.device.display_name, "failed" if e.error else "enrolled") for e in enrolled]
    documents = [
        {**_who(e.device), "result": result, "error": _error(e.error)}
        for (_, result), e in zip(rows, enrolled, strict=True)
    ]
    table = Table("", ("device", "result"), rows)
    reasons = _reasons((e.device.display_name, _reason(e.device, e.error), e.error) for e in enrolled)
    return CommandResult({"devices": documents}, [table], reasons, _first(e.error for e in enrolled))


def of_deploy(outcomes: Sequence[DeployResult]) -> CommandResult:
    """{"devices": [...]}, a row each in the order they were named."""
    waves = any(o.wave > 1 for o in outcomes)
    wave = ("wave",) if waves else ()
    columns = ("device", *wave, "result", "release", "variant", "p90 ms", "p50 ms", "runtime", "sent")
    document = {"devices": [_outcome(o) for o in outcomes]}
    tables = [Table("", columns, [_cells(o, waves) for o in outcomes])]
    asked = [o for o in outcomes if o.result is not DeployStatus.DONE_BEFORE]
    reasons = _reasons((o.device.label, o.reason, o.error) for o in asked)
    remarks = [f"{o.device.label}: {remark}" for o in outcomes for remark in o.remarks]
    return CommandResult(document, tables, [*reasons, *remarks], _first(o.error for o in outcomes))


def of_rollback(done: Sequence[RollbackResult]) -> CommandResult:
    """{"devices": [{device, name, slot, before, version, variant, error}]}"""
    columns = ("device", "slot", "before", "release", "variant")
    rows = [(d.device.label, d.slot or "", _release(d.before), _release(d.version), d.variant or "") for d in done]
    documents = [
        {
            **_who(d.device),
            "slot": d.slot,
            "before": d.before,
            "version": d.version,
            "variant": d.variant,
            "error": _error(d.error),
        }
        for d in done
    ]
    reasons = _reasons((d.device.label, _reason(d.device, d.error), d.error) for d in done)
    return CommandResult({"devices": documents}, [Table("", columns, rows)], reasons, _first(d.error for d in done))


def of_statuses(found: Sequence[StatusResult], all_must_answer: bool) -> CommandResult:
    """{"devices": [{device, name, reachable, error | enrolled, machine, slots: {NAME: {...}}}]}. It is an error where
    no device answers, and with `all_must_answer` where one does not."""
    columns = ("device", "slot", "release", "state", "variant", "runtime", "lowest allowed", "enrolled")
    rows = [row for one in found for row in _what_runs(one)]
    silent = [one.error for one in found if one.error is not None]
    failed = _first(silent) if all_must_answer or len(silent) == len(found) else None
    reasons = _reasons((one.device.display_name, _reason(one.device, one.error), failed) for one in found)
    notes = [*reasons, *(f"{one.device.display_name}: {line}" for one in found for line in _polls(one))]
    return CommandResult({"devices": [_found(one) for one in found]}, [Table("", columns, rows)], notes, failed)


def state(o: DeployResult) -> str:
    """How an interrupted deploy left the device."""
    if o.result is not DeployStatus.FAILED:
        return o.result.value
    if o.step == "activate":
        before = _release(o.before)
        return f"stopped during probation: unless it has passed, the device returns to release {before} by itself"
    return f"stopped during {o.step}: the device is unchanged, and keeps the files it received for the next deploy"


def _cells(o: DeployResult, waves: bool) -> tuple[str, ...]:
    times = [("" if ms is None else f"{ms:.3f}") for ms in (o.p90_ms, o.p50_ms)]
    sent = f"{o.sent_bytes / 1e3:,.1f} kB"
    wave = (str(o.wave),) if waves else ()
    return (o.device.label, *wave, o.result.value, _change(o), o.variant or "", *times, o.runtime or "", sent)


def _outcome(o: DeployResult) -> dict[str, Any]:
    return {
        **_who(o.device),
        "wave": o.wave,
        "result": o.result.value,
        "version": o.version,
        "before": o.before,
        "variant": o.variant,
        "runtime": o.runtime,
        "step": o.step,
        "reason": o.reason,
        "duration_s": round(o.duration_s, 3),
        "runs": o.runs,
        "p50_ms": o.p50_ms,
        "p90_ms": o.p90_ms,
        "sent_bytes": o.sent_bytes,
        "remarks": list(o.remarks),
        "error": _error(o.error),
    }


def _change(o: DeployResult) -> str:
    """What ran there and what runs there now."""
    if o.result is DeployStatus.COMMITTED and o.before not in (None, o.version):
        return f"{o.before} → {o.version}"
    runs_there = (DeployStatus.COMMITTED, DeployStatus.UNCHANGED, DeployStatus.DONE_BEFORE)
    return str(o.version) if o.result in runs_there else _release(o.before)


def _who(device: Device) -> dict[str, Any]:
    """Its address, and what its fleet file calls it."""
    return {"device": device.name, "name": device.alias or None}


def _release(version: int | None) -> str:
    return "none" if version is None else str(version)


def _reason(device: Device, error: EdgeloopError | None) -> str:
    """The error, for a line that names the device already."""
    return "" if error is None else error.told_beside(device.name)


def _reasons(rows: Iterable[tuple[str, str, EdgeloopError | None]]) -> list[str]:
    """A note for each (device, reason, error) that has a reason: it is a sentence, too long for a cell.

    Where the only device failed there is none: its error is printed at the end of the command.
    """
    told = list(rows)
    if len(told) == 1 and told[0][2] is not None:
        return []
    return [f"{device}: {reason}" for device, reason, _ in told if reason]


def _error(error: EdgeloopError | None) -> dict[str, Any] | None:
    return None if error is None else error.to_json()


def _first(errors: Iterable[EdgeloopError | None]) -> EdgeloopError | None:
    return next((error for error in errors if error is not None), None)


def _what_runs(found: StatusResult) -> list[tuple[str, ...]]:
    """A row a slot; one that says why there is none."""
    name = found.device.display_name
    if found.status is None:
        return [(name, "", "", UNREACHABLE, "", "", "", "")]
    enrolled = "yes" if found.status.enrolled else "no"
    return [
        (name, slot, _release(s.current), _state(s), s.variant or "", s.runtime or "", str(s.floor), enrolled)
        for slot, s in found.status.slots.items()
    ] or [(name, "", "none", "empty", "", "", "", enrolled)]


def _state(slot: SlotStatus) -> str:
    return f"{slot.state} (fetched)" if slot.pull and slot.pull.pulled else slot.state


def _polls(found: StatusResult) -> list[str]:
    """A line for each slot that fetches its releases itself."""
    followed = {name: slot.pull for name, slot in found.status.slots.items() if slot.pull} if found.status else {}
    return [f"{name} follows {pull.source}; {_last_poll(pull)}" for name, pull in followed.items()]


def _last_poll(pull: PullStatus) -> str:
    if pull.age_s is None:
        return "not polled yet"
    again = f", {pull.failures} polls in a row failed" if pull.failures > 1 else ""
    return f"last poll {pull.age_s:.0f} s ago{again}: {pull.result}: {pull.reason}"


def _found(found: StatusResult) -> dict[str, Any]:
    if found.status is None:
        return {**_who(found.device), "reachable": False, "error": _error(found.error)}
    slots = {name: asdict(slot) for name, slot in found.status.slots.items()}
    own = {"enrolled": found.status.enrolled, "machine": dict(found.status.machine), "slots": slots}
    return {**_who(found.device), "reachable": True, **own}
