"""Everything a training needs before its first step: data that was checked, a strategy that was chosen, a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from edgeloop.cloud.input.examples import Examples
from edgeloop.cloud.input.options import PipelineOptions
from edgeloop.cloud.input.pipeline import batches, steps_per_epoch
from edgeloop.cloud.train.cluster.cluster import Cluster
from edgeloop.cloud.train.config.tables import MemoryConfig, Precision
from edgeloop.cloud.train.config.train_config import TrainConfig
from edgeloop.cloud.train.data.batch_stream import BatchStream, stream_of
from edgeloop.cloud.train.data.training_data import training_and_validation, uncached, validation_batches
from edgeloop.cloud.train.model.fitting import fitting_model, fitting_objective
from edgeloop.cloud.train.model.warm_start import warm_start
from edgeloop.cloud.train.servers.parameter_server import Coordinator
from edgeloop.cloud.train.servers.partitioned import model_values, table_parts
from edgeloop.cloud.train.step.determinism import host_clock, set_seeds
from edgeloop.cloud.train.step.evaluation import Evaluation, evaluation
from edgeloop.cloud.train.step.loop import StepFigures, Stopped, Told, distributed_by_worker, run_steps
from edgeloop.cloud.train.step.objective import Objective
from edgeloop.cloud.train.step.optimizer import make_optimizer
from edgeloop.cloud.train.step.statistics import scope_of, shared_statistics
from edgeloop.cloud.train.step.step import gradient_step, gradients_of, traced_steps
from edgeloop.cloud.train.strategies.choose import Choice
from edgeloop.cloud.train.strategies.place import Place
from edgeloop.cloud.train.strategies.strategies import Strategy, make_strategy
from edgeloop.cloud.train.strategies.where import where
from edgeloop.errors import OptionsError

Run = Callable[[Any, int, int, Told, Stopped], StepFigures]  # iterator, steps, epoch, and as `run_steps`


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
    run: Run
    evaluate: Callable[[Iterable[Any]], Evaluation]
    coordinator: Coordinator | None
    share_statistics: Callable[[], None]
    training: Examples
    validation: Examples
    stream: BatchStream
    pipeline: PipelineOptions
    batch: int
    steps: int
    seed: int
    notes: tuple[str, ...]

    @property
    def replicas(self) -> int:
        return self.strategy.num_replicas_in_sync

    def epoch_batches(self, epoch: int, done: int = 0) -> Any:
        """An iterator over the batches of that epoch, on the devices, after its first `done` ones; the same for the
        same seed. With parameter servers each worker has an iterator of its own, which begins anywhere."""
        begin = (epoch - 1) * self.steps + done
        if self.coordinator is None:
            return self.stream.at(begin, self.steps - done)
        options = uncached(self.pipeline, self.batch)
        return self.coordinator.batches(
            lambda: batches(self.training, options, seed=self.seed, start_step=begin), self.steps
        )

    def validation_batches(self) -> Any:
        if self.coordinator is not None:
            return validation_batches(self.validation, self.pipeline)
        return distributed_by_worker(
            self.strategy, lambda shard, each: validation_batches(self.validation, self.pipeline, shard)
        )

    def model_here(self) -> Any:
        """The model with its variables in this process: to save it, and to read and set its weights."""
        return self.model if self.coordinator is None else self.coordinator.copy_weights()

    def state(self) -> dict[str, Any]:
        """Names to variables of all that a checkpoint holds: weights, states of random layers, slots of the
        optimizer, tables, counters."""
        found = model_values(self.model)
        found |= {f"optimizer/{k:04d}": variable.value for k, variable in enumerate(self.optimizer.variables)}
        if self.coordinator is not None:
            found |= self.coordinator.state()
        return found


def prepare(config: TrainConfig, cluster: Cluster | None = None) -> Prepared:
    """See `train_run`, whose first half this is.

    Raises:
        DataError: The data cannot be read, or does not fit the model.
        OptionsError: Options that contradict the data, the machine or each other.
        ModelError: The model cannot be built or read.
        TargetError: No TPU.
    """
    set_seeds(config.loop.seed, config.loop.deterministic)
    training, validation = training_and_validation(
        config.data, config.pipeline, config.loop.seed, config.distill.targets
    )
    choice, place = where(config.strategy, cluster)
    if choice.strategy == Strategy.CENTRAL_STORAGE and config.memory.precision == Precision.FLOAT16:
        raise OptionsError(
            "float16 scales the loss, and central-storage cannot change that scale within a step",
            advice='Use [memory] precision = "bfloat16", or the strategy mirrored.',
        )
    strategy = make_strategy(choice.strategy, place)
    batch = config.pipeline.batch * strategy.num_replicas_in_sync
    steps = steps_per_epoch(training, batch)
    assert steps is not None  # the examples are counted
    with scope_of(strategy):
        model = fitting_model(config, training)
        start = config.model.warm_start
        notes = () if start is None else (warm_start(model, start),)
        optimizer = make_optimizer(
            config.optimizer, config.memory.precision, strategy.num_replicas_in_sync, steps, config.loop.epochs
        )
        optimizer.build(model.trainable_variables)
    here = fitting_model(config, training) if choice.strategy == Strategy.PARAMETER_SERVER else None
    objective = fitting_objective(config, model, training)
    coordinator = None
    if here is None:
        per_call = config.loop.steps_per_call
        replica = gradient_step(model, optimizer, objective, config.memory, batch)
        step = traced_steps(strategy, replica, per_call, host_clock(config))
        run: Run = lambda iterator, count, epoch, told, stop: run_steps(  # noqa: E731
            step, iterator, count, per_call, told, stop
        )
    else:
        gradients = gradients_of(model, optimizer, objective, config.memory, batch, table_parts(model))
        coordinator = Coordinator(strategy, place.workers, model, here, optimizer, gradients, config)
        run = coordinator.run
    return Prepared(
        strategy=strategy,
        choice=choice,
        place=place,
        model=model,
        optimizer=optimizer,
        objective=objective,
        memory=config.memory,
        run=run,
        evaluate=evaluation(strategy, model, objective) if coordinator is None else coordinator.evaluation(objective),
        coordinator=coordinator,
        share_statistics=shared_statistics(strategy, model),
        training=training,
        validation=validation,
        stream=BatchStream(stream_of(strategy, training, config)),
        pipeline=config.pipeline,
        batch=batch,
        steps=steps,
        seed=config.loop.seed,
        notes=notes,
    )
