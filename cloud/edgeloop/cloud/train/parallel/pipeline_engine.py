"""The engine of `[strategy] name = "pipeline"`: each device holds a part of the model, in one replica or several."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeloop.cloud.train.engine import Setup
from edgeloop.cloud.train.parallel.pipeline import GPipeOptions, Pipeline
from edgeloop.cloud.train.parallel.whole_engine import WholeEngine
from edgeloop.cloud.train.parallel.whole_values import whole_and_part
from edgeloop.cloud.train.step.evaluation import evaluation
from edgeloop.cloud.train.step.loop import StepFigures, Stopped, Told
from edgeloop.errors import OptionsError
from edgeloop.extras import need


class PipelineEngine(WholeEngine):
    """See `Engine`."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        options = _options(setup)
        features, _ = self.first_batch()
        self._pipeline = Pipeline(
            setup.model, self.optimizer, setup.objective.losses, options, setup.place.devices, features
        )
        self._pairs = [
            [pair for stage in stages for pair in whole_and_part(stage, setup.model, setup.optimizer)]
            for stages in self._pipeline.replicas
        ]
        self.spread()  # the optimizers' variables; the layers' were copied
        self._evaluate = evaluation(
            setup.strategy,
            need("tensorflow", extra="cloud").autograph.experimental.do_not_convert(self._predict),
            setup.objective,
        )
        self._bubbles: list[float] = []
        self.plan: tuple[str, ...] = (_plan(options, self._pipeline.cost_ms),)

    def run(self, iterator: Any, count: int, epoch: int, told: Told, stop: Stopped) -> StepFigures:
        began, waited, losses = time.perf_counter(), 0.0, list[float]()
        with self._pipeline:
            while len(losses) < count:
                asked = time.perf_counter()
                features, labels = next(iterator)
                waited += time.perf_counter() - asked
                step = self._pipeline.step(self.in_order(features), labels)
                losses.append(step.loss)
                self._bubbles.append(step.bubble)
                told(len(losses), step.loss)
                if not np.isfinite(step.loss) or stop(len(losses)):
                    break
        return StepFigures(losses=np.array(losses, np.float32), seconds=time.perf_counter() - began, waited_s=waited)

    def collect(self) -> None:
        for whole, part in self._pairs[0]:  # all replicas hold the same
            whole.assign(part.value)

    def spread(self) -> None:
        for pairs in self._pairs:
            for whole, part in pairs:
                part.assign(whole.value)

    def notes(self) -> tuple[str, ...]:
        if not self._bubbles:
            return ()
        waited, equal = statistics.median(self._bubbles), self._pipeline.bubble_in_theory
        return (f"Stages waited {waited:.0%} of a step for each other (bubble); equal ones would wait {equal:.0%}.",)

    def _predict(self, features: Any, training: bool) -> Any:
        """As the model itself; `training` is never true here."""
        return self._pipeline.predict(self.in_order(features))


def _options(setup: Setup) -> GPipeOptions:
    strategy, batch = setup.config.strategy, setup.config.pipeline.batch
    if strategy.micro_batches > batch:
        raise OptionsError(
            f"a batch of {batch} cannot be divided into {strategy.micro_batches} micro-batches",
            advice="Choose a larger [pipeline] batch, or fewer [strategy] micro-batches.",
        )
    stages = strategy.stages or max(2, len(setup.place.devices) // strategy.replicas)
    return GPipeOptions(stages=stages, micro_batches=strategy.micro_batches, replicas=strategy.replicas)


def _plan(options: GPipeOptions, cost_ms: Sequence[float]) -> str:
    costs = " and ".join(f"{cost:.2g}" for cost in cost_ms)
    pieces = f"{options.micro_batches} micro-batches"
    if options.replicas > 1:
        pieces = f"{options.replicas} replicas with {pieces} each"
    return (
        f"The model is divided into {options.stages} stages, which take {costs} ms for a micro-batch, forward and "
        f"backward (measured). A step has {pieces}."
    )
