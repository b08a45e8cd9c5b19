"""strategy = "auto": which rule decides in which situation."""

import pytest

from edgeloop.cloud.train.strategies import where as where_module
from edgeloop.cloud.train.strategies.choose import (
    RULES,
    Gradients,
    Links,
    ModelSize,
    Situation,
    StepBound,
    Workers,
    choose,
)
from edgeloop.cloud.train.strategies.strategies import STRATEGIES, Strategy
from edgeloop.cloud.train.strategies.strategy_config import StrategyConfig
from edgeloop.errors import OptionsError

CASES = [
    (Situation(), Strategy.ONE_DEVICE, "one device"),
    (Situation(accelerators=1), Strategy.ONE_DEVICE, "one device"),
    (Situation(accelerators=4), Strategy.MIRRORED, "fast links"),
    (Situation(accelerators=4, links=Links.SLOW), Strategy.CENTRAL_STORAGE, "slow links"),
    (Situation(accelerators=4, bound=StepBound.INPUT), Strategy.ONE_DEVICE, "waits for its input"),
    (Situation(devices=2, model_size=ModelSize.TOO_LARGE), Strategy.PIPELINE, "holds a part of it"),
    (Situation(model_size=ModelSize.TOO_LARGE), Strategy.ONE_DEVICE, "no second one to divide it"),
    (Situation(devices=2), Strategy.MIRRORED, "split into several"),
    (Situation(hosts=2), Strategy.MULTI_WORKER_MIRRORED, "reliable hosts and a dense model"),
    (Situation(hosts=2, gradients=Gradients.SPARSE), Strategy.MULTI_WORKER_MIRRORED, "mostly embeddings"),
    (Situation(hosts=2, links=Links.SLOW), Strategy.MULTI_WORKER_MIRRORED, "slow links or unreliable"),
    (Situation(hosts=2, parameter_servers=2), Strategy.PARAMETER_SERVER, "no other strategy uses"),
    (Situation(hosts=2, parameter_servers=2, gradients=Gradients.SPARSE), Strategy.PARAMETER_SERVER, "embeddings"),
    (Situation(hosts=2, parameter_servers=2, workers=Workers.UNRELIABLE), Strategy.PARAMETER_SERVER, "unreliable"),
    (Situation(hosts=2, parameter_servers=2, workers=Workers.LOW_POWERED), Strategy.PARAMETER_SERVER, "slowest"),
    (
        Situation(hosts=2, parameter_servers=2, links=Links.SLOW, bound=StepBound.INPUT),
        Strategy.PARAMETER_SERVER,
        "hide both",
    ),
    (Situation(tpu=True, accelerators=4, hosts=4), Strategy.TPU, "TPU"),
]


@pytest.mark.parametrize(("situation", "strategy", "said"), CASES)
def test_the_first_rule_that_holds_decides_and_is_named(situation, strategy, said):
    choice = choose(situation)
    assert choice.strategy == strategy and said in choice.reason


def test_every_rule_decides_some_case():
    assert {choose(situation).reason for situation, *_ in CASES} == {rule.reason for rule in RULES}


def test_every_strategy_but_auto_can_be_made():
    assert set(STRATEGIES) == set(Strategy) - {Strategy.AUTO}


def test_keys_of_a_pipeline_are_refused_where_the_rules_choose_another_strategy(monkeypatch):
    monkeypatch.setattr(where_module, "local_devices", lambda: ("CPU:0",))
    with pytest.raises(OptionsError, match="stages"):
        where_module.where(StrategyConfig(stages=2), None)
    assert where_module.where(StrategyConfig(), None)[0].strategy == Strategy.ONE_DEVICE
