"""The disk made to follow `state.json`: whatever a kill or a power cut left half done is undone. Python 3.9 syntax.

Every start of the release agent and of `serve` does this first.
"""

from __future__ import annotations

import contextlib
import os

from edgeloop import atomic
from edgeloop.atomic import discard, publish, sync, temporary_name
from edgeloop.edge.on_device.releases.lifecycle import ReleaseEvent, advance
from edgeloop.edge.on_device.releases.lock import locked
from edgeloop.edge.on_device.releases.protocol import ROLLED_BACK
from edgeloop.edge.on_device.releases.store import LastChange, Release, Slot, SlotState, read_state, slots
from edgeloop.errors import DeviceError, IntegrityError


def recover(home: str) -> None:
    """All slots, except those that a running deploy holds: its probation is not interrupted.

    A damaged state.json is left as it is: `status` names it, and guessing could run what was rolled back. So is what
    the disk refuses, full or read-only: `current` always names a whole release; the next deploy reports the error.
    """
    for slot in slots(home):
        with contextlib.suppress(DeviceError, IntegrityError, OSError), locked(slot.path, slot.name):
            reconcile(slot)


def reconcile(slot: Slot) -> SlotState:
    """One slot, whose lock is held: `current` names what was committed last, and nothing else is kept but the previous.

    Raises:
        IntegrityError: state.json is damaged.
    """
    state = read_state(slot)
    point(slot, state.current)
    sweep(slot, state)  # first: a full disk may need this room for what follows
    if state.probation is not None:
        last = LastChange(
            "deploy", state.probation.version, ROLLED_BACK, "the deploy was interrupted before it was committed"
        )
        state = advance(slot, state, ReleaseEvent.INTERRUPT, probation=None, staged=None, last=last)
    return state


def point(slot: Slot, release: Release | None) -> None:
    """Let `current` name this release, in one step; None: nothing."""
    target = os.path.join("releases", release.folder) if release else None
    found = os.readlink(slot.current) if os.path.islink(slot.current) else None
    if found == target:
        return
    if target is None:
        os.unlink(slot.current)
        sync(slot.path)
    else:
        temporary = temporary_name(slot.current)
        os.symlink(target, temporary)
        publish(temporary, slot.current)


def sweep(slot: Slot, state: SlotState) -> None:
    """Remove releases that cannot be rolled back to, and files that were to replace others."""
    kept = {release.folder for release in (state.current, state.previous) if release}
    if os.path.isdir(slot.releases):
        for name in sorted(set(os.listdir(slot.releases)) - kept):
            discard(os.path.join(slot.releases, name))
    atomic.sweep(slot.path)
