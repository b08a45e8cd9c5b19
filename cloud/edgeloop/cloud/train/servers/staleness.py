"""Asynchronous steps on parameter servers, and what is done about stale gradients.

A gradient is as many updates old as other workers applied between the reading of the variables and its own update.

Sources
    a rate divided by the age   Zhang et al. 2016, Staleness-aware Async-SGD, https://arxiv.org/abs/1511.05950, eq. 6
    one replica at first        Dean et al. 2012, Large Scale Distributed Deep Networks, section 4.1
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgeloop.errors import OptionsError
from edgeloop.extras import need
from edgeloop.quantities import above_zero, at_least

# gradients and a factor (float32) of the learning rate: updates the variables, and returns what they then hold
Apply = Callable[[Sequence[Any], Any], Sequence[Any]]
OLDEST = 63  # the histogram counts older gradients with those of this age


class Updates(enum.StrEnum):
    """How workers update the variables on parameter servers."""

    ASYNCHRONOUS = "asynchronous"  # each worker on its own
    SYNCHRONOUS = "synchronous"  # in rounds: the mean of the first gradients, the slowest ones are dropped


class Stale(enum.StrEnum):
    """What becomes of a gradient that is some updates old."""

    KEEP = "keep"
    SCALE = "scale"  # its learning rate is divided by 1 + its age
    DROP = "drop"  # where it is older than the limit


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterServerConfig:
    """How a training with parameter servers goes.

    Attributes:
        stale: What becomes of a stale gradient.
        stale_limit: With `drop`: the age in updates up to which a gradient counts.
        one_worker_epochs: First epochs, in which one worker at a time trains, so that no gradient is stale.
        rate_factor: Multiplies the learning rate.
        backup_workers: Of a synchronous round: how many gradients, the slowest ones, it does without.
        table_rate: Learning rate of partitioned embeddings, which are trained by plain SGD.
    """

    updates: Updates = Updates.ASYNCHRONOUS
    stale: Stale = Stale.KEEP
    stale_limit: int = 1
    one_worker_epochs: int = 0
    rate_factor: float = 1.0
    backup_workers: int = 0
    table_rate: float = 0.1

    def __post_init__(self) -> None:
        for name, least in (("stale_limit", 1), ("one_worker_epochs", 0), ("backup_workers", 0)):
            at_least(getattr(self, name), least, f"[parameter-server] {name.replace('_', '-')}")
        above_zero(self.rate_factor, "[parameter-server] rate-factor")
        above_zero(self.table_rate, "[parameter-server] table-rate")
        if self.updates == Updates.SYNCHRONOUS and (self.stale != Stale.KEEP or self.one_worker_epochs):
            raise OptionsError(
                "[parameter-server] updates = 'synchronous' has no stale gradients",
                advice="Leave stale and one-worker-epochs out, or use updates = 'asynchronous'.",
            )
        if self.updates == Updates.ASYNCHRONOUS and self.backup_workers:
            raise OptionsError(
                "[parameter-server] backup-workers are of synchronous rounds alone",
                advice="Add updates = 'synchronous', or leave backup-workers out.",
            )


@dataclass(frozen=True, slots=True)
class Counters:
    """Variables on a parameter server that count by one operation each, which no two workers can mix up.

    Keras's own `iterations` is read and written back: with two workers 36 to 112 of 400 steps were lost.

    Attributes:
        taken: Steps whose gradient was computed, int64.
        applied: Those that updated the variables, int64.
        ages: How many gradients had each age, in updates, int64 [64].
        late: Gradients of synchronous rounds that came after their round, int64.
        loss: Of the step that was done last, float32.
    """

    taken: Any
    applied: Any
    ages: Any
    late: Any
    loss: Any

    def values(self) -> dict[str, Any]:
        """By name, for a checkpoint."""
        return {"taken": self.taken, "applied": self.applied, "ages": self.ages, "late": self.late}

    def histogram(self) -> dict[int, int]:
        """{age in updates: gradients}."""
        return {age: int(count) for age, count in enumerate(self.ages.numpy()) if count}


def make_counters() -> Counters:
    """New ones, within the strategy's scope."""
    tf = need("tensorflow", extra="cloud")
    taken, applied, late = (tf.Variable(0, dtype=tf.int64, trainable=False) for _ in range(3))
    ages = tf.Variable(tf.zeros(OLDEST + 1, tf.int64), trainable=False)
    return Counters(taken, applied, ages, late, tf.Variable(0.0, trainable=False))


def asynchronous_step(
    gradients_of: Callable[[Any], tuple[Any, Sequence[Any]]],
    apply: Apply,
    counters: Counters,
    config: ParameterServerConfig,
) -> Callable[[Any], Any]:
    """A function for `strategy.run` on one worker: a batch to its loss.

    Args:
        gradients_of: A batch to its loss and gradients.
        apply: Updates the variables by gradients.
    """
    tf = need("tensorflow", extra="cloud")

    def replica(batch: Any) -> Any:
        before = counters.applied.read_value()
        with tf.control_dependencies([before]):
            loss, gradients = gradients_of(batch)
        with tf.control_dependencies(tf.nest.flatten(gradients, expand_composites=True)):
            age = tf.maximum(counters.applied.read_value() - before, 0)

        def update(factor: Any) -> Any:
            with tf.control_dependencies([age]):  # this step must not count itself
                changed = apply(gradients, factor)
            with tf.control_dependencies(changed):
                return tf.identity(counters.applied.assign_add(1, read_value=True))

        if config.stale == Stale.DROP:
            done = tf.cond(age <= config.stale_limit, lambda: update(tf.constant(1.0)), lambda: tf.zeros((), tf.int64))
        else:
            done = update(1.0 / (1.0 + tf.cast(age, tf.float32)) if config.stale == Stale.SCALE else tf.constant(1.0))
        place = tf.reshape(tf.minimum(age, OLDEST), [1])
        counters.ages.scatter_add(tf.IndexedSlices(tf.ones(1, tf.int64), place))
        counters.loss.assign(loss)
        with tf.control_dependencies([done]):  # the next step may begin when this one is counted
            counters.taken.assign_add(1)
        return loss

    return replica
