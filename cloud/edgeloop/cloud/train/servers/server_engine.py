"""The engine of parameter servers: variables lie on them, workers do the steps, and this process coordinates."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from edgeloop.cloud.input.pipeline import batches
from edgeloop.cloud.train.data.training_data import uncached, validation_batches
from edgeloop.cloud.train.engine import Setup
from edgeloop.cloud.train.model.fitting import fitting_model
from edgeloop.cloud.train.servers.parameter_server import Coordinator
from edgeloop.cloud.train.servers.partitioned import model_values, table_parts
from edgeloop.cloud.train.step.evaluation import Evaluation
from edgeloop.cloud.train.step.loop import StepFigures, Stopped, Told
from edgeloop.cloud.train.step.optimizer import slots
from edgeloop.cloud.train.step.step import gradients_of


class ServerEngine:
    """See `Engine`."""

    plan: tuple[str, ...] = ()
    repeatable = False  # the order of updates is never the same

    def __init__(self, setup: Setup) -> None:
        self.setup, config = setup, setup.config
        here = fitting_model(config, setup.training)
        gradients = gradients_of(
            setup.model, setup.optimizer, setup.objective, config.memory, setup.batch, table_parts(setup.model)
        )
        self._coordinator = Coordinator(
            setup.strategy, setup.place.workers, setup.model, here, setup.optimizer, gradients, config
        )
        self._evaluate = self._coordinator.evaluation(setup.objective)

    def batches(self, begin: int, count: int) -> Any:
        """Each worker has an iterator of its own, which begins anywhere."""
        config = self.setup.config
        options = uncached(config.pipeline, self.setup.batch)
        return self._coordinator.batches(
            lambda: batches(self.setup.training, options, seed=config.loop.seed, start_step=begin), self.setup.steps
        )

    def run(self, iterator: Any, count: int, epoch: int, told: Told, stop: Stopped) -> StepFigures:
        return self._coordinator.run(iterator, count, epoch, told, stop)

    def validation_batches(self) -> Iterable[Any]:
        return validation_batches(self.setup.validation, self.setup.config.pipeline)

    def evaluate(self, batches: Iterable[Any]) -> Evaluation:
        return self._evaluate(batches)

    def state(self) -> dict[str, Any]:
        return model_values(self.setup.model) | slots(self.setup.optimizer) | self._coordinator.state()

    def collect(self) -> None:
        """A checkpoint reads the servers' variables themselves."""

    def spread(self) -> None:
        """The workers read the servers' variables in every step."""

    def model_here(self) -> Any:
        return self._coordinator.copy_weights()

    def notes(self) -> tuple[str, ...]:
        return self._coordinator.notes()
