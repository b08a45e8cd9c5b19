"""Teachers and examples in, soft targets out. Each teacher runs in a limited child process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeloop.cloud.input.options import DataOptions
from edgeloop.cloud.train.distill.targets import soft_targets
from edgeloop.cloud.train.run.run_folder import CONFIG, MODEL
from edgeloop.convert.same.runnable import compared_file
from edgeloop.leftovers import temporary_folder
from edgeloop.processes.job import run_job
from edgeloop.processes.sandbox import Limits
from edgeloop.progress import Progress, silent

WORKER = ("-m", "edgeloop.cloud.train.distill.teacher_worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherJob:
    """What a child is asked: to write what `teacher` answers to every example [count, classes] to `answers` (.npy)."""

    teacher: Path
    data: DataOptions
    answers: Path


def teacher_file(path: Path) -> Path:
    """The model itself: of a run folder its best epoch, of a bundle the float32 .tflite or its first variant."""
    return path / MODEL if (path / CONFIG).is_file() else compared_file(path)


def ask_teachers(
    teachers: Sequence[Path],
    data: DataOptions,
    temperature: float,
    progress: Progress = silent,
) -> np.ndarray:
    """The mean of what the teachers say of each example, softened; float32 [count, classes], in the stored order.

    They see the examples as they are stored, without augmentation and in inference mode.

    Raises:
        ModelError: A teacher is refused, or cannot be run.
        DataError: The data cannot be read or does not fit, or a teacher is no classifier, or of other classes.
        MissingExtra: The runtime of a teacher is not installed.
    """
    answers = []
    with temporary_folder() as temporary:
        for k, teacher in enumerate(teachers):
            file = Path(temporary, f"{k}.npy")
            job = TeacherJob(teacher=teacher_file(teacher.resolve()), data=data, answers=file)
            run_job(WORKER, job, Limits(), progress, work="asking")
            answers.append(np.load(file))
    return soft_targets(answers, temperature)
