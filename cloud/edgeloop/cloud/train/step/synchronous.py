"""The engine of all strategies whose replicas do each step together: one traced function under `strategy.run`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from edgeloop.cloud.train.data.batch_stream import BatchStream, stream_of
from edgeloop.cloud.train.data.training_data import validation_batches
from edgeloop.cloud.train.engine import Setup
from edgeloop.cloud.train.servers.partitioned import model_values
from edgeloop.cloud.train.step.determinism import host_clock
from edgeloop.cloud.train.step.evaluation import Evaluation, evaluation
from edgeloop.cloud.train.step.loop import StepFigures, Stopped, Told, distributed_by_worker, run_steps
from edgeloop.cloud.train.step.optimizer import slots
from edgeloop.cloud.train.step.statistics import shared_statistics
from edgeloop.cloud.train.step.step import gradient_step, traced_steps


class Synchronous:
    """See `Engine`."""

    plan: tuple[str, ...] = ()

    def __init__(self, setup: Setup) -> None:
        self.setup, config = setup, setup.config
        # several workers may not put the same state back, and steps of which they take unlike numbers hang
        self.repeatable = setup.place.workers == 1
        replica = gradient_step(setup.model, setup.optimizer, setup.objective, config.memory, setup.batch)
        self._step = traced_steps(setup.strategy, replica, config.loop.steps_per_call, host_clock(config))
        self._evaluate = evaluation(setup.strategy, setup.model, setup.objective)
        self._stream = BatchStream(stream_of(setup.strategy, setup.training, config, setup.batch))
        self._share_statistics = shared_statistics(setup.strategy, setup.model)

    def batches(self, begin: int, count: int) -> Any:
        return self._stream.at(begin, count)

    def run(self, iterator: Any, count: int, epoch: int, told: Told, stop: Stopped) -> StepFigures:
        return run_steps(self._step, iterator, count, self.setup.config.loop.steps_per_call, told, stop)

    def validation_batches(self) -> Iterable[Any]:
        validation, pipeline = self.setup.validation, self.setup.config.pipeline
        return distributed_by_worker(
            self.setup.strategy, lambda shard, each: validation_batches(validation, pipeline, shard)
        )

    def evaluate(self, batches: Iterable[Any]) -> Evaluation:
        return self._evaluate(batches)

    def state(self) -> dict[str, Any]:
        return model_values(self.setup.model) | slots(self.setup.optimizer)

    def collect(self) -> None:
        self._share_statistics()

    def spread(self) -> None:
        """The steps read the variables of `state` themselves."""

    def model_here(self) -> Any:
        return self.setup.model

    def notes(self) -> tuple[str, ...]:
        return ()
