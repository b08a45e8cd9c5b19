"""A staged bundle becomes the current release on probation, and is committed or rolled back; or the previous one again.

What is on the disk at each step (recover.py undoes whatever stands before the commit):

    1  state.json says: on probation N          `current` is the old one
    2  staging is renamed to releases/N         the old one
    3  `current` is replaced by a rename        the new one, until the probation ends
    4  state.json says: current N, floor N      committed, in one write

Python 3.9 syntax, the standard library.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from edgeloop.atomic import make_folder, publish, sync_tree
from edgeloop.edge.on_device.releases.lifecycle import ReleaseEvent, advance
from edgeloop.edge.on_device.releases.protocol import COMMITTED, ROLLED_BACK
from edgeloop.edge.on_device.releases.recover import point, reconcile, sweep
from edgeloop.edge.on_device.releases.staged_bundle import CheckedBundle, read_exact_bundle
from edgeloop.edge.on_device.releases.store import LastChange, Release, Slot, SlotState, read_state
from edgeloop.edge.on_device.releases.trust import enrolled
from edgeloop.errors import EdgeloopError, IntegrityError, OptionsError


def activate(
    slot: Slot, checked: CheckedBundle, runtime: str, threads: int, probation: Callable[[str], EdgeloopError | None]
) -> EdgeloopError | None:
    """Install the checked bundle, and commit it unless `probation(folder)` returns an error.

    Returns:
        None: committed. Else what it was rolled back for.

    Raises:
        OSError: The disk refuses; the old release is current again.
    """
    state = read_state(slot)
    new = Release(
        folder=_free_folder(slot, checked.bundle.manifest.version),
        version=checked.bundle.manifest.version,
        variant=checked.variant.id,
        runtime=runtime,
        threads=threads,
        manifest_sha256=checked.bundle.manifest_sha256,
        signer=checked.signer,
    )
    try:
        state = _install(slot, state, new)
        against = probation(slot.release(new))
        if against is None:
            _commit(slot, state, new)
    except BaseException:
        reconcile(slot)
        raise
    if against is not None:
        last = LastChange("deploy", new.version, ROLLED_BACK, str(against))
        _take_back(slot, state, ReleaseEvent.REJECT, probation=None, staged=None, last=last)
    return against


def roll_back(slot: Slot) -> Release:
    """The previous release again, once its hashes were checked. The floor stays.

    Raises:
        OptionsError: None is kept.
        IntegrityError: It was changed or damaged, or installed unsigned on a device that has signers enrolled since.
    """
    state = read_state(slot)
    if state.current is None or state.previous is None:
        raise OptionsError(
            f"{slot.name} has no previous release to roll back to",
            advice="Deploy the old model under a new release number instead.",
        )
    if enrolled(slot.home) and state.previous.signer is None:
        raise IntegrityError(
            f"release {state.previous.version} was installed before signers were enrolled, and is not signed",
            advice="Deploy a signed bundle under a new release number instead.",
        )
    read_exact_bundle(slot.release(state.previous), state.previous.manifest_sha256, state.previous.variant)
    last = LastChange("rollback", state.previous.version, COMMITTED)
    _take_back(slot, state, ReleaseEvent.ROLLBACK, current=state.previous, previous=None, last=last)
    return state.previous


def _free_folder(slot: Slot, version: int) -> str:
    folder, again = str(version), 0
    while os.path.lexists(os.path.join(slot.releases, folder)):  # a repair, or another variant of this version
        again += 1
        folder = f"{version}.{again}"
    return folder


def _install(slot: Slot, state: SlotState, new: Release) -> SlotState:
    make_folder(slot.releases)
    sync_tree(slot.staging)
    state = advance(slot, state, ReleaseEvent.ACTIVATE, probation=new)
    publish(slot.staging, slot.release(new))
    point(slot, new)
    return state


def _commit(slot: Slot, state: SlotState, new: Release) -> None:
    old = state.current
    repaired = old is not None and (old.manifest_sha256, old.variant) == (new.manifest_sha256, new.variant)
    committed = advance(
        slot,
        state,
        ReleaseEvent.COMMIT,
        floor=max(state.floor, new.version),
        current=new,
        previous=state.previous if repaired else old,  # what was damaged is nothing to go back to
        probation=None,
        staged=None,
        last=LastChange("deploy", new.version, COMMITTED),
    )
    sweep(slot, committed)


def _take_back(slot: Slot, state: SlotState, event: ReleaseEvent, **changes: Any) -> None:
    """The state first: `current` follows it, now or at the next start."""
    state = advance(slot, state, event, **changes)
    point(slot, state.current)
    sweep(slot, state)
