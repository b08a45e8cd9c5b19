"""What a device is, whom it trusts, and what runs in each slot. Python 3.9 syntax, the standard library."""

from __future__ import annotations

import time
from dataclasses import asdict

from edgeloop.edge.on_device.pull.pull_record import read_record
from edgeloop.edge.on_device.releases.protocol import DeviceStatus, PullStatus, SlotStatus
from edgeloop.edge.on_device.releases.requirements import machine
from edgeloop.edge.on_device.releases.store import Slot, read_state, slots
from edgeloop.edge.on_device.releases.trust import enrolled
from edgeloop.errors import IntegrityError
from edgeloop.registry.signatures.verify import ssh_keygen


def status(home: str) -> DeviceStatus:
    """Read, and nothing changed."""
    found = {slot.name: _status(slot) for slot in slots(home)}
    return DeviceStatus(
        enrolled(home), machine(), found, home, ssh_keygen=ssh_keygen() is not None, clock_s=time.time()
    )


def _status(slot: Slot) -> SlotStatus:
    try:
        state = read_state(slot)
    except IntegrityError as e:
        return SlotStatus("damaged", reason=str(e))
    current = asdict(state.current) if state.current else {}
    return SlotStatus(
        state="probation" if state.probation else "committed" if state.current else "empty",
        current=current.pop("version", None),
        previous=state.previous.version if state.previous else None,
        floor=state.floor,
        last=asdict(state.last) if state.last else None,
        pull=_pull(slot, current.get("manifest_sha256")),
        **current,
    )


def _pull(slot: Slot, current: str | None) -> PullStatus | None:
    record = read_record(slot)
    if record is None:
        return None
    return PullStatus(
        source=record.source,
        result=record.result,
        reason=record.reason,
        age_s=max(0.0, time.time() - record.polled_s) if record.polled_s else None,
        poll_s=record.poll_s,
        failures=record.failures,
        pulled=current is not None and current == record.installed,
    )
