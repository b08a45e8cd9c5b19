"""The life of a release is one table: in the code, in the document, and in every change of a slot's state."""

import re

import pytest

from edgeloop.edge.on_device.releases.lifecycle import (
    TRANSITIONS,
    DeployPhase,
    ReleaseEvent,
    advance,
    after,
    phase_of,
)
from edgeloop.edge.on_device.releases.store import Release, Slot, SlotState, StagedRelease, read_state, write_state
from edgeloop.errors import OptionsError

# what each event changes, as docs/deploy.md shows it
EFFECTS = {
    ReleaseEvent.BEGIN: "`staging` holds the manifest and those of its files that the current or previous release has",
    ReleaseEvent.PUSH: "a file, or a piece of one, is added to `staging`",
    ReleaseEvent.CHECK: "nothing; the signature, hashes, version and requirements are checked",
    ReleaseEvent.TRIAL: "nothing; the model has answered the reference inputs correctly",
    ReleaseEvent.ACTIVATE: "`staging` becomes `releases/N`, and `current` points at it",
    ReleaseEvent.COMMIT: "N becomes the current release, the one before the previous release; the floor is at least N",
    ReleaseEvent.REJECT: "`current` points at the committed release again, and `releases/N` is removed",
    ReleaseEvent.INTERRUPT: "the same as reject, at the next start after a kill or a power cut",
    ReleaseEvent.ROLLBACK: "the previous release becomes the current one, and the other is removed; the floor stays",
}

ONE = Release("1", 1, "float32", "litert", 1, "a" * 64, None)
STATES = {
    DeployPhase.IDLE: SlotState(floor=1, current=ONE),
    DeployPhase.STAGED: SlotState(staged=StagedRelease("b" * 64, "int8")),
    DeployPhase.TRIED: SlotState(staged=StagedRelease("b" * 64, "int8", "litert")),
    DeployPhase.PROBATION: SlotState(staged=StagedRelease("b" * 64, "int8", "litert"), probation=ONE),
}
IMPOSSIBLE = [(p, e) for p in DeployPhase for e in ReleaseEvent if (p, e) not in TRANSITIONS]


@pytest.fixture
def slot(tmp_path):
    (tmp_path / "slots" / "net").mkdir(parents=True)
    return Slot(str(tmp_path), "net")


@pytest.mark.parametrize("phase", DeployPhase)
def test_a_state_tells_its_phase(phase):
    assert phase_of(STATES[phase]) is phase


@pytest.mark.parametrize(("phase", "event"), IMPOSSIBLE, ids=lambda value: value.value)
def test_a_step_that_the_table_lacks_is_refused_and_nothing_is_written(slot, phase, event):
    write_state(slot, STATES[phase])
    with pytest.raises(OptionsError, match=r"no upload was begun|had no trial|is not possible for net"):
        advance(slot, STATES[phase], event, staged=None)
    assert read_state(slot) == STATES[phase]


def test_what_is_impossible_says_what_is_possible(slot):
    with pytest.raises(OptionsError) as refused:
        after(slot, STATES[DeployPhase.PROBATION], ReleaseEvent.BEGIN)
    assert str(refused.value) == (
        "begin is not possible for net: the deploy is in the phase probation. "
        "Possible there: commit, reject, interrupt."
    )


def test_a_change_that_leads_elsewhere_than_the_table_says_is_a_bug_and_nothing_is_written(slot):
    write_state(slot, STATES[DeployPhase.TRIED])
    with pytest.raises(ValueError, match="activate leads to probation, not to tried"):
        advance(slot, STATES[DeployPhase.TRIED], ReleaseEvent.ACTIVATE)
    assert read_state(slot) == STATES[DeployPhase.TRIED]


def test_a_step_is_on_the_disk_when_it_is_done(slot):
    new = advance(slot, STATES[DeployPhase.TRIED], ReleaseEvent.ACTIVATE, probation=ONE)
    assert phase_of(new) is DeployPhase.PROBATION
    assert read_state(slot) == new


def test_every_phase_is_reached_and_left_and_every_event_has_its_step():
    assert {phase for phase, _ in TRANSITIONS} == set(TRANSITIONS.values()) == set(DeployPhase)
    assert {event for _, event in TRANSITIONS} == set(EFFECTS) == set(ReleaseEvent)


def test_no_other_module_writes_a_slots_state(root):
    """Whoever did could take a step that the table does not have."""
    writers = {
        path.name
        for path in (root / "edge/edgeloop/edge").rglob("*.py")
        if re.search(r"\bwrite_state\(", path.read_text()) and path.name != "store.py"
    }
    assert writers == {"lifecycle.py"}


def test_the_document_has_the_table_as_the_code_has_it(root):
    lines = ["| phase | event | next phase | what changes on the device |", "|---|---|---|---|"]
    lines += [
        f"| {phase.value} | {event.value} | {then.value} | {EFFECTS[event]} |"
        for (phase, event), then in TRANSITIONS.items()
    ]
    table = "\n".join(lines)
    assert table in (root / "docs/deploy.md").read_text(), f"put this into docs/deploy.md:\n{table}"
