"""When a budget ends a training, by hand."""

import pytest

from edgeloop.cloud.train.cluster.cluster import Cluster, Role
from edgeloop.cloud.train.run.budget import BudgetConfig, reason_to_stop, tasks_of
from edgeloop.errors import OptionsError

TASKS = {"chief": 1, "worker": 2, "ps": 2}


def stop(budget, seconds=100.0, losses=(1.0,), scores=(0.5,), epochs=50, metric="accuracy"):
    return reason_to_stop(budget, TASKS, (seconds, 10.0), losses, scores, metric, epochs)


def test_a_training_ends_before_the_epoch_that_would_go_beyond_its_time():
    assert stop(BudgetConfig(max_time_s=110.0)) == ""
    assert "max-time-s (109): 100 s are spent" in stop(BudgetConfig(max_time_s=109.0))


def test_every_task_costs_its_price_and_a_chief_what_a_worker_does():
    budget = BudgetConfig(max_cost=0.11, prices={"worker": 1.0, "ps": 0.3})
    assert budget.price_per_hour(TASKS) == pytest.approx(3.6)  # 3 * 1.0 + 2 * 0.3
    # 3.6 an hour is 0.001 a second: 110 s cost 0.11
    assert stop(budget) == ""
    assert "max-cost (0.11): 0.101 is spent" in stop(budget, seconds=101.0)


def test_an_evaluator_costs_nothing():
    addresses = {Role.WORKER: ("a:1", "b:1"), Role.EVALUATOR: ("c:1",)}
    tasks = tasks_of(Cluster(addresses=addresses, role=Role.WORKER, index=0))
    assert BudgetConfig(prices={"worker": 1.0}).price_per_hour(tasks) == 2.0


def test_a_target_ends_the_training_that_reaches_it():
    assert stop(BudgetConfig(target=0.9), scores=(0.95, 0.89)) == ""
    assert "target (0.9) after 100 s" in stop(BudgetConfig(target=0.9), scores=(0.5, 0.9))


def test_an_error_reaches_a_target_from_above():
    budget = BudgetConfig(target=0.2)
    assert stop(budget, scores=(0.5,), metric="mean_absolute_error") == ""
    assert "target (0.2)" in stop(budget, scores=(0.5, 0.19), metric="mean_absolute_error")


def test_a_curve_that_is_flat_ends_the_training_and_a_steep_one_does_not():
    budget = BudgetConfig(min_gain=0.05)
    steep = [0.8 / epoch for epoch in range(1, 9)]
    flat = [0.5 + 0.1 / epoch**2 for epoch in range(1, 9)]
    assert stop(budget, losses=steep) == ""
    assert "by 0.3%, which is below [budget] min-gain (5.0%)" in stop(budget, losses=flat)  # 0.5016 to 0.50004
    assert stop(budget, losses=flat[:3]) == ""  # too few epochs to say


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"max_time_s": 0.0}, "max-time-s is 0"),
        ({"max_cost": float("nan"), "prices": {"worker": 1.0}}, "max-cost is nan"),
        ({"max_cost": 1.0}, "max-cost is given without prices"),
        ({"prices": {"ps": -1.0}}, "ps is -1"),
        ({"prices": {"wroker": 1.0}}, "unknown task wroker"),
        ({"prices": {"evaluator": 1.0}}, "unknown task evaluator"),
        ({"min_gain": 1.0}, "min-gain is 1"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_budget_that_contradicts_itself_is_refused(given, words):
    with pytest.raises(OptionsError, match=words):
        BudgetConfig(**given)


def test_a_task_without_a_price_is_named():
    with pytest.raises(OptionsError, match="no price for ps"):
        BudgetConfig(max_cost=1.0, prices={"worker": 1.0}).price_per_hour(TASKS)
