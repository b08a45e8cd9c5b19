"""What a device is, whom it trusts, and what runs in each slot. Python 3.9 syntax, the standard library."""

from __future__ import annotations

from dataclasses import asdict

from edgeloop.edge.on_device.releases.protocol import DeviceStatus, SlotStatus
from edgeloop.edge.on_device.releases.requirements import machine
from edgeloop.edge.on_device.releases.store import Slot, read_state, slots
from edgeloop.edge.on_device.releases.trust import enrolled
from edgeloop.errors import IntegrityError
from edgeloop.registry.signatures.verify import ssh_keygen


def status(home: str) -> DeviceStatus:
    """Read, and nothing changed."""
    found = {slot.name: _status(slot) for slot in slots(home)}
    return DeviceStatus(enrolled(home), machine(), found, home, ssh_keygen=ssh_keygen() is not None)


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
        **current,
    )
