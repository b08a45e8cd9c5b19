"""A training from its config to a run folder, and from arrays to a model.

The loop is our own because `fit` of Keras 3 fails under MultiWorkerMirrored and ParameterServer (TF 2.21), while one
step function under `strategy.run` serves them all.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.cloud.train.checkpoints import restore_state, save_state, state_variables
from edgeloop.cloud.train.cluster import Cluster, read_cluster
from edgeloop.cloud.train.config import Loss, MemoryConfig, StrategyConfig, TrainConfig, to_toml
from edgeloop.cloud.train.loop import distributed, run_steps
from edgeloop.cloud.train.models import function_of
from edgeloop.cloud.train.objective import make_objective
from edgeloop.cloud.train.optimizer import rate_rule
from edgeloop.cloud.train.prepare import Prepared, prepare, where
from edgeloop.cloud.train.run_folder import LOGS, MODEL, SAVED_MODEL, STATE, RunFolder, environment, open_run
from edgeloop.cloud.train.step import gradient_step, traced_steps
from edgeloop.cloud.train.strategies import make_strategy
from edgeloop.errors import DataError, ModelError, OptionsError
from edgeloop.extras import need
from edgeloop.progress import Progress, Say, silent

WAITS = 0.3  # share of the time that a training may wait for its input before it is called bound by it


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
    """One line of metrics.jsonl.

    Attributes:
        step: Steps done since the training began.
        score: What `RunResult.metric` names, of the validation data.
        waited_share: Share of the time that steps waited for their batches, 0 to 1.
    """

    epoch: int
    step: int
    loss: float
    validation_loss: float
    score: float
    learning_rate: float
    seconds: float
    examples_per_s: float
    waited_share: float

    @property
    def bound(self) -> str:
        return "input" if self.waited_share >= WAITS else "compute"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What a training came to.

    Attributes:
        reason: Which rule chose the strategy.
        stopped: Why it ended.
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
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> EpochRecord:
        return self.epochs[self.best_epoch - 1]

    @property
    def model(self) -> Path:
        return self.out / MODEL

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "out": str(self.out),
            "model": str(self.model),
            "saved_model": str(self.out / SAVED_MODEL),
            "logs": str(self.out / LOGS),
            "bound": self.epochs[-1].bound,
        }


@dataclass(slots=True)
class _State:
    """How far a training came; lies in the state folder."""

    epoch: int = 0
    best_epoch: int = 0
    best_loss: float = math.inf


def silence(line: str) -> None:
    """The `say` of a caller who does not listen."""


def train_run(
    config: TrainConfig, out: Path, *, resume: bool = False, progress: Progress = silent, say: Say = silence
) -> RunResult:
    """Train what `config` says into the run folder `out`; the same config gives the same weights on one device.

    Under TF_CONFIG every task calls it; the one that saves writes `out`, the others write to temporary folders.

    Args:
        resume: Continue the run in `out` after its last whole epoch.
        say: Told which rule chose the strategy, and a line for every epoch.

    Raises:
        DataError: The data cannot be read, its labels or shapes do not fit the model, or there is nothing to resume.
        OptionsError: Options that contradict the data, the machine, TF_CONFIG or each other.
        ModelError: The model cannot be built or read, or its loss is not finite.
        TargetError: The strategy is tpu and there is none.
        WriteError: The run folder is in use, holds a run already, or cannot be written.
        MissingExtra: TensorFlow is not installed.
    """
    cluster = read_cluster()
    with _folder(out, cluster, resume) as folder:
        prepared = prepare(config, cluster)
        name = prepared.choice.strategy.value
        say(f"Strategy {name}: {prepared.choice.reason}")
        rule = rate_rule(config.optimizer, prepared.replicas)
        if rule:
            say(rule)
        folder.write_config(
            to_toml(config), environment(name, prepared.replicas, prepared.place.devices, config.loop.seed)
        )
        result = _epochs(config, prepared, folder, resume, progress, say)
        folder.export(prepared.model)
        result = replace(result, out=out, notes=(rule,) if rule else ())
        folder.write_result(result.to_json())
        return result


@contextlib.contextmanager
def _folder(out: Path, cluster: Cluster | None, resume: bool) -> Iterator[RunFolder]:
    """The run folder, or a temporary one for a task that does not save."""
    if cluster is None or cluster.saves:
        with open_run(out, resume=resume) as folder:
            yield folder
        return
    with tempfile.TemporaryDirectory(prefix="edgeloop-") as temporary:
        yield RunFolder(Path(temporary))


def _epochs(
    config: TrainConfig, prepared: Prepared, folder: RunFolder, resume: bool, progress: Progress, say: Say
) -> RunResult:
    callbacks = [function_of(name) for name in config.callbacks.epoch]
    variables, state, records = state_variables(prepared.model, prepared.optimizer), _State(), list[EpochRecord]()
    best = prepared.model.get_weights()
    if resume:
        state = _State(**restore_state(folder.path / STATE, variables))
        folder.cut_metrics(state.epoch)
        records = [EpochRecord(**line) for line in folder.metrics()]
        best = need("keras", extra="cloud").saving.load_model(folder.path / MODEL, compile=False).get_weights()
    stopped = f"All {config.loop.epochs} epochs are done."
    while state.epoch < config.loop.epochs:
        record = _epoch(config, prepared, state.epoch + 1, progress)
        state.epoch = record.epoch
        records.append(record)
        folder.append_metrics(asdict(record))
        if record.validation_loss < state.best_loss:
            state.best_epoch, state.best_loss, best = record.epoch, record.validation_loss, prepared.model.get_weights()
            folder.save_model(prepared.model)
        save_state(folder.path / STATE, variables, asdict(state))
        say(_line(record, config.loop.epochs, prepared.objective.metric))
        for callback in callbacks:
            callback(record, prepared.model)
        if config.loop.patience and state.epoch - state.best_epoch >= config.loop.patience:
            stopped = f"The validation loss has not become lower for {config.loop.patience} epochs."
            break
    prepared.model.set_weights(best)
    return RunResult(
        out=folder.path,
        strategy=prepared.choice.strategy.value,
        reason=prepared.choice.reason,
        replicas=prepared.replicas,
        batch=prepared.batch,
        metric=prepared.objective.metric,
        epochs=tuple(records),
        best_epoch=state.best_epoch,
        stopped=stopped,
    )


def _epoch(config: TrainConfig, prepared: Prepared, epoch: int, progress: Progress) -> EpochRecord:
    total, before = prepared.steps * config.loop.epochs, prepared.steps * (epoch - 1)

    def told(done: int, loss: float) -> None:
        progress("train", before + done, total)

    began = time.perf_counter()
    figures = run_steps(prepared.step, prepared.epoch_batches(epoch), prepared.steps, config.loop.steps_per_call, told)
    if not np.isfinite(figures.losses).all():
        step = before + int(np.flatnonzero(~np.isfinite(figures.losses))[0]) + 1
        raise ModelError(
            f"the loss is not finite at step {step} (epoch {epoch})", advice="Lower [optimizer] learning-rate."
        )
    seconds = time.perf_counter() - began
    found = prepared.evaluate(prepared.validation_batches())
    return EpochRecord(
        epoch=epoch,
        step=before + prepared.steps,
        loss=float(figures.losses.mean()),
        validation_loss=found.loss,
        score=found.score,
        learning_rate=float(prepared.optimizer.learning_rate),
        seconds=seconds,
        examples_per_s=prepared.steps * prepared.batch / seconds,
        waited_share=min(1.0, figures.waited_s / seconds),
    )


def _line(record: EpochRecord, epochs: int, metric: str) -> str:
    left_s = record.seconds * (epochs - record.epoch)
    score = f"{record.score:.1%}" if metric == "accuracy" else f"{record.score:.4g}"
    return (
        f"Epoch {record.epoch} of {epochs}: loss {record.loss:.4f}, validation loss {record.validation_loss:.4f}, "
        f"{metric.replace('_', ' ')} {score}, {record.examples_per_s:,.0f} examples/s, "
        f"{record.waited_share:.0%} of the time waiting for input, at most {left_s:.0f} s left."
    )


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
