"""Everything a training needs before its first step: data that was checked, a strategy that was chosen, a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgeloop.cloud.input.examples import Examples
from edgeloop.cloud.input.pipeline import steps_per_epoch
from edgeloop.cloud.train.cluster.cluster import Cluster
from edgeloop.cloud.train.config.tables import MemoryConfig, Precision
from edgeloop.cloud.train.config.train_config import TrainConfig
from edgeloop.cloud.train.data.training_data import training_and_validation
from edgeloop.cloud.train.engine import Engine, Setup
from edgeloop.cloud.train.model.fitting import fitting_model, fitting_objective
from edgeloop.cloud.train.model.warm_start import warm_start
from edgeloop.cloud.train.parallel.pipeline_engine import PipelineEngine
from edgeloop.cloud.train.parallel.tensor_engine import TensorEngine
from edgeloop.cloud.train.servers.server_engine import ServerEngine
from edgeloop.cloud.train.step.determinism import set_seeds
from edgeloop.cloud.train.step.objective import Objective
from edgeloop.cloud.train.step.optimizer import make_optimizer
from edgeloop.cloud.train.step.statistics import scope_of
from edgeloop.cloud.train.step.synchronous import Synchronous
from edgeloop.cloud.train.strategies.choose import Choice
from edgeloop.cloud.train.strategies.place import Place
from edgeloop.cloud.train.strategies.strategies import Strategy, make_strategy
from edgeloop.cloud.train.strategies.where import where
from edgeloop.errors import OptionsError

ENGINES: dict[Strategy, Callable[[Setup], Engine]] = {  # all others are `Synchronous`
    Strategy.PARAMETER_SERVER: ServerEngine,
    Strategy.PIPELINE: PipelineEngine,
    Strategy.TENSOR_SPLIT: TensorEngine,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A training before its first step.

    Attributes:
        batch: Examples of one step over all replicas.
        notes: What else a user should know, a sentence each.
        steps: Of one epoch; what fills no whole batch waits for another epoch's order.
    """

    strategy: Any
    choice: Choice
    place: Place
    model: Any
    optimizer: Any
    objective: Objective
    memory: MemoryConfig
    engine: Engine
    training: Examples
    validation: Examples
    replicas: int
    batch: int
    steps: int
    notes: tuple[str, ...]

    def epoch_batches(self, epoch: int, done: int = 0) -> Any:
        """An iterator over the batches of that epoch, on the devices, after its first `done` ones; the same for the
        same seed."""
        return self.engine.batches((epoch - 1) * self.steps + done, self.steps - done)


def prepare(config: TrainConfig, cluster: Cluster | None = None) -> Prepared:
    """See `train_run`, whose first half this is.

    Raises:
        DataError: The data cannot be read, or does not fit the model.
        OptionsError: Options that contradict the data, the machine or each other.
        ModelError: The model cannot be built or read.
        TargetError: No TPU.
    """
    set_seeds(config.loop.seed, config.loop.deterministic)
    choice, place = where(config.strategy, cluster)
    if choice.strategy == Strategy.CENTRAL_STORAGE and config.memory.precision == Precision.FLOAT16:
        raise OptionsError(
            "float16 scales the loss, and central-storage cannot change that scale within a step",
            advice='Use [memory] precision = "bfloat16", or the strategy mirrored.',
        )
    strategy = make_strategy(choice.strategy, place)  # first of all: synchronous workers must be what wakes TensorFlow
    training, validation = training_and_validation(
        config.data, config.pipeline, config.loop.seed, config.distill.targets
    )
    replicas = strategy.num_replicas_in_sync
    if choice.strategy == Strategy.PIPELINE:  # to tf.distribute it is one device
        replicas = config.strategy.replicas
    batch = config.pipeline.batch * replicas
    steps = steps_per_epoch(training, batch)
    assert steps is not None  # the examples are counted
    with scope_of(strategy):
        model = fitting_model(config, training)
        start = config.model.warm_start
        notes = () if start is None else (warm_start(model, start),)
        optimizer = make_optimizer(config.optimizer, config.memory.precision, replicas, steps, config.loop.epochs)
        optimizer.build(model.trainable_variables)
    setup = Setup(
        config=config,
        name=choice.strategy,
        strategy=strategy,
        place=place,
        model=model,
        optimizer=optimizer,
        objective=fitting_objective(config, model, training),
        training=training,
        validation=validation,
        replicas=replicas,
        batch=batch,
        steps=steps,
    )
    return Prepared(
        strategy=strategy,
        choice=choice,
        place=place,
        model=model,
        optimizer=optimizer,
        objective=setup.objective,
        memory=config.memory,
        engine=ENGINES.get(choice.strategy, Synchronous)(setup),
        training=training,
        validation=validation,
        replicas=replicas,
        batch=batch,
        steps=steps,
        notes=notes,
    )
