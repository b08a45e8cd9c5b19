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
from edgeloop.progress import Say

EVALUATIONS = "evaluations.jsonl"
LOOK_S = 0.1


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

    A checkpoint that is removed before its turn is left out; the last one never is. The wait for a checkpoint has no
    bound of its own: the supervisor ends this task with the others.

    Raises:
        DataError: The validation data cannot be read.
    """
    began = time.time()  # a run may end while the data and the model are loaded
    training, validation = training_and_validation(config.data, config.pipeline, config.loop.seed)
    model = fitting_model(config, training)
    objective = fitting_objective(config, model, training)
    evaluate = evaluation_here(model, objective)
    values = model_values(model)
    checkpoints = open_checkpoints(config.checkpoints, out, say, writes=False)
    records = read_evaluations(out)
    seen = ""
    while True:
        ended = (out / RESULT).is_file() and (out / RESULT).stat().st_mtime >= began
        name = checkpoints.place.latest()
        if name not in ("", seen):
            seen = name
            restored = checkpoints.restore(values, partial=True)
            if restored is not None and restored.step not in {record.step for record in records}:
                found = evaluate(validation_batches(validation, config.pipeline))
                records.append(EvaluationRecord(step=restored.step, metric=objective.metric, **asdict(found)))
                with (out / EVALUATIONS).open("a") as file:
                    file.write(json.dumps(asdict(records[-1])) + "\n")
                beat(restored.step)
        elif ended:
            return records
        time.sleep(LOOK_S)


def read_evaluations(out: Path) -> list[EvaluationRecord]:
    """What the evaluator of a run wrote, the oldest first."""
    file = out / EVALUATIONS
    lines = file.read_text().splitlines() if file.is_file() else []
    return [EvaluationRecord(**json.loads(line)) for line in lines]
