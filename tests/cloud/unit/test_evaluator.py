"""The evaluator waits for the end of the run, however long that takes, and sees an end that comes while it loads."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgeloop.cloud.train.cluster import evaluator
from edgeloop.cloud.train.config.train_config import TrainConfig
from edgeloop.cloud.train.data.data_config import DataConfig
from edgeloop.cloud.train.run.run_folder import RESULT

CONFIG = TrainConfig(data=DataConfig(path=Path("x.npz")))


@pytest.fixture
def evaluate(tmp_path, monkeypatch):
    """`evaluate(loads, looks)`: without a framework; the two are called when data is loaded and at each look."""
    for name in ("fitting_model", "fitting_objective", "evaluation_here", "model_values"):
        monkeypatch.setattr(evaluator, name, lambda *given: None)
    monkeypatch.setattr(evaluator, "LOOK_S", 0.01)

    def evaluate(config=CONFIG, loads=lambda: None, looks=lambda: None):
        monkeypatch.setattr(evaluator, "training_and_validation", lambda *given: (loads(), None))
        place = SimpleNamespace(latest=lambda: looks() or "")
        monkeypatch.setattr(evaluator, "open_checkpoints", lambda *given, **more: SimpleNamespace(place=place))
        return evaluator.evaluate_checkpoints(config, tmp_path, lambda line: None, lambda step: None)

    return evaluate


def test_a_run_that_ends_while_the_data_is_loaded_has_ended(evaluate, tmp_path):
    assert evaluate(loads=lambda: (tmp_path / RESULT).write_text("{}")) == []


def test_an_epoch_longer_than_the_hang_timeout_ends_no_evaluator(evaluate, tmp_path):
    looked = []

    def looks():
        looked.append(1)
        if len(looked) == 5:
            (tmp_path / RESULT).write_text("{}")

    strategy = dataclasses.replace(CONFIG.strategy, hang_timeout_s=1e-6)
    assert evaluate(dataclasses.replace(CONFIG, strategy=strategy), looks=looks) == []
    assert len(looked) > 5  # the run had its result at the fifth look
