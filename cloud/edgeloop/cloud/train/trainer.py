"""A training from its config to a run folder."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from edgeloop.cloud.input.damage import named_damage
from edgeloop.cloud.train.checkpoints.checkpoints import check_empty, open_checkpoints
from edgeloop.cloud.train.cluster.cluster import Cluster, read_cluster
from edgeloop.cloud.train.cluster.lost_tasks import leave_together, lost_tasks_named
from edgeloop.cloud.train.cluster.preemption import asked_to_stop, stop_of
from edgeloop.cloud.train.config.train_config import TrainConfig
from edgeloop.cloud.train.config.write_config import to_toml
from edgeloop.cloud.train.prepare import prepare
from edgeloop.cloud.train.run.beat import Beat, no_beat
from edgeloop.cloud.train.run.budget import tasks_of
from edgeloop.cloud.train.run.run_folder import RunFolder, environment, holds_run, open_run
from edgeloop.cloud.train.run.run_result import RunResult, silence
from edgeloop.cloud.train.run.training import Training
from edgeloop.cloud.train.servers.servers import serve_cluster
from edgeloop.cloud.train.step.memory import lack_named
from edgeloop.cloud.train.step.optimizer import rate_rule
from edgeloop.cloud.train.study.learning_curve import earliest_as_good
from edgeloop.leftovers import temporary_folder
from edgeloop.progress import Progress, Say, silent


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

    Under TF_CONFIG every task but the evaluator calls it (that one: `evaluate_checkpoints`). The one that saves writes
    `out`, the others write to temporary folders; all of them see `out`, where the checkpoints are. A parameter server
    and its workers serve until their process is ended.

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
        folder.remove_result()
        prepared = prepare(config, cluster)
        asked.listen()
        name = prepared.choice.strategy.value
        say(f"Strategy {name}: {prepared.choice.reason}")
        rule = rate_rule(config.optimizer, prepared.replicas)
        for line in filter(None, (*prepared.notes, *prepared.engine.plan, rule)):
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
        with training.paused():
            folder.export(training.best_model())
        folder.write_labels(prepared.training.classes)
        notes = (*prepared.engine.plan, *prepared.engine.notes())
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
