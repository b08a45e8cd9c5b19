"""The stream of a training's batches, each a function of seed and step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeloop.cloud.input.examples import Examples, Shard
from edgeloop.cloud.input.pipeline import batches
from edgeloop.cloud.train.config.train_config import TrainConfig
from edgeloop.cloud.train.data.training_data import uncached
from edgeloop.cloud.train.step.loop import distributed_by_worker


class BatchStream:
    """Batches by step: an iterator that goes on where the last steps ended, and is made anew for any other step.

    Args:
        make: A step to an endless iterator that begins there.
    """

    def __init__(self, make: Callable[[int], Any]) -> None:
        self._make = make
        self._iterator: Any = None
        self._next = -1

    def at(self, step: int, count: int) -> Any:
        """An iterator whose next `count` batches are those from `step` on, and will be asked for."""
        if step != self._next:
            self._iterator = self._make(step)
        self._next = step + count
        return self._iterator


def stream_of(strategy: Any, training: Examples, config: TrainConfig, per_step: int) -> Callable[[int], Any]:
    """Makes the endless iterator over the batches from a step on, on the devices; the same for the same seed.

    Args:
        per_step: Examples of one step over all replicas.
    """

    def begin(step: int) -> Any:
        def of_worker(shard: Shard, each: int) -> Any:
            options = uncached(config.pipeline, per_step // (shard.count * each))
            return batches(training, options, seed=config.loop.seed, start_step=step * each, shard=shard)

        return iter(distributed_by_worker(strategy, of_worker))

    return begin
