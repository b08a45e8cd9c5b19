"""Everything a training needs before its first step: data that was checked, a strategy that was chosen, a model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from edgeloop.cloud.input.examples import Examples, LabelKind, Shard
from edgeloop.cloud.input.options import PipelineOptions
from edgeloop.cloud.input.pipeline import batches, steps_per_epoch
from edgeloop.cloud.train.choose import Choice, Situation, choose
from edgeloop.cloud.train.cluster.cluster import Cluster
from edgeloop.cloud.train.config import MemoryConfig, Precision, StrategyConfig, TrainConfig
from edgeloop.cloud.train.data import (
    BatchStream,
    label_width,
    training_and_validation,
    uncached,
    validation_batches,
)
from edgeloop.cloud.train.distill.objective import distillation_objective
from edgeloop.cloud.train.loop import StepFigures, Stopped, Told, distributed_by_worker, run_steps
from edgeloop.cloud.train.models import build_model
from edgeloop.cloud.train.objective import Objective, gives_probabilities, make_objective, resolve_loss
from edgeloop.cloud.train.optimizer import make_optimizer
from edgeloop.cloud.train.servers.parameter_server import Coordinator
from edgeloop.cloud.train.servers.partitioned import model_values, table_parts
from edgeloop.cloud.train.statistics import scope_of, shared_statistics
from edgeloop.cloud.train.step import Evaluation, evaluation, gradient_step, gradients_of, traced_steps
from edgeloop.cloud.train.strategies import Place, Strategy, local_devices, make_strategy, use_virtual_cpus
from edgeloop.cloud.train.warm_start import warm_start
from edgeloop.errors import DataError, OptionsError
from edgeloop.extras import need

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
        step = traced_steps(
            strategy, gradient_step(model, optimizer, objective, config.memory, batch), host_clock(config)
        )
        run: Run = lambda iterator, count, epoch, told, stop: run_steps(  # noqa: E731
            step, iterator, count, config.loop.steps_per_call, told, stop
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


def evaluation_here(model: Any, objective: Objective) -> Callable[[Iterable[Any]], Evaluation]:
    """The evaluation of a model of this process, outside of any strategy."""
    return evaluation(need("tensorflow", extra="cloud").distribute.get_strategy(), model, objective)


def stream_of(strategy: Any, training: Examples, config: TrainConfig) -> Callable[[int], Any]:
    """Makes the endless iterator over the batches from a step on, on the devices; the same for the same seed."""
    per_step = config.pipeline.batch * strategy.num_replicas_in_sync

    def begin(step: int) -> Any:
        def of_worker(shard: Shard, each: int) -> Any:
            options = uncached(config.pipeline, per_step // (shard.count * each))
            return batches(training, options, seed=config.loop.seed, start_step=step * each, shard=shard)

        return iter(distributed_by_worker(strategy, of_worker))

    return begin


def fitting_objective(config: TrainConfig, model: Any, examples: Examples) -> Objective:
    """The loss of the config for this model and these examples. Raises as `resolve_loss`."""
    classes = examples.class_count if examples.label_kind is LabelKind.CLASSES else None
    loss = resolve_loss(config.loop.loss, classes, int(model.outputs[0].shape[-1]))
    logits = not gives_probabilities(model) if config.loop.from_logits is None else config.loop.from_logits
    objective = make_objective(loss, logits)
    return objective if config.distill.targets is None else distillation_objective(objective, config.distill, logits)


def score_of(model: Any, config: TrainConfig) -> float:
    """What the metric of `fitting_objective` says of a model on the examples that the training holds out."""
    validation = training_and_validation(config.data, config.pipeline, config.loop.seed)[1]
    objective = fitting_objective(config, model, validation)
    return evaluation_here(model, objective)(validation_batches(validation, config.pipeline)).score


def set_seeds(seed: int, deterministic: bool) -> None:
    """Python, NumPy and TensorFlow begin from one number.

    On CPUs TensorFlow's operations give the same bits in every run as they are; of GPUs that must be asked.
    """
    tf = need("tensorflow", extra="cloud")
    need("keras", extra="cloud").utils.set_random_seed(seed)
    if deterministic and tf.config.list_physical_devices("GPU"):
        tf.config.experimental.enable_op_determinism()


def host_clock(config: TrainConfig) -> Callable[[], Any] | None:
    """Seconds by Python's clock where TensorFlow's own is refused; None elsewhere, for asking Python costs more."""
    tf = need("tensorflow", extra="cloud")
    if not (config.loop.deterministic and tf.config.list_physical_devices("GPU")):
        return None
    return lambda: tf.numpy_function(time.time, [], tf.float64)


def where(config: StrategyConfig, cluster: Cluster | None) -> tuple[Choice, Place]:
    """The strategy that is named, or that the rules choose, and the devices it gets."""
    if config.virtual_cpus > 1:
        use_virtual_cpus(config.virtual_cpus)
    if cluster is not None and (cluster.workers > 1 or cluster.parameter_servers):
        devices: tuple[str, ...] = ("CPU:0",)  # the strategy itself must be what wakes TensorFlow
    else:
        devices = local_devices()
    place = Place(
        devices=devices,
        cluster=cluster,
        tpu=config.tpu,
        start_timeout_s=config.start_timeout_s,
        heartbeat_s=config.heartbeat_s,
    )
    if config.name != Strategy.AUTO:
        return Choice(config.name, "The config names it."), place
    situation = Situation(
        tpu=bool(config.tpu),
        accelerators=sum(name.startswith("GPU") for name in devices),
        devices=len(devices),
        hosts=1 if cluster is None else cluster.workers,
        parameter_servers=0 if cluster is None else cluster.parameter_servers,
        links=config.links,
        workers=config.workers,
        gradients=config.gradients,
        bound=config.bound,
    )
    return choose(situation), place


def fitting_model(config: TrainConfig, examples: Examples) -> Any:
    """The model for these examples.

    Raises:
        DataError: Its inputs or its classes are others than those of the data.
    """
    shapes = {name: tensor.shape for name, tensor in examples.features.items()}
    classify = examples.label_kind is LabelKind.CLASSES
    model = build_model(config.model, shapes, label_width(examples), classify)
    if len(model.inputs) != len(shapes):
        raise DataError(
            f"the model has {len(model.inputs)} inputs, and the data has {', '.join(shapes)}",
            advice="Store one array for each input.",
        )
    by_name = {tensor.name: tensor for tensor in model.inputs}
    inputs = [by_name[name] for name in shapes] if set(by_name) == set(shapes) else model.inputs
    for (name, shape), tensor in zip(shapes.items(), inputs, strict=True):
        expected = tuple(tensor.shape[1:])
        if len(shape) != len(expected) or any(e not in (None, s) for s, e in zip(shape, expected, strict=True)):
            raise DataError(
                f"{name} has the shape {shape} in the data, and the model takes {expected}",
                advice="Choose another model, or bring the data into that shape.",
            )
    return model
