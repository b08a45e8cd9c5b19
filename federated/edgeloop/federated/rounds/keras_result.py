"""The Keras model behind a bundle, with the weights that rounds ended with; written in a process of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeloop.processes.job import run_job
from edgeloop.processes.sandbox import Limits

CHILD = ("-m", "edgeloop.federated.rounds.keras_child")
KERAS = "model.keras"  # in the folder of a run


@dataclass(frozen=True)
class KerasJob:
    """`source`: the .keras file that was converted; `weights`: a round-N.npz; `target`: the file to write."""

    source: Path
    weights: Path
    target: Path


def write_keras(source: Path, weights: Path, target: Path) -> Path:
    """Write `source` with other weights to `target`.

    Raises:
        ModelError: `source` cannot be read, or the weights are not its own.
        MissingExtra: TensorFlow is not installed here.
        WriteError: `target` cannot be written.
    """
    job = KerasJob(source.absolute(), weights.absolute(), target.absolute())
    run_job(CHILD, job, Limits(), work="writing")
    return target
