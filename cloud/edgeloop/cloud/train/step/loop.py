"""The synchronous loop: traced steps one after the other, and how their batches come to the devices of a strategy."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeloop.cloud.input.examples import Shard
from edgeloop.cloud.train.step.step import Step
from edgeloop.extras import need

Told = Callable[[int, float], None]  # (steps done in this epoch, loss of the last one)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFigures:
    """What some steps came to.

    Attributes:
        losses: Of each step, float32 [steps].
        seconds: From before the first step to after the last one.
        waited_s: Seconds of these that steps waited for their batches.
    """

    losses: np.ndarray
    seconds: float
    waited_s: float


Stopped = Callable[[int], bool]  # whether to stop after so many steps of this loop


def never(done: int) -> bool:
    """The `stop` of a loop that runs to its end."""
    return False


def untold(done: int, loss: float) -> None:
    """The `told` of a caller who does not listen."""


def run_steps(
    step: Step, iterator: Any, count: int, per_call: int, told: Told = untold, stop: Stopped = never
) -> StepFigures:
    """`count` steps, `per_call` in one call of the traced function; the last call has what remains.

    A loss that is NaN or infinite ends them: those after it would be so too. So does `stop`, asked after each call.
    """
    tf = need("tensorflow", extra="cloud")
    began, waited, losses = time.perf_counter(), 0.0, [np.zeros(0, np.float32)]
    done, whole = 0, tf.constant(per_call)
    while done < count:
        now = min(per_call, count - done)
        values, seconds = step(iterator, whole if now == per_call else tf.constant(now))
        losses.append(values.numpy())
        waited, done = waited + float(seconds), done + now
        told(done, float(losses[-1][-1]))
        if not np.isfinite(losses[-1]).all() or stop(done):
            break
    return StepFigures(losses=np.concatenate(losses), seconds=time.perf_counter() - began, waited_s=waited)


def distributed(strategy: Any, batches: Any) -> Any:
    """The batches as `strategy.run` takes them; under OneDevice the plain dataset.

    Distributing a dataset to one device took 0.3 of a step of a small CNN.
    """
    tf = need("tensorflow", extra="cloud")
    if isinstance(strategy, tf.distribute.OneDeviceStrategy):
        return batches
    return strategy.experimental_distribute_dataset(batches)


def distributed_by_worker(strategy: Any, make: Callable[[Shard, int], Any]) -> Any:
    """The batches of this worker's part, as `strategy.run` takes them.

    Args:
        make: Gets the worker's part and how many batches its replicas take for one step, one each; where that is 1,
            the strategy itself divides the batch among the replicas.
    """
    tf = need("tensorflow", extra="cloud")
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return distributed(strategy, make(Shard(), 1))

    def of_worker(context: Any) -> Any:
        workers = context.num_input_pipelines
        return make(Shard(index=context.input_pipeline_id, count=workers), context.num_replicas_in_sync // workers)

    return strategy.distribute_datasets_from_function(of_worker)
