"""What a device is, whom it trusts, and what runs in each slot. Python 3.9 syntax, the standard library."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from edgeloop.edge.on_device.releases.requirements import machine
from edgeloop.edge.on_device.releases.store import Slot, read_state, slots
from edgeloop.edge.on_device.releases.trust import enrolled
from edgeloop.errors import IntegrityError
from edgeloop.registry.signatures.verify import ssh_keygen


def status(home: str) -> dict[str, Any]:
    """Read, and nothing changed.

    Returns:
        {home, enrolled, ssh_keygen: whether it can verify, machine (requirements.py), slots: {NAME: {current, previous:
        versions or null, floor, variant, runtime, threads, folder, manifest_sha256, signer: null if unsigned, state:
        empty | committed | probation | damaged, reason: if damaged, last: {action, version, result, reason}}}}
    """
    return {
        "home": home,
        "enrolled": enrolled(home),
        "ssh_keygen": ssh_keygen() is not None,
        "machine": machine(),
        "slots": {slot.name: _told(slot) for slot in slots(home)},
    }


def _told(slot: Slot) -> dict[str, Any]:
    try:
        state = read_state(slot)
    except IntegrityError as e:
        return {"state": "damaged", "reason": str(e)}
    current = asdict(state.current) if state.current else {}
    return {
        "state": "probation" if state.probation else "committed" if state.current else "empty",
        "current": current.pop("version", None),
        "previous": state.previous.version if state.previous else None,
        "floor": state.floor,
        "variant": None,
        "runtime": None,
        "manifest_sha256": None,
        **current,
        "last": asdict(state.last) if state.last else None,
    }
