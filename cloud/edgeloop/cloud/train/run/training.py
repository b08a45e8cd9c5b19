"""The epochs of a training, from its first step or from a checkpoint on, to the last one or a reason to stop."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.cloud.input.user_function import function_of
from edgeloop.cloud.train.checkpoints.checkpoints import Checkpoints
from edgeloop.cloud.train.cluster.preemption import Stop
from edgeloop.cloud.train.config.train_config import TrainConfig
from edgeloop.cloud.train.prepare import Prepared
from edgeloop.cloud.train.run.beat import Beat
from edgeloop.cloud.train.run.budget import agreed, reason_to_stop, tasks_of
from edgeloop.cloud.train.run.epoch_record import EpochRecord, epoch_line
from edgeloop.cloud.train.run.nonfinite import all_finite, find_origin, host_copy, put_back
from edgeloop.cloud.train.run.run_folder import MODEL, RunFolder
from edgeloop.cloud.train.step.optimizer import current_rate
from edgeloop.errors import ModelError
from edgeloop.extras import need
from edgeloop.progress import Progress, Say


@dataclass(slots=True)
class State:
    """How far a training came; a checkpoint holds it.

    Attributes:
        epoch: Epochs that are done.
        best_loss: None: there is no best epoch yet.
        done: Steps of the epoch that is under way; loss (their sum), seconds and waited_s are of these.
        spent_s: By the clock, of all attempts: validation and saving too.
        longest_s: The same of the longest epoch.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_loss: float | None = None
    done: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    waited_s: float = 0.0
    spent_s: float = 0.0
    longest_s: float = 0.0


class Training:
    """A training that was prepared; `run` does what is left of it.

    Args:
        folder: Where this task writes. `out`: the run folder, where the first task of a cluster does.
        began: When the training was asked for, by `time.monotonic`.
    """

    def __init__(
        self,
        config: TrainConfig,
        prepared: Prepared,
        folder: RunFolder,
        out: Path,
        checkpoints: Checkpoints,
        stop: Stop,
        progress: Progress,
        say: Say,
        beat: Beat,
        began: float,
    ) -> None:
        self.config, self.prepared, self.folder, self.out = config, prepared, folder, out
        self.checkpoints, self.stop, self.progress, self.say, self.beat = checkpoints, stop, progress, say, beat
        self.state, self.records = State(), list[EpochRecord]()
        self.looked = began  # when the clock of `spent_s` was last read
        self.values = prepared.state()
        self.best = prepared.model_here().get_weights()
        self.stopped = f"All {config.loop.epochs} epochs are done."
        self.callbacks = [function_of(name) for name in config.callbacks.epoch]
        self.interval = config.checkpoints.spacing
        self.begin = {} if prepared.coordinator else host_copy(self.values)  # what is good before the first checkpoint

    @property
    def step(self) -> int:
        """Steps that are done."""
        return self.state.epoch * self.prepared.steps + self.state.done

    def restore(self) -> None:
        """Go on after the newest checkpoint, where there is one.

        Raises:
            IntegrityError: None is whole, or they are of another model or optimizer.
        """
        restored = self.checkpoints.restore(self.values)
        if restored is None:
            self.folder.cut_metrics(0)
            return
        self.state, self.begin = State(**restored.state), {}
        lines = RunFolder(self.out).metrics()
        self.folder.cut_metrics(self.state.epoch)
        self.records = [EpochRecord(**line) for line in lines if line["epoch"] <= self.state.epoch]
        if self.state.best_epoch:
            load = need("keras", extra="cloud").saving.load_model
            self.best = load(self.out / MODEL, compile=False).get_weights()
        self.say(f"Training goes on after step {restored.step}.")

    def run(self) -> None:
        """Train the epochs that are left.

        Raises:
            KeyboardInterrupt: `stop` said so; a checkpoint of the last step is kept.
        """
        while self.state.epoch < self.config.loop.epochs and not self._ends_early():
            self._read_clock()
            before_s = self.state.spent_s
            record = self._epoch(self.state.epoch + 1)
            self.records.append(record)
            self.folder.append_metrics(asdict(record))
            better = self.state.best_loss is None or record.validation_loss < self.state.best_loss
            if better:
                model = self.prepared.model_here()
                self.best = model.get_weights()
                self.folder.save_model(model)
                self.beat(self.step)
            best = (record.epoch, record.validation_loss) if better else (self.state.best_epoch, self.state.best_loss)
            self.state = replace(
                self.state,
                epoch=record.epoch,
                best_epoch=best[0],
                best_loss=best[1],
                done=0,
                loss=0.0,
                seconds=0.0,
                waited_s=0.0,
            )
            self._save()
            self.say(epoch_line(record, self.config.loop.epochs, self.prepared.objective.metric))
            for callback in self.callbacks:
                callback(record, self.prepared.model)
                self.beat(self.step)
            self._read_clock()
            self.state.longest_s = max(self.state.longest_s, self.state.spent_s - before_s)

    def best_model(self) -> Any:
        """The model of this process, with the weights of the best epoch."""
        model = self.prepared.model_here()
        model.set_weights(self.best)
        return model

    def _ends_early(self) -> bool:
        """Whether training ends before its last epoch; `stopped` then says why."""
        patience = self.config.loop.patience
        if patience and self.state.epoch - self.state.best_epoch >= patience:
            self.stopped = f"The validation loss has not become lower for {patience} epochs."
            return True
        if not self.config.budget.limits or not self.records:
            return False
        cluster, hang_timeout_s = self.prepared.place.cluster, self.config.strategy.hang_timeout_s
        reason = reason_to_stop(
            self.config.budget,
            tasks_of(cluster),
            agreed(cluster, self.state.epoch, (self.state.spent_s, self.state.longest_s), hang_timeout_s),
            [record.validation_loss for record in self.records],
            [record.score for record in self.records],
            self.prepared.objective.metric,
            self.config.loop.epochs,
        )
        self.stopped = reason or self.stopped
        return bool(reason)

    def _epoch(self, epoch: int) -> EpochRecord:
        prepared, state = self.prepared, self.state
        batches = prepared.epoch_batches(epoch, state.done)
        while state.done < prepared.steps:
            self._steps(batches, epoch)
            if state.done < prepared.steps and self.interval and self.step % self.interval == 0:
                self._save()
        self.beat(self.step)
        prepared.share_statistics()
        found = prepared.evaluate(self._beating(prepared.validation_batches()))
        if not np.isfinite(found.loss):
            raise self._not_finite(f"the validation loss is {found.loss}", self.step)
        return EpochRecord(
            epoch=epoch,
            step=self.step,
            loss=state.loss / prepared.steps,
            validation_loss=found.loss,
            score=found.score,
            learning_rate=current_rate(prepared.optimizer),
            seconds=state.seconds,
            examples_per_s=prepared.steps * prepared.batch / state.seconds,
            waited_share=min(1.0, state.waited_s / state.seconds),
        )

    def _beating(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The same batches, with a sign of life for each."""
        for batch in batches:
            self.beat(self.step)
            yield batch

    def _steps(self, batches: Any, epoch: int) -> None:
        """Up to the next checkpoint, or the end of the epoch."""
        state, before, began = self.state, self.step, time.perf_counter()
        count = self.prepared.steps - state.done
        if self.interval:
            count = min(count, self.interval - before % self.interval)
        total = self.prepared.steps * self.config.loop.epochs

        def told(done: int, loss: float) -> None:
            self.progress("train", before + done, total)
            self.beat(before + done)

        figures = self.prepared.run(batches, count, epoch, told, lambda done: self.stop.after(before + done))
        if not np.isfinite(figures.losses).all():
            step = before + int(np.flatnonzero(~np.isfinite(figures.losses))[0]) + 1
            raise self._not_finite(f"the loss is {figures.losses[step - before - 1]}", step)
        state.done += len(figures.losses)
        state.loss += float(figures.losses.sum(dtype=np.float64))
        state.seconds += time.perf_counter() - began
        state.waited_s += figures.waited_s
        if self.stop.after(self.step):
            self._save()
            self.checkpoints.wait()
            self.say(f"Training was asked to end: the checkpoint of step {self.step} is kept. --resume goes on.")
            raise KeyboardInterrupt

    def _not_finite(self, what: str, step: int) -> ModelError:
        """`what` was found at `step`. The last good values are put back, and the steps since are looked at."""
        good = 0
        if self.begin:
            put_back(self.values, self.begin)
        else:
            restored = self.checkpoints.restore(self.values)
            good = restored.step if restored else 0
        origin = None if self.prepared.coordinator else find_origin(self.prepared, good, step)
        place = f" at step {step} (epoch {(step - 1) // self.prepared.steps + 1})"
        began = "" if origin is None else f", and it began at step {origin.step} in {origin.what}"
        kept = f" The state of step {good} and the model of the best epoch are kept in {self.out}." if good else ""
        return ModelError(
            what + place + began,
            advice=f"Lower [optimizer] learning-rate, or set its options.clipnorm = 1.0, in a new run.{kept}",
        )

    def _read_clock(self) -> None:
        now = time.monotonic()
        self.state.spent_s, self.looked = self.state.spent_s + now - self.looked, now

    def _save(self) -> None:
        self._read_clock()
        self.prepared.share_statistics()
        if self.prepared.coordinator is None and not all_finite(self.values):
            raise self._not_finite("a weight is not finite", self.step)
        self.begin = {}
        self.beat(self.step)
        self.checkpoints.save(self.step, self.values, asdict(self.state))
        if not self.interval:
            self.checkpoints.wait()
        self.beat(self.step)
