"""The evaluator of a cluster: a task that measures every new checkpoint while the others go on training."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from edgeloop.cloud.train.checkpoints.checkpoints import open_checkpoints
from edgeloop.cloud.train.config.train_config import TrainConfig
from edgeloop.cloud.train.data.training_data import training_and_validation, validation_batches
from edgeloop.cloud.train.model.fitting import fitting_model, fitting_objective
from edgeloop.cloud.train.run.beat import Beat
from edgeloop.cloud.train.run.run_folder import RESULT
from edgeloop.cloud.train.servers.partitioned import model_values
from edgeloop.cloud.train.step.evaluation import evaluation_here
from edgeloop.disk_errors import writing
from edgeloop.errors import DeviceError, IntegrityError
from edgeloop.progress import Say

EVALUATIONS = "evaluations.jsonl"
LOOK_S = 0.1
LONGEST_WAIT_S = 24 * 3600.0  # an epoch may take hours
TICK_S = 0.01  # the time of a file is that of the last tick of the kernel's clock


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRecord:
    """One line of evaluations.jsonl: what the model of a checkpoint came to on the validation data."""

    step: int
    loss: float
    score: float
    metric: str
    examples: int


def evaluate_checkpoints(config: TrainConfig, out: Path, say: Say, beat: Beat) -> list[EvaluationRecord]:
    """Measure each new checkpoint of the run in `out` until the run has its result; one line of evaluations.jsonl each.

    A checkpoint that is removed before its turn is left out; the last one never is.

    Raises:
        DataError: The validation data cannot be read.
        DeviceError: For a whole day neither a checkpoint nor the result came.
    """
    began = time.time() - TICK_S  # a run may end while the data and the model are loaded
    training, validation = training_and_validation(config.data, config.pipeline, config.loop.seed)
    model = fitting_model(config, training)
    objective = fitting_objective(config, model, training)
    evaluate = evaluation_here(model, objective)
    values = model_values(model)
    checkpoints = open_checkpoints(config.checkpoints, out, say, writes=False)
    records = read_evaluations(out)
    seen, changed = "", time.monotonic()
    while True:
        ended = _has_result(out, began, config.strategy.start_timeout_s)
        name = checkpoints.place.latest()
        if name not in ("", seen):
            seen, changed = name, time.monotonic()
            try:
                restored = checkpoints.restore(values, partial=True)
            except (IntegrityError, OSError):
                if checkpoints.place.latest() == name:
                    raise
                continue  # it was removed meanwhile, for there are newer ones
            if restored is not None and restored.step not in {record.step for record in records}:
                found = evaluate(validation_batches(validation, config.pipeline))
                records.append(EvaluationRecord(step=restored.step, metric=objective.metric, **asdict(found)))
                with writing(out / EVALUATIONS), (out / EVALUATIONS).open("a") as file:
                    file.write(json.dumps(asdict(records[-1])) + "\n")
                beat(restored.step)
        elif ended:
            return records
        if time.monotonic() - changed > LONGEST_WAIT_S:
            raise DeviceError(
                f"no checkpoint came to {out} for {LONGEST_WAIT_S / 3600:g} hours",
                advice="Look whether the other tasks train, and whether all tasks see the same run folder.",
            )
        time.sleep(LOOK_S)


def _has_result(out: Path, began: float, start_timeout_s: float) -> bool:
    """Whether the run has come to its end. A result that was there before is that of an earlier training, which the
    others may go on with: they remove it within the time in which tasks have to start."""
    try:
        written = (out / RESULT).stat().st_mtime
    except FileNotFoundError:
        return False
    return written >= began or time.time() - began > start_timeout_s


def read_evaluations(out: Path) -> list[EvaluationRecord]:
    """What the evaluator of a run wrote, the oldest first."""
    file = out / EVALUATIONS
    lines = file.read_text().splitlines() if file.is_file() else []
    return [EvaluationRecord(**json.loads(line)) for line in lines]
