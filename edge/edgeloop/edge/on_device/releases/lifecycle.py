"""The life of a release on a device, as one table; every change of a slot's state is a step of it.

docs/deploy.md shows this table (tests/edge/unit/test_lifecycle.py holds the two together). Python 3.9 syntax, the
standard library.
"""

from __future__ import annotations

import enum
from dataclasses import replace
from typing import Any

from edgeloop.edge.on_device.releases.store import Slot, SlotState, write_state
from edgeloop.errors import OptionsError


class DeployPhase(str, enum.Enum):
    """How far the deploy to a slot is; what was committed before runs in all of them but `probation`."""

    IDLE = "idle"
    STAGED = "staged"
    TRIED = "tried"
    PROBATION = "probation"


class ReleaseEvent(str, enum.Enum):
    """What happens to a slot; the first four and the last are asked for, the others follow."""

    BEGIN = "begin"
    PUSH = "push"
    CHECK = "check"
    TRIAL = "trial"
    ACTIVATE = "activate"
    COMMIT = "commit"
    REJECT = "reject"
    INTERRUPT = "interrupt"
    ROLLBACK = "rollback"


IDLE, STAGED, TRIED, PROBATION = DeployPhase
TRANSITIONS = {
    (IDLE, ReleaseEvent.BEGIN): STAGED,
    (STAGED, ReleaseEvent.BEGIN): STAGED,
    (TRIED, ReleaseEvent.BEGIN): STAGED,  # a trial of earlier content is none of this
    (STAGED, ReleaseEvent.PUSH): STAGED,
    (TRIED, ReleaseEvent.PUSH): TRIED,
    (STAGED, ReleaseEvent.CHECK): STAGED,
    (TRIED, ReleaseEvent.CHECK): TRIED,
    (STAGED, ReleaseEvent.TRIAL): TRIED,
    (TRIED, ReleaseEvent.TRIAL): TRIED,
    (TRIED, ReleaseEvent.ACTIVATE): PROBATION,
    (PROBATION, ReleaseEvent.COMMIT): IDLE,
    (PROBATION, ReleaseEvent.REJECT): IDLE,
    (PROBATION, ReleaseEvent.INTERRUPT): IDLE,
    (IDLE, ReleaseEvent.ROLLBACK): IDLE,
    (STAGED, ReleaseEvent.ROLLBACK): STAGED,
    (TRIED, ReleaseEvent.ROLLBACK): TRIED,
}


def phase_of(state: SlotState) -> DeployPhase:
    """The phase that a slot's state tells."""
    if state.probation is not None:
        return PROBATION
    if state.staged is None:
        return IDLE
    return STAGED if state.staged.runtime is None else TRIED


def after(slot: Slot, state: SlotState, event: ReleaseEvent) -> DeployPhase:
    """The phase that follows.

    Raises:
        OptionsError: The table has no such step.
    """
    phase = phase_of(state)
    if (phase, event) in TRANSITIONS:
        return TRANSITIONS[phase, event]
    if phase is IDLE:
        raise nothing_staged(slot)
    if phase is STAGED and event is ReleaseEvent.ACTIVATE:
        raise OptionsError(f"the bundle staged for {slot.name} had no trial", advice="Start the deploy again.")
    possible = ", ".join(known.value for before, known in TRANSITIONS if before is phase)
    raise OptionsError(
        f"{event.value} is not possible for {slot.name}: the deploy is in the phase {phase.value}",
        advice=f"Possible there: {possible}.",
    )


def nothing_staged(slot: Slot) -> OptionsError:
    return OptionsError(f"no upload was begun for {slot.name}", advice="Start the deploy again.")


def advance(slot: Slot, state: SlotState, event: ReleaseEvent, **changes: Any) -> SlotState:
    """Write the slot's next state: `state` with these changes, on the disk when this returns.

    Raises:
        OptionsError: As `after`.
        ValueError: The changes lead to another phase than the table says; nothing is written.
        OSError: The disk refuses.
    """
    expected, new = after(slot, state, event), replace(state, **changes)
    if phase_of(new) is not expected:
        raise ValueError(f"{event.value} leads to {expected.value}, not to {phase_of(new).value}")
    write_state(slot, new)
    return new
