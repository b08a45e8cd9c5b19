"""What --launch tells its supervisor of a training's timeouts."""

import contextlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgeloop.cloud.train.cluster import task
from edgeloop.cloud.train.config.train_config import TrainConfig
from edgeloop.cloud.train.data.data_config import DataConfig
from edgeloop.cloud.train.strategies.strategy_config import StrategyConfig
from edgeloop.errors import DeviceError


def test_the_timeout_of_the_first_step_grows_with_the_hang_timeout(tmp_path, monkeypatch):
    seen = []

    def supervisor(server, tasks, options, say, progress):
        seen.append((options.hang_timeout_s, options.start_timeout_s))
        raise DeviceError("no cluster starts here", advice="Nothing.")

    monkeypatch.setattr(task, "fork_server", lambda *given, **more: contextlib.nullcontext(SimpleNamespace()))
    monkeypatch.setattr(task, "Supervisor", supervisor)
    config = TrainConfig(data=DataConfig(path=Path("x.npz")), strategy=StrategyConfig(hang_timeout_s=1000))
    with pytest.raises(DeviceError):
        task.launch_run(config, tmp_path / "run", "2", progress=lambda *told: None, say=lambda line: None)
    assert seen == [(1000, 2000)]
