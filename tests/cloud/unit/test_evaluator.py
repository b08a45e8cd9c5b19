"""The evaluator waits for the end of the run, however long that takes, and sees an end that comes while it loads."""

import dataclasses
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgeloop.cloud.train.cluster import evaluator
from edgeloop.cloud.train.config.train_config import TrainConfig
from edgeloop.cloud.train.data.data_config import DataConfig
from edgeloop.cloud.train.run.run_folder import RESULT
from edgeloop.errors import DeviceError, IntegrityError

CONFIG = TrainConfig(data=DataConfig(path=Path("x.npz")))


@pytest.fixture
def evaluate(tmp_path, monkeypatch):
    """`evaluate(loads, looks, restore)`: called as data is loaded, at each look and for values."""
    for name in ("fitting_model", "fitting_objective", "evaluation_here", "model_values"):
        monkeypatch.setattr(evaluator, name, lambda *given: None)
    monkeypatch.setattr(evaluator, "LOOK_S", 0.01)

    def evaluate(config=CONFIG, loads=lambda: None, looks=lambda: None, restore=None):
        monkeypatch.setattr(evaluator, "training_and_validation", lambda *given: (loads(), None))
        found = SimpleNamespace(place=SimpleNamespace(latest=lambda: looks() or ""), restore=restore)
        monkeypatch.setattr(evaluator, "open_checkpoints", lambda *given, **more: found)
        return evaluator.evaluate_checkpoints(config, tmp_path, lambda line: None, lambda step: None)

    return evaluate


def test_a_run_that_ends_while_the_data_is_loaded_has_ended(evaluate, tmp_path):
    assert evaluate(loads=lambda: (tmp_path / RESULT).write_text("{}")) == []


def test_a_result_whose_time_is_that_of_the_tick_before_is_one_of_this_run(evaluate, tmp_path, monkeypatch):
    clock = SimpleNamespace(time=lambda: 1000.0, monotonic=lambda: 0.0, sleep=lambda s: pytest.fail("not seen"))
    monkeypatch.setattr(evaluator, "time", clock)

    def loads():
        (tmp_path / RESULT).write_text("{}")
        os.utime(tmp_path / RESULT, (999.995, 999.995))  # the kernel's clock of files ticks every 4 to 10 ms

    assert evaluate(loads=loads) == []


def test_an_epoch_longer_than_the_hang_timeout_ends_no_evaluator(evaluate, tmp_path):
    looked = []

    def looks():
        looked.append(1)
        if len(looked) == 5:
            (tmp_path / RESULT).write_text("{}")

    strategy = dataclasses.replace(CONFIG.strategy, hang_timeout_s=1e-6)
    assert evaluate(dataclasses.replace(CONFIG, strategy=strategy), looks=looks) == []
    assert len(looked) > 5  # the run had its result at the fifth look


def test_a_result_that_was_there_before_is_an_end_once_the_others_would_have_removed_it(evaluate, tmp_path):
    (tmp_path / RESULT).write_text("{}")
    os.utime(tmp_path / RESULT, (1, 1))
    looked = []
    soon = dataclasses.replace(CONFIG, strategy=dataclasses.replace(CONFIG.strategy, start_timeout_s=0.1))
    assert evaluate(soon, looks=lambda: looked.append(1)) == []
    assert len(looked) > 1  # 10 ms apart: not at the first look


def test_a_run_of_which_nothing_comes_is_not_waited_for_without_end(evaluate, monkeypatch):
    monkeypatch.setattr(evaluator, "LONGEST_WAIT_S", 0.05)
    with pytest.raises(DeviceError, match="no checkpoint came to"):
        evaluate()


@pytest.mark.parametrize("error", [FileNotFoundError("gone"), IntegrityError("gone", advice="-")], ids=["file", "hash"])
def test_a_checkpoint_that_is_removed_while_it_is_read_is_left_out(evaluate, tmp_path, error):
    names = iter(["step-1", "step-2", "step-2", "step-2"])  # of the first look, after the error, and two looks more
    tried = []

    def restore(values, partial):
        tried.append(1)
        if len(tried) == 1:
            raise error
        (tmp_path / RESULT).write_text("{}")

    assert evaluate(looks=lambda: next(names), restore=restore) == []
    assert len(tried) == 2


def test_a_newest_checkpoint_that_cannot_be_read_is_an_error(evaluate):
    def restore(values, partial):
        raise IntegrityError("no sound checkpoint is left", advice="-")

    with pytest.raises(IntegrityError):
        evaluate(looks=lambda: "step-1", restore=restore)
