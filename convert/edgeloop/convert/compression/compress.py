"""A Keras file and training data in, a smaller-to-store or int8-ready Keras file out: pruned, clustered, or trained
under fake quantization, by TF-MOT in a child process.

TF-MOT 0.8 takes models of tf_keras alone, and wants `TF_USE_LEGACY_KERAS` set before TensorFlow is imported; so a child
(`compress_child.py`) rebuilds the model there and hands the weights back into the Keras 3 model.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from edgeloop.errors import MissingExtra, OptionsError
from edgeloop.processes.job import run_job
from edgeloop.processes.sandbox import Limits
from edgeloop.progress import Progress, silent

CHILD = ("-m", "edgeloop.convert.compression.compress_child")
PACKAGES = ("tensorflow_model_optimization", "tf_keras")
LIMITS = Limits()
CLUSTERS = 256  # more shared values than int8 has are no saving


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressOptions:
    """What to do to the weights, in this order: prune, cluster, train for int8. What is done first is kept after.

    Attributes:
        prune: Share of zeros each kernel ends with, above 0 and below 1.
        cluster: How many values each kernel may have, 2 to 256; beside `prune` zero is one of them, so 3 to 256.
        qat_epochs: Epochs of training under int8 fake quantization.
        epochs: Epochs of fine-tuning, for pruning and for clustering each.
        learning_rate: Of Adam. At 1e-4 two epochs do not win back what half of a small net's weights knew.
        seed: Same seed, same weights.
    """

    prune: float | None = None
    cluster: int | None = None
    qat_epochs: int | None = None
    epochs: int = 2
    batch: int = 32
    learning_rate: float = 1e-3
    seed: int = 0

    @property
    def label(self) -> str:
        """What a manifest says of it: `prune=0.5 cluster=8`."""
        asked = {"prune": self.prune, "cluster": self.cluster, "qat": self.qat_epochs}
        return " ".join(f"{name}={value:g}" for name, value in asked.items() if value is not None)

    def __post_init__(self) -> None:
        if self.prune is None and self.cluster is None and self.qat_epochs is None:
            raise OptionsError(
                "no compression was chosen", advice="Pass --prune SPARSITY, --cluster N or --qat EPOCHS."
            )
        if self.prune is not None and not 0 < self.prune < 1:
            raise OptionsError(f"--prune is {self.prune}", advice="It must be above 0 and below 1.")
        fewest = 2 if self.prune is None else 3
        if self.cluster is not None and not fewest <= self.cluster <= CLUSTERS:
            beside = "" if self.prune is None else " together with --prune, whose zeros are one of the values"
            raise OptionsError(f"--cluster is {self.cluster}", advice=f"It must be {fewest} to {CLUSTERS}{beside}.")
        for name, value in (("--qat", self.qat_epochs), ("epochs", self.epochs), ("batch", self.batch)):
            if value is not None and value < 1:
                raise OptionsError(f"{name} is {value}", advice="It must be 1 or more.")
        if not 0 < self.learning_rate <= 1:
            raise OptionsError(f"learning_rate is {self.learning_rate}", advice="It must be above 0 and at most 1.")
        if not 0 <= self.seed < 2**32:
            raise OptionsError(f"seed is {self.seed}", advice="It must be 0 to 4294967295.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One weight tensor of two or more dimensions, as it was written."""

    name: str
    values: int
    zeros: int
    distinct: int
    pruned: bool
    clustered: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressResult:
    """The new file and what was found in it.

    Attributes:
        path: A `.keras` file in the folder that was given; the same layers and names as the source.
        notes: What was left out and what the figures mean, a line each.
        accuracy_before: Share of the training samples answered rightly, 0..1. An own test set says more.
        kernels: What was found in the file that was written.
        gzip_bytes: All weights after gzip, before and after: what a download or a compressed file system gains.
    """

    path: Path
    notes: tuple[str, ...]
    accuracy_before: float
    accuracy_after: float
    kernels: tuple[Kernel, ...]
    gzip_bytes: tuple[int, int]

    @property
    def sparsity(self) -> float:
        """Zeros among the values of all kernels, 0..1."""
        return sum(k.zeros for k in self.kernels) / sum(k.values for k in self.kernels)

    @property
    def clusters(self) -> int | None:
        """Distinct values in the clustered kernel that has most; None where none was clustered."""
        return max((k.distinct for k in self.kernels if k.clustered), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressJob:
    """What the child is asked for."""

    model: Path
    options: CompressOptions
    train: Path
    target: Path


def compress(
    model: str | Path,
    options: CompressOptions,
    train: str | Path,
    folder: str | Path,
    progress: Progress = silent,
    limits: Limits = LIMITS,
) -> CompressResult:
    """Compress a classifier and write it as a `.keras` file into `folder`.

    Args:
        model: A Keras 3 `.keras` or `.h5` file with one output: [n, classes] of softmax or logits, or [n, 1] for two.
        train: .npz with `in/NAME` (or `x`) and integer labels `y`.
        folder: Where to write; it exists.

    Raises:
        ModelError: Not a Keras 3 classifier, a layer without a counterpart in tf_keras or refused by TF-MOT, an
            accuracy or a weight that diverged, or a limit of the child reached.
        DataError: The training data do not fit.
        MissingExtra: TF-MOT or tf_keras is not installed.
    """
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(f"{package!r} is not installed", advice="Run: pip install 'edgeloop[convert]'")
    path = Path(model)
    target = Path(folder) / f"{path.stem}.keras"
    job = CompressJob(model=path.absolute(), options=options, train=Path(train).absolute(), target=target.absolute())
    notes: list[str] = []
    made = run_job(CHILD, job, limits, progress, notes.append, work="compressing")
    before, after = made["gzip_bytes"]
    return CompressResult(
        path=target,
        notes=(*notes, *made["notes"]),
        accuracy_before=made["accuracy_before"],
        accuracy_after=made["accuracy_after"],
        kernels=tuple(Kernel(**row) for row in made["kernels"]),
        gzip_bytes=(before, after),
    )
