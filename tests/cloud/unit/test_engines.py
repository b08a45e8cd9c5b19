"""What the engines say of their steps, without a framework."""

from types import SimpleNamespace

import pytest

from edgeloop.cloud.commands.doctor import examine
from edgeloop.cloud.train.config.train_config import TrainConfig
from edgeloop.cloud.train.data.data_config import DataConfig
from edgeloop.cloud.train.step import synchronous
from edgeloop.cloud.train.strategies.strategies import Strategy
from edgeloop.cloud.train.strategies.strategy_config import StrategyConfig, check_pipeline_keys
from edgeloop.errors import OptionsError


@pytest.mark.parametrize(("workers", "repeatable"), [(1, True), (2, False)])
def test_several_workers_repeat_no_steps(monkeypatch, workers, repeatable):
    for name in ("gradient_step", "traced_steps", "host_clock", "evaluation", "BatchStream", "stream_of"):
        monkeypatch.setattr(synchronous, name, lambda *given: None)
    monkeypatch.setattr(synchronous, "shared_statistics", lambda *given: None)
    names = ("model", "optimizer", "objective", "strategy", "training", "batch")
    config = SimpleNamespace(memory=None, loop=SimpleNamespace(steps_per_call=1))
    place = SimpleNamespace(workers=workers)
    setup = SimpleNamespace(config=config, place=place, **dict.fromkeys(names))
    assert synchronous.Synchronous(setup).repeatable == repeatable


@pytest.mark.parametrize("name", [Strategy.PARAMETER_SERVER, Strategy.MULTI_WORKER_MIRRORED])
def test_the_doctor_refuses_strategies_of_several_processes_before_anything_else(name, tmp_path):
    config = TrainConfig(data=DataConfig(path=tmp_path / "none.npz"), strategy=StrategyConfig(name=name))
    with pytest.raises(OptionsError, match="measures one process") as error:
        examine(config, 60.0, None)
    assert "strategy.name=one-device" in error.value.advice


@pytest.mark.parametrize("given", [{"stages": 2}, {"replicas": 2}, {"micro_batches": 4}], ids=str)
def test_keys_of_a_pipeline_are_refused_where_auto_chose_another_strategy(given):
    config = StrategyConfig(**given)
    check_pipeline_keys(config, Strategy.PIPELINE)
    with pytest.raises(OptionsError, match="of the strategy pipeline, and this is mirrored"):
        check_pipeline_keys(config, Strategy.MIRRORED)
