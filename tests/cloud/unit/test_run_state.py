"""How far a training came, and what it says of a loss that is not finite."""

from pathlib import Path
from types import SimpleNamespace

from edgeloop.cloud.train.checkpoints.checkpoint_place import MANIFEST
from edgeloop.cloud.train.checkpoints.checkpoints import CheckpointOptions, Checkpoints
from edgeloop.cloud.train.run.nonfinite import not_finite
from edgeloop.cloud.train.run.state import State


def test_the_checkpoint_of_an_epoch_knows_how_long_it_was_also_of_one_that_was_interrupted():
    state = State(spent_s=30.0, epoch_began_s=10.0, longest_s=12.0, done=7)  # 20 s of this epoch, of two attempts
    assert state.epoch_done(True, 0.5).longest_s == 20.0
    assert State(spent_s=30.0, epoch_began_s=25.0, longest_s=12.0).epoch_done(True, 0.5).longest_s == 12.0


def said(good, best):
    prepared = SimpleNamespace(engine=SimpleNamespace(repeatable=False), steps=10)
    return not_finite(prepared, "the loss is nan", good, 25, Path("run"), best).advice


def test_only_what_there_is_is_said_to_be_kept():
    assert said(20, True).endswith("The state of step 20 and the model of the best epoch are kept in run.")
    assert said(5, False).endswith("The state of step 5 is kept in run.")
    assert "kept" not in said(0, False)


def test_the_newest_step_is_that_of_the_newest_complete_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path, CheckpointOptions(), print, writes=False)
    assert checkpoints.newest_step() == 0
    for name in ("step-00000020", "step-00000030", "step-00000040"):
        (tmp_path / name).mkdir()
    for name in ("step-00000020", "step-00000030"):
        (tmp_path / name / MANIFEST).touch()
    assert checkpoints.newest_step() == 30
