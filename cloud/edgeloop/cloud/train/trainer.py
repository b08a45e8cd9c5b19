"""A training from its config to a run folder, and from arrays to a model.

The loop is our own because `fit` of Keras 3 fails under MultiWorkerMirrored and ParameterServer (TF 2.21), while one
step function under `strategy.run` serves them all.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.cloud.input.damage import named_damage
from edgeloop.cloud.train.budget import tasks_of
from edgeloop.cloud.train.checkpoints.checkpoints import check_empty, open_checkpoints
from edgeloop.cloud.train.cluster.cluster import Cluster, read_cluster
from edgeloop.cloud.train.cluster.lost_tasks import leave_together, lost_tasks_named
from edgeloop.cloud.train.cluster.preemption import asked_to_stop, stop_of
from edgeloop.cloud.train.config import Loss, MemoryConfig, StrategyConfig, TrainConfig, to_toml
from edgeloop.cloud.train.epochs import Beat, EpochRecord, Training, no_beat
from edgeloop.cloud.train.loop import distributed, run_steps
from edgeloop.cloud.train.memory import lack_named
from edgeloop.cloud.train.objective import make_objective
from edgeloop.cloud.train.optimizer import rate_rule
from edgeloop.cloud.train.prepare import prepare, where
from edgeloop.cloud.train.run_folder import LOGS, MODEL, SAVED_MODEL, RunFolder, environment, holds_run, open_run
from edgeloop.cloud.train.servers.servers import serve_cluster
from edgeloop.cloud.train.step import gradient_step, traced_steps
from edgeloop.cloud.train.strategies import make_strategy
from edgeloop.cloud.train.study.learning_curve import earliest_as_good
from edgeloop.errors import DataError, OptionsError
from edgeloop.extras import need
from edgeloop.leftovers import temporary_folder
from edgeloop.progress import Progress, Say, silent


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What a training came to.

    Attributes:
        reason: Which rule chose the strategy.
        stopped: Why it ended.
        examples: Trained on.
        judged_on: Examples that the validation loss and the score are means over.
    """

    out: Path
    strategy: str
    reason: str
    replicas: int
    batch: int
    metric: str
    epochs: tuple[EpochRecord, ...]
    best_epoch: int
    stopped: str
    examples: int
    judged_on: int
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> EpochRecord:
        return self.epochs[self.best_epoch - 1]

    @property
    def model(self) -> Path:
        return self.out / MODEL

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> RunResult:
        """The result that `to_json` wrote."""
        known = {field.name: document[field.name] for field in fields(cls)}
        epochs = tuple(EpochRecord(**record) for record in document["epochs"])
        return cls(**{**known, "out": Path(document["out"]), "epochs": epochs, "notes": tuple(document["notes"])})

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "out": str(self.out),
            "model": str(self.model),
            "saved_model": str(self.out / SAVED_MODEL),
            "logs": str(self.out / LOGS),
            "bound": self.epochs[-1].bound,
        }


def silence(line: str) -> None:
    """The `say` of a caller who does not listen."""


def train_run(
    config: TrainConfig,
    out: Path,
    *,
    resume: bool = False,
    progress: Progress = silent,
    say: Say = silence,
    beat: Beat = no_beat,
) -> RunResult:
    """Train what `config` says into the run folder `out`; the same config gives the same weights on one device.

    Under TF_CONFIG every task calls it; the one that saves writes `out`, the others write to temporary folders. All of
    them see `out`, where the checkpoints are. A parameter server and its workers serve until their process is ended.

    Args:
        resume: Continue the run in `out` after its last checkpoint; under TF_CONFIG, where there is none, begin it.
        say: Told which rule chose the strategy, and a line for every epoch.
        beat: Told how many steps are done, after each call of the step function.

    Raises:
        DataError: The data cannot be read, its labels or shapes do not fit the model, or there is nothing to resume.
        OptionsError: Options that contradict the data, the machine, TF_CONFIG or each other.
        ModelError: The model cannot be built or read, or its loss is not finite.
        TargetError: The strategy is tpu and there is none, or the memory of a device is too small.
        DeviceError: Another task of the cluster did not start, or was lost.
        IntegrityError: No checkpoint is whole, or they are of another model.
        WriteError: The run folder is in use, holds a run already, or cannot be written; or [checkpoints] place holds
            those of another run.
        KeyboardInterrupt: The process was asked to end (SIGTERM, Ctrl-C); a checkpoint of its last step is kept.
        MissingExtra: TensorFlow is not installed.

    Example:
        >>> result = train(read_train_config(Path("train.toml")), Path("run"))
        >>> result.best.score
        0.967
    """
    began = time.monotonic()
    cluster = read_cluster()
    if config.budget.max_cost is not None:
        config.budget.price_per_hour(tasks_of(cluster))  # a price that is missing ends here
    if cluster is not None and cluster.serves:
        serve_cluster(cluster)
    with _folder(out, cluster, resume) as folder, asked_to_stop() as asked, lost_tasks_named(cluster), lack_named():
        saves = cluster is None or cluster.saves
        if saves and not resume:
            check_empty(config.checkpoints, out)
        prepared = prepare(config, cluster)
        asked.listen()
        name = prepared.choice.strategy.value
        say(f"Strategy {name}: {prepared.choice.reason}")
        rule = rate_rule(config.optimizer, prepared.replicas)
        for line in filter(None, (*prepared.notes, rule)):
            say(line)
        with open_checkpoints(config.checkpoints, out, say if saves else silence, saves) as checkpoints:
            folder.write_config(
                to_toml(config), environment(name, prepared.replicas, prepared.place.devices, config.loop.seed)
            )
            stop = stop_of(asked, cluster)
            training = Training(config, prepared, folder, out, checkpoints, stop, progress, say, beat, began)
            if resume:
                training.restore()
            with named_damage(prepared.validation), named_damage(prepared.training):
                training.run()
        model = training.best_model()
        folder.export(model)
        folder.write_labels(prepared.training.classes)
        notes = () if prepared.coordinator is None else prepared.coordinator.notes()
        result = _result(training, out, notes=(*([rule] if rule else []), *notes, *_as_good(training)))
        folder.write_result(result.to_json())
        leave_together(prepared.strategy, cluster)
        return result


def _as_good(training: Training) -> tuple[str, ...]:
    """The earliest epoch that cannot be told from the best one, in a sentence; none where that is the best itself."""
    best, judged_on = training.state.best_epoch, training.prepared.validation.count
    if training.prepared.objective.metric != "accuracy" or not judged_on:
        return ()
    epoch = earliest_as_good([record.score for record in training.records[:best]], judged_on)
    if epoch >= best:
        return ()
    return (f"Epoch {epoch} was as good: its accuracy on {judged_on} examples is within one standard error.",)


def _result(training: Training, out: Path, notes: tuple[str, ...]) -> RunResult:
    prepared = training.prepared
    return RunResult(
        out=out,
        strategy=prepared.choice.strategy.value,
        reason=prepared.choice.reason,
        replicas=prepared.replicas,
        batch=prepared.batch,
        metric=prepared.objective.metric,
        epochs=tuple(training.records),
        best_epoch=training.state.best_epoch,
        stopped=training.stopped,
        examples=prepared.training.count or 0,
        judged_on=prepared.validation.count or 0,
        notes=notes,
    )


@contextlib.contextmanager
def _folder(out: Path, cluster: Cluster | None, resume: bool) -> Iterator[RunFolder]:
    """The run folder, or a temporary one for a task that does not save."""
    if cluster is None or cluster.saves:
        with open_run(out, resume=resume and (cluster is None or holds_run(out))) as folder:
            yield folder
        return
    with temporary_folder() as temporary:
        yield RunFolder(Path(temporary))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """How long and how fast arrays are trained on.

    Attributes:
        epochs: Passes over the data, at most.
        batch: Samples of one step, over all replicas.
        learning_rate: Of Adam.
        patience: Passes without a lower validation loss before training stops.
        validation: Share of the data held out to decide when to stop, above 0 and below 1.
        seed: Of the split and the shuffles.
    """

    epochs: int = 60
    batch: int = 32
    learning_rate: float = 2e-3
    patience: int = 8
    validation: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "patience", "learning_rate"):
            if not getattr(self, name) > 0:
                raise OptionsError(f"{name} is {getattr(self, name)}", advice="It must be above 0.")
        if not 0 < self.validation < 1:
            raise OptionsError(f"validation is {self.validation}", advice="It must be above 0 and below 1.")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """A Keras model with the weights of its best epoch; `losses` holds each epoch's validation loss."""

    model: Any
    losses: tuple[float, ...]
    strategy: str


def train(
    build: Callable[[], Any],
    x: np.ndarray,
    y: np.ndarray,
    options: TrainOptions = TrainOptions(),
    progress: Progress = silent,
    what: str = "train",
) -> TrainResult:
    """Train the model that `build` makes inside the strategy's scope, with Adam and sparse cross entropy.

    Args:
        build: Makes a Keras 3 classifier; called once, within the scope of the strategy.
        x: Inputs [n, ...], as the model takes them.
        y: Labels [n], integers from 0.
        what: Name of this training for `progress`.

    Raises:
        DataError: Too few samples for one batch and a validation part.
    """
    cluster = read_cluster()
    choice, place = where(StrategyConfig(), cluster)
    strategy = make_strategy(choice.strategy, place)
    held = int(options.validation * len(y))
    order = np.random.default_rng(options.seed).permutation(len(y))
    validation, training = order[:held], order[held:]
    if held < 1 or len(training) < options.batch:
        raise DataError(
            f"{len(y)} samples are too few for one batch of {options.batch} and a validation part of {held}",
            advice="Pass more samples, or a smaller batch.",
        )
    with strategy.scope():
        model = build()
        optimizer = need("keras", extra="cloud").optimizers.Adam(options.learning_rate)
        optimizer.build(model.trainable_variables)
    objective = make_objective(Loss.SPARSE_CATEGORICAL_CROSSENTROPY, from_logits=False)
    step = traced_steps(strategy, gradient_step(model, optimizer, objective, MemoryConfig(), options.batch))
    batches = distributed(strategy, _shuffled(x[training], y[training], options))
    steps = len(training) // options.batch
    held_x, held_y = x[validation], y[validation]
    best, losses, waited = model.get_weights(), [mean_loss(model, held_x, held_y)], 0
    for epoch in range(options.epochs):
        run_steps(step, iter(batches), steps, steps)
        losses.append(mean_loss(model, held_x, held_y))
        if losses[-1] < min(losses[:-1]):
            best, waited = model.get_weights(), 0
        else:
            waited += 1
        last = waited == options.patience or epoch + 1 == options.epochs
        progress(what, options.epochs if last else epoch + 1, options.epochs)
        if last:
            break
    model.set_weights(best)
    return TrainResult(model=model, losses=tuple(losses[1:]), strategy=type(strategy).__name__)


def copy_of(model: Any) -> Any:
    """The same layers and weights, made in the current strategy's scope: the `build` of fine-tuning."""
    copy = need("keras", extra="cloud").models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def accuracy(model: Any, x: np.ndarray, y: np.ndarray) -> float:
    """Share of samples, 0 to 1, whose largest output is the label."""
    return float(np.mean(np.argmax(predict(model, x), -1) == y))


def mean_loss(model: Any, x: np.ndarray, y: np.ndarray) -> float:
    """Mean cross entropy of the model's probabilities, in nats."""
    p = predict(model, x)[np.arange(len(y)), y]
    return float(np.mean(-np.log(np.maximum(p, 1e-7))))


def predict(model: Any, x: np.ndarray, batch: int = 1024) -> np.ndarray:
    """Outputs [n, classes] for `x` [n, ...]."""
    return np.concatenate([np.asarray(model(x[i : i + batch], training=False)) for i in range(0, len(x), batch)])


def _shuffled(x: np.ndarray, y: np.ndarray, options: TrainOptions) -> Any:
    tf = need("tensorflow", extra="cloud")
    batches = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(y), seed=options.seed)
    return batches.batch(options.batch, drop_remainder=True).prefetch(2)
