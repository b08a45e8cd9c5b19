"""The epochs of a training, from its first step or from a checkpoint on, to the last one or a reason to stop."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.cloud.input.user_function import function_of
from edgeloop.cloud.train.checkpoints.checkpoint_files import snapshot
from edgeloop.cloud.train.checkpoints.checkpoints import Checkpoints
from edgeloop.cloud.train.cluster.preemption import Stop
from edgeloop.cloud.train.config.train_config import TrainConfig
from edgeloop.cloud.train.model.models import load_weights
from edgeloop.cloud.train.prepare import Prepared
from edgeloop.cloud.train.run.beat import Beat, beating
from edgeloop.cloud.train.run.budget import agreed, reason_to_stop, tasks_of
from edgeloop.cloud.train.run.epoch_record import EpochRecord, epoch_line
from edgeloop.cloud.train.run.nonfinite import all_finite, host_copy, not_finite, put_back
from edgeloop.cloud.train.run.run_folder import MODEL, RunFolder
from edgeloop.cloud.train.run.state import State
from edgeloop.cloud.train.step.optimizer import current_rate
from edgeloop.cloud.train.strategies.strategies import Strategy
from edgeloop.errors import ModelError
from edgeloop.progress import Progress, Say


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
        self.values = prepared.engine.state()
        self.best = prepared.engine.model_here().get_weights()
        self.stopped = f"All {config.loop.epochs} epochs are done."
        self.callbacks = [function_of(name) for name in config.callbacks.epoch]
        self.interval = config.checkpoints.spacing
        self.begin = (
            host_copy(self.values) if prepared.engine.repeatable else {}
        )  # what is good before the first checkpoint

    @property
    def step(self) -> int:
        """Steps that are done."""
        return self.state.epoch * self.prepared.steps + self.state.done

    def restore(self) -> None:
        """Go on after the newest checkpoint, where there is one.

        Raises:
            IntegrityError: None is whole, or they are of another model or optimizer.
        """
        with self.paused():
            restored = self.checkpoints.restore(self.values)
        if restored is None:
            self.folder.cut_metrics(0)
            return
        self.prepared.engine.spread()
        self.state, self.begin = State(**restored.state), {}
        lines = RunFolder(self.out).metrics()
        self.folder.cut_metrics(self.state.epoch)
        self.records = [EpochRecord(**line) for line in lines if line["epoch"] <= self.state.epoch]
        if self.state.best_epoch:
            with self.paused():
                self.best = self._weights_of_best()
        self.say(f"Training goes on after step {restored.step}.")

    def run(self) -> None:
        """Train the epochs that are left.

        Raises:
            KeyboardInterrupt: `stop` said so; a checkpoint of the last step is kept.
        """
        while self.state.epoch < self.config.loop.epochs and not self._ends_early():
            self._read_clock()
            if not self.state.done:
                self.state.epoch_began_s = self.state.spent_s
            record = self._epoch(self.state.epoch + 1)
            self.records.append(record)
            self.folder.append_metrics(asdict(record))
            better = self.state.best_loss is None or record.validation_loss < self.state.best_loss
            if better:
                with self.paused():
                    model = self.prepared.engine.model_here()
                    self.best = model.get_weights()
                    self.folder.save_model(model)
            self._read_clock()
            self.state = self.state.epoch_done(better, record.validation_loss)
            self._save()
            self.say(epoch_line(record, self.config.loop.epochs, self.prepared.objective.metric))
            for callback in self.callbacks:
                with self.paused():
                    callback(record, self.prepared.model)
            self._read_clock()
            self.state.longest_s = max(self.state.longest_s, self.state.spent_s - self.state.epoch_began_s)

    def paused(self) -> AbstractContextManager[None]:
        """A block that takes no step: whoever supervises the training waits `pause_timeout_s` for it."""
        return beating(self.beat, self.step, self.config.strategy.pause_timeout_s)

    def best_model(self) -> Any:
        """The model of this process, with the weights of the best epoch."""
        model = self.prepared.engine.model_here()
        model.set_weights(self.best)
        return model

    def _weights_of_best(self) -> list[np.ndarray]:
        """Read into the model of this process: its architecture may have code of the user, which no file holds."""
        kept = snapshot(self.values)
        model = self.prepared.engine.model_here()
        load_weights(model, self.out / MODEL)
        found = model.get_weights()
        for part, value in kept:
            part.variable.assign(value)
        return found

    def _ends_early(self) -> bool:
        """Whether training ends before its last epoch; `stopped` then says why."""
        patience = self.config.loop.patience
        if patience and self.state.epoch - self.state.best_epoch >= patience:
            self.stopped = f"The validation loss has not become lower for {patience} epochs."
            return True
        if not self.config.budget.limits or not self.records:
            return False
        cluster, strategy = self.prepared.place.cluster, self.config.strategy
        wait_s = strategy.hang_timeout_s + strategy.pause_timeout_s  # the task that saves may still do so
        reason = reason_to_stop(
            self.config.budget,
            tasks_of(cluster),
            agreed(cluster, self.state.epoch, (self.state.spent_s, self.state.longest_s), wait_s),
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
        prepared.engine.collect()
        found = prepared.engine.evaluate(self._beating(prepared.engine.validation_batches()))
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

        figures = self.prepared.engine.run(batches, count, epoch, told, lambda done: self.stop.after(before + done))
        if not np.isfinite(figures.losses).all():
            step = before + int(np.flatnonzero(~np.isfinite(figures.losses))[0]) + 1
            raise self._not_finite(f"the loss is {figures.losses[step - before - 1]}", step)
        state.done += len(figures.losses)
        state.loss += float(figures.losses.sum(dtype=np.float64))
        state.seconds += time.perf_counter() - began
        state.waited_s += figures.waited_s
        if self.stop.after(self.step):
            self._save()
            with self.paused():
                self.checkpoints.wait()
            self.say(f"Training was asked to end: the checkpoint of step {self.step} is kept. --resume goes on.")
            raise KeyboardInterrupt

    def _not_finite(self, what: str, step: int) -> ModelError:
        """`what` was found at `step`. Steps that repeat are looked at, from the last good values on."""
        with self.paused():
            good = 0
            if self.begin:
                put_back(self.values, self.begin)
            elif self.prepared.engine.repeatable:
                restored = self.checkpoints.restore(self.values)
                good = restored.step if restored else 0
            else:
                good = self.checkpoints.newest_step()
            return not_finite(self.prepared, what, good, step, self.out, self.state.best_epoch > 0)

    def _read_clock(self) -> None:
        now = time.monotonic()
        self.state.spent_s, self.looked = self.state.spent_s + now - self.looked, now

    def _save(self) -> None:
        self._read_clock()
        self.prepared.engine.collect()
        if self.prepared.choice.strategy != Strategy.PARAMETER_SERVER and not all_finite(self.values):
            raise self._not_finite("a weight is not finite", self.step)
        self.begin = {}
        with self.paused():
            self.checkpoints.save(self.step, self.values, asdict(self.state))
            if not self.interval:
                self.checkpoints.wait()
