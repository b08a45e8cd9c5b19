"""What the process that holds TensorFlow is asked, and what asks it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeloop.federated.fold_back.options import CloudOptions
from edgeloop.processes.job import run_job
from edgeloop.processes.sandbox import Limits

CHILD = ("-m", "edgeloop.federated.fold_back.training")


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """One call of the child.

    Attributes:
        options: Its `train`, `launch` and `distill` count here.
        python_path: Where functions are found that train.toml names.
        keras: The .keras file that was converted.
        weights: Of the round, w000, w001, ... None: only see whether the training can begin.
        teachers: Weights of device models, each such a file.
        place: A new folder for what is made.
    """

    options: CloudOptions
    keras: Path
    python_path: tuple[str, ...] = ()
    weights: Path | None = None
    teachers: tuple[Path, ...] = ()
    place: Path = Path()


def run_training(job: TrainingJob, say: Callable[[str], None]) -> dict[str, Any]:
    """Do the job in a process of its own; {"model": its .keras file, "told": sentences}.

    Raises:
        OptionsError, DataError: train.toml is wrong, or does not fit.
        ModelError: The model cannot be read, the weights are not its own, or the training took too long.
        EdgeloopError: What a training raises.
    """
    limits = Limits(work_bytes=sys.maxsize, work_s=job.options.timeout_s)  # of a training, whatever it takes
    return run_job(CHILD, job, limits, say=say, work="training")
