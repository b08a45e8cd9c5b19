"""The process that holds TensorFlow: weights of a round in, the Keras model out, trained further or as it is."""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeloop.cloud.train.cluster.launching import parse_tasks
from edgeloop.cloud.train.cluster.task import launch_run
from edgeloop.cloud.train.config.read_config import read_config
from edgeloop.cloud.train.config.tables import ModelConfig
from edgeloop.cloud.train.config.train_config import TrainConfig, with_own_place
from edgeloop.cloud.train.distill.distill import train_students
from edgeloop.cloud.train.distill.options import DistillOptions
from edgeloop.cloud.train.model.models import open_keras
from edgeloop.cloud.train.model.warm_start import warm_start
from edgeloop.cloud.train.run.run_folder import MODEL, save_keras
from edgeloop.cloud.train.run.run_result import RunResult
from edgeloop.cloud.train.strategies.strategies import CLUSTERED
from edgeloop.cloud.train.trainer import train_run
from edgeloop.errors import OptionsError
from edgeloop.extras import need
from edgeloop.federated.fold_back.jobs import TrainingJob
from edgeloop.processes.job_child import Events, serve

RUN, STUDENTS, TEACHERS = "train", "distill", "teachers"  # in the place of a job


def work(job: TrainingJob, events: Events) -> dict[str, Any]:
    """See `TrainingJob`."""
    sys.path += [path for path in job.python_path if path not in sys.path]
    if job.weights is None:
        return _check(job)
    events.read()  # the model is the user's own, and what takes long is its training
    if job.options.train is None:
        return {"model": str(job.place / MODEL), "told": [_with_weights(job, job.weights, job.place / MODEL)]}
    config = with_own_place(_config(job, job.options.train), job.place.name)
    if job.teachers:
        return _distilled(job, config, events)
    if job.options.launch is None:
        result = train_run(config, job.place / RUN, say=events.say)
    else:
        result = launch_run(config, job.place / RUN, job.options.launch, progress=events.progress, say=events.say)
    return {"model": str(result.model), "told": [_told(result)]}


def _check(job: TrainingJob) -> dict[str, Any]:
    """Whether a training can begin, without TensorFlow."""
    for module in ("tensorflow", "keras"):
        if importlib.util.find_spec(module) is None:
            need(module, extra="cloud")
    if job.options.train is None:
        return {}
    config = _config(job, job.options.train)
    if job.options.launch is not None:
        parse_tasks(job.options.launch)
    elif config.strategy.name in CLUSTERED:
        raise OptionsError(
            f"{job.options.train} has the strategy {config.strategy.name.value}, which needs several processes",
            advice='Add [cloud] launch, e.g. "2" or "ps=2,worker=2".',
        )
    if job.options.distill and config.distill.targets is not None:
        raise OptionsError(
            f"{job.options.train} has [distill] targets, and [cloud] distill makes them of device models",
            advice="Leave one of them out.",
        )
    return {}


def _config(job: TrainingJob, train: Path) -> TrainConfig:
    """The training of train.toml, of this model and from these weights."""
    return replace(read_config(train), model=ModelConfig(name=str(job.keras), warm_start=job.weights))


def _distilled(job: TrainingJob, config: TrainConfig, events: Events) -> dict[str, Any]:
    """The model taught by the mean of device models on the data of its training."""
    teachers = tuple(job.place / TEACHERS / f"{k}.keras" for k in range(len(job.teachers)))
    for weights, file in zip(job.teachers, teachers, strict=True):
        _with_weights(job, weights, file)
    options = DistillOptions(teachers=teachers, temperature=config.distill.temperature, alpha=config.distill.alpha)
    result = train_students(config, job.place / STUDENTS, options, say=events.say)
    best = result.students[-1]
    told = f"Taught by {len(teachers)} device models: {result.metric} {best.score:.4g} on examples held out."
    return {"model": str(result.model), "told": [told]}


def _with_weights(job: TrainingJob, weights: Path, file: Path) -> str:
    model = open_keras(job.keras)
    told = warm_start(model, weights)
    save_keras(model, file)
    return told


def _told(result: RunResult) -> str:
    score = f"{result.metric.replace('_', ' ')} {result.best.score:.4g} on {result.judged_on} examples held out"
    return f"Trained on under {result.strategy}, {len(result.epochs)} epochs; the best is {result.best_epoch}: {score}."


if __name__ == "__main__":
    os.environ.pop("TF_CONFIG", None)  # this process is no task of a cluster, whatever its parent is
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    serve(work)
