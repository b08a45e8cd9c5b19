"""What a device carries from round to round: by hand, over a repeated round, another run and a damaged file."""

import numpy as np
import pytest

from edgeloop.federated.device.round_state import RoundState


@pytest.fixture
def heard():
    return []


@pytest.fixture
def state(tmp_path, heard):
    return RoundState(str(tmp_path / "deep" / "residual.npz"), "the residual", heard.append)


def row(*values):
    return np.array(values, np.float32)


def test_a_round_begins_with_what_the_last_one_left(state, heard):
    assert state.before("r", 1, 2).tolist() == [0, 0]
    state.write("r", 1, row(0, 0), row(1, 2))
    assert state.before("r", 2, 2).tolist() == [1, 2]
    assert state.before("r", 5, 2).tolist() == [1, 2], "the device was not asked meanwhile"
    assert heard == []


def test_a_round_that_is_asked_for_again_begins_as_before(state):
    state.write("r", 4, row(3, 4), row(1, 2))
    assert state.before("r", 4, 2).tolist() == [3, 4]


@pytest.mark.parametrize(
    ("run", "number", "size", "why"),
    [("s", 5, 2, "of another run"), ("r", 3, 2, "of round 4, and the server asks for round 3"), ("r", 5, 3, "not fit")],
)
def test_what_does_not_belong_to_the_round_is_zero_and_said_once(state, heard, run, number, size, why):
    state.write("r", 4, row(3, 4), row(1, 2))
    assert state.before(run, number, size).tolist() == [0] * size
    assert len(heard) == 1 and heard[0].startswith("the residual begins at zero") and why in heard[0]
    state.write(run, number, np.zeros(size, "f4"), np.ones(size, "f4"))
    assert state.before(run, number + 1, size).tolist() == [1] * size and len(heard) == 1


@pytest.mark.parametrize("damage", [b"", b"PK\3\4", b"x" * 100, None])
def test_a_damaged_file_is_zero_and_said(state, heard, tmp_path, damage):
    state.write("r", 1, row(0, 0), row(1, 2))
    path = tmp_path / "deep" / "residual.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-40] if damage is None else damage)
    assert state.before("r", 2, 2).tolist() == [0, 0]
    assert len(heard) == 1 and "cannot be read" in heard[0]


def test_numbers_that_are_not_finite_are_not_taken_up(state, heard):
    state.write("r", 1, row(0, 0), row(1, np.nan))
    assert state.before("r", 2, 2).tolist() == [0, 0] and "does not fit" in heard[0]
