"""Teachers and a training in, students out: each a run folder that `edgeloop convert` takes.

result/
  targets-1.npy            what the teachers say of each example, in round 1
  student-1/ ...           run folders; with several rounds in round-1/ ...
  student-1-fine-tuned/    the second stage: on the labels alone
  alone/                   the same student without teachers, to compare with
  ensemble.keras           the mean of several students
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.atomic import write_file
from edgeloop.cloud.train.config.train_config import TrainConfig, with_own_place
from edgeloop.cloud.train.data.data_config import plain_options
from edgeloop.cloud.train.distill.options import DistillConfig, DistillOptions
from edgeloop.cloud.train.distill.teachers import ask_teachers
from edgeloop.cloud.train.model.fitting import score_of
from edgeloop.cloud.train.run.run_folder import MODEL, save_keras
from edgeloop.cloud.train.run.run_result import RunResult, silence
from edgeloop.cloud.train.trainer import train_run
from edgeloop.errors import WriteError
from edgeloop.extras import need
from edgeloop.progress import Progress, Say, silent

FINE_TUNE_RATE = 0.1  # of the learning rate: the second stage corrects what the first one learned
ENSEMBLE = "ensemble.keras"


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """One model of a distillation.

    Attributes:
        name: `student-1`, `student-1-fine-tuned`, `alone` or `ensemble`, after the round where there are several.
        score: What `DistillResult.metric` names, of the examples held out.
        model: Its .keras file.
    """

    name: str
    score: float
    model: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillResult:
    """What a distillation came to; `model` is the best of the students and their mean."""

    out: Path
    metric: str
    students: tuple[Student, ...]
    alone: Student | None
    model: Path

    def to_json(self) -> dict[str, Any]:
        rows = [*self.students, *([self.alone] if self.alone else [])]
        return {
            "out": str(self.out),
            "metric": self.metric,
            "model": str(self.model),
            "students": [{"name": s.name, "score": s.score, "model": str(s.model)} for s in rows],
        }


def train_students(
    config: TrainConfig,
    out: Path,
    options: DistillOptions,
    progress: Progress = silent,
    say: Say = silence,
) -> DistillResult:
    """Train the student that `config` describes on its labels and on what the teachers say.

    Raises:
        WriteError: `out` is not empty, or cannot be written.
        ModelError, DataError, OptionsError, MissingExtra: As `ask_teachers` and `train_run`.
    """
    if out.exists() and any(out.iterdir()):
        raise WriteError(f"{out} is not empty", advice="Name a new folder.")
    out.mkdir(parents=True, exist_ok=True)
    # one split for all students: each is judged by examples that none of them trained on
    split = config.loop.seed if config.data.split_seed is None else config.data.split_seed
    config = replace(config, data=replace(config.data, split_seed=split))
    teachers = options.teachers
    students: list[Student] = []
    metric = ""
    for number in range(1, options.iterations + 1):
        prefix = "" if options.iterations == 1 else f"round-{number}/"
        say(f"Round {number} of {options.iterations}: ask {', '.join(path.name for path in teachers)}")
        targets = ask_teachers(teachers, plain_options(config.data), options.temperature, progress)
        lesson = DistillConfig(
            targets=_save(targets, out / f"targets-{number}.npy"), temperature=options.temperature, alpha=options.alpha
        )
        runs = [
            _student(
                replace(config, distill=lesson, loop=replace(config.loop, seed=config.loop.seed + k)),
                out,
                f"{prefix}student-{k + 1}",
                options,
                progress,
                say,
            )
            for k in range(options.students)
        ]
        metric = runs[0][-1].metric
        last = [_as_student(run, out) for run in (stages[-1] for stages in runs)]
        students += [_as_student(run, out) for stages in runs for run in stages]
        if options.students > 1:
            last = [_ensemble(last, config, out / prefix, out)]
            students += last
        teachers = tuple(student.model for student in last)
    alone = None
    if options.compare:
        own = with_own_place(config, "alone")
        alone = _as_student(train_run(own, out / "alone", progress=progress, say=say), out)
    better = min if metric.endswith("error") else max
    best = better(students, key=lambda student: student.score)
    return DistillResult(out=out, metric=metric, students=tuple(students), alone=alone, model=best.model)


def _student(
    config: TrainConfig, top: Path, name: str, options: DistillOptions, progress: Progress, say: Say
) -> tuple[RunResult, ...]:
    """The runs of one student in the folder `top`, one for each stage."""
    out = top / name
    out.parent.mkdir(parents=True, exist_ok=True)
    first = train_run(with_own_place(config, name), out, progress=progress, say=say)
    if not options.fine_tune:
        return (first,)
    rate = config.optimizer.learning_rate * FINE_TUNE_RATE
    second = replace(
        config,
        distill=DistillConfig(),
        model=replace(config.model, name=str(first.model), options={}, weights=None, warm_start=None),
        optimizer=replace(config.optimizer, learning_rate=rate),
        loop=replace(config.loop, epochs=options.fine_tune),
    )
    tuned = f"{name}-fine-tuned"
    return first, train_run(with_own_place(second, tuned), top / tuned, progress=progress, say=say)


def _as_student(run: RunResult, out: Path) -> Student:
    return Student(name=str(run.out.relative_to(out)), score=run.best.score, model=run.out / MODEL)


def _ensemble(students: list[Student], config: TrainConfig, folder: Path, out: Path) -> Student:
    """The mean of the students' outputs as one model, and its score on the examples held out."""
    keras = need("keras", extra="cloud")
    models = [keras.saving.load_model(student.model, compile=False) for student in students]
    for number, model in enumerate(models, 1):
        model.name = f"student_{number}"
    inputs = [keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name) for t in models[0].inputs]
    given = inputs if len(inputs) > 1 else inputs[0]
    mean = keras.Model(given, keras.layers.Average()([model(given) for model in models]), name="ensemble")
    save_keras(mean, folder / ENSEMBLE)
    name = str((folder / ENSEMBLE).relative_to(out).with_suffix(""))
    return Student(name=name, score=score_of(mean, config), model=folder / ENSEMBLE)


def _save(targets: np.ndarray, file: Path) -> Path:
    packed = io.BytesIO()
    np.save(packed, targets)
    write_file(file, packed.getvalue())
    return file
