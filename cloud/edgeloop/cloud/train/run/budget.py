"""What a training may cost, and when more of it is not worth its price."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgeloop.cloud.train.cluster.cluster import Cluster, Role
from edgeloop.cloud.train.study.learning_curve import projected_loss
from edgeloop.errors import OptionsError
from edgeloop.extras import need
from edgeloop.quantities import above_zero

HOUR_S = 3600.0
PRICED = tuple(role.value for role in Role if role != Role.EVALUATOR)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetConfig:
    """When a training ends before its last epoch. It ends between epochs, and keeps the best one.

    Attributes:
        max_time_s: It ends before an epoch that would go beyond this; earlier attempts of the same run count.
        max_cost: The same for money, in the currency of `prices`.
        prices: Of one hour of each task, e.g. `{worker = 0.5, ps = 0.1}`; a training in one process is a worker, and an
            evaluator, which takes no part in it, is not counted.
        target: It ends once the score is this or better: an accuracy (0 to 1) this or more, an error this or less.
        min_gain: It ends once the epochs that are left are expected to lower the best validation loss by less than this
            share of it: `study.learning_curve`.
    """

    max_time_s: float | None = None
    max_cost: float | None = None
    prices: Mapping[str, float] = field(default_factory=dict)
    target: float | None = None
    min_gain: float = 0.0

    def __post_init__(self) -> None:
        for name in ("max_time_s", "max_cost", "target"):
            value = getattr(self, name)
            if value is not None:
                above_zero(value, f"[budget] {name.replace('_', '-')}")
        for task, price in self.prices.items():
            if task not in PRICED:
                raise OptionsError(
                    f"[budget.prices] has the unknown task {task}",
                    advice=f"Use {', '.join(PRICED[:-1])} or {PRICED[-1]}.",
                )
            above_zero(price, f"[budget.prices] {task}")
        if self.max_cost is not None and not self.prices:
            raise OptionsError(
                "[budget] max-cost is given without prices", advice="Add e.g. [budget.prices] worker = 0.5, per hour."
            )
        if not 0 <= self.min_gain < 1:
            raise OptionsError(f"[budget] min-gain is {self.min_gain:g}", advice="It must be 0 or more, and below 1.")

    @property
    def limits(self) -> bool:
        """Whether anything but the epochs can end the training."""
        return any(value is not None for value in (self.max_time_s, self.max_cost, self.target)) or self.min_gain > 0

    def price_per_hour(self, tasks: Mapping[str, int]) -> float:
        """Of a cluster with so many tasks of each type; a chief without a price costs what a worker does.

        Raises:
            OptionsError: A type of task has no price.
        """
        worker = self.prices.get("worker")
        prices = {task: self.prices.get(task, None if task == "ps" else worker) for task in tasks}
        missing = [task for task, price in prices.items() if price is None]
        if missing:
            raise OptionsError(f"[budget.prices] has no price for {missing[0]}", advice="Add it, per hour.")
        return sum((prices[task] or 0.0) * count for task, count in tasks.items())


def tasks_of(cluster: Cluster | None) -> dict[str, int]:
    """How many tasks of each type a training has, without the evaluator."""
    if cluster is None:
        return {Role.WORKER.value: 1}
    return {role.value: len(found) for role, found in cluster.addresses.items() if role != Role.EVALUATOR}


def agreed(cluster: Cluster | None, epoch: int, seconds: tuple[float, float], timeout_s: float) -> tuple[float, float]:
    """The numbers of the task that saves, in every synchronous worker: all of them end after the same epoch.

    They cross in the key-value store of TensorFlow's coordination service. The others wait up to `timeout_s`: that task
    may still write the best model.
    """
    if cluster is None or cluster.workers < 2 or cluster.parameter_servers:
        return seconds
    store = need("tensorflow.python.eager.context", extra="cloud").context()
    key = f"edgeloop/seconds/{epoch}"
    if cluster.saves:
        store.set_config_key_value(key, json.dumps(seconds))
        return seconds
    spent, longest = json.loads(store.get_config_key_value(key, int(timeout_s * 1000)))
    return float(spent), float(longest)


def reason_to_stop(
    budget: BudgetConfig,
    tasks: Mapping[str, int],
    seconds: tuple[float, float],
    losses: Sequence[float],
    scores: Sequence[float],
    metric: str,
    epochs: int,
) -> str:
    """Why a training ends after its last epoch so far, as a sentence; empty: it goes on.

    Args:
        seconds: Spent so far, and of the longest epoch; the same numbers in every task.
        losses, scores: Of the validation data, one an epoch.
        metric: What the scores are; of one that ends in `error` less is better.
        epochs: That the training would have.
    """
    spent_s, longest_s = seconds
    then = spent_s + longest_s
    if budget.max_time_s is not None and then > budget.max_time_s:
        return f"Another epoch would go beyond [budget] max-time-s ({budget.max_time_s:g}): {spent_s:.0f} s are spent."
    if budget.max_cost is not None:
        price = budget.price_per_hour(tasks) / HOUR_S
        if then * price > budget.max_cost:
            spent = f"{spent_s * price:.4g} is spent"
            return f"Another epoch would go beyond [budget] max-cost ({budget.max_cost:g}): {spent}."
    if budget.target is not None and scores and _reached(scores[-1], budget.target, metric):
        return f"The score has reached [budget] target ({budget.target:g}) after {spent_s:.0f} s."
    expected = projected_loss(losses, epochs) if budget.min_gain and losses else None
    if expected is not None and math.isfinite(expected):
        gain = 1 - expected / min(losses)
        if gain < budget.min_gain:
            return (
                f"The epochs that are left are expected to lower the validation loss by {gain:.1%}, which is below "
                f"[budget] min-gain ({budget.min_gain:.1%})."
            )
    return ""


def _reached(score: float, target: float, metric: str) -> bool:
    return score <= target if metric.endswith("error") else score >= target
