"""Two model files in, whether they compute the same function out. This process loads neither."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgeloop.convert.same.compare_models import SameJob
from edgeloop.convert.same.runnable import compared_file
from edgeloop.errors import OptionsError, ParityError
from edgeloop.processes.job import run_job
from edgeloop.processes.sandbox import Limits
from edgeloop.progress import Progress, silent
from edgeloop.runtime.parity.compare import Parity, reason

WORKER = ("-m", "edgeloop.convert.same.worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class SameOptions:
    """How to compare.

    Attributes:
        evaluation: .npz with inputs of the first model, and labels `y` where there are any. None: made-up inputs.
        signature: Of a SavedModel or .tflite file. None: the default one.
        min_snr_db: What every output must reach. None: the floor of the coarser of the two schemes.
        allow_unsafe: Load a model that runs code or uses files.
        imports: Python files with the classes of the models' own layers; implies `allow_unsafe`.
    """

    evaluation: Path | None = None
    signature: str | None = None
    min_snr_db: float | None = None
    allow_unsafe: bool = False
    imports: tuple[Path, ...] = ()
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.min_snr_db is not None and not 0 < self.min_snr_db <= 200:
            raise OptionsError(f"--min-snr is {self.min_snr_db:g}", advice="It must be above 0 and at most 200 dB.")


@dataclass(frozen=True, slots=True, kw_only=True)
class SameResult:
    """How two models compare.

    Attributes:
        first, second: {model, runtime, scheme} of each; the first is the reference.
        parity: One record an output of the first model.
        samples: How many inputs were compared; `real` is False where they were made up.
        transposed: Inputs and outputs whose channels stand at another place in the second model.
        by_position: [first, second] of inputs and outputs that only their places in the two models bring together.
        notes: One line each that a user should know: what was allowed, how a model was read.
        first_difference: The first layer whose output differs, where layers can be matched and one does.
    """

    first: Mapping[str, str]
    second: Mapping[str, str]
    parity: tuple[Parity, ...]
    samples: int
    real: bool
    transposed: tuple[str, ...]
    first_difference: str | None
    by_position: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        return all(row.passed for row in self.parity)

    @property
    def error(self) -> ParityError | None:
        """What differs, in one line; None where nothing does."""
        bad = [row for row in self.parity if not row.passed]
        if not bad:
            return None
        where = f"; first layer that differs: {self.first_difference}" if self.first_difference else ""
        return ParityError(
            f"{self.second['model']} does not compute what {self.first['model']} does: {reason(bad[0])}{where}",
            advice="Check which of the two files holds the weights you mean.",
        )


def same(
    first: str | Path, second: str | Path, options: SameOptions = SameOptions(), progress: Progress = silent
) -> SameResult:
    """Compare two model files: each runs in its own runtime on the same inputs.

    Args:
        first: The reference: a .keras, .h5, .tflite or .onnx file, a SavedModel or TF.js folder, or a bundle, of which
            the float32 .tflite is taken.
        second: The one to compare with it, of any of these kinds.

    Returns:
        One record for each output (`snr_db` in decibels, None: exact; shares between 0 and 1).

    Raises:
        ModelError: One of them is refused, or cannot be run.
        ParityError: Their inputs or outputs do not match, so there is nothing to compare.
        DataError: The evaluation data does not fit the first model.
        MissingExtra: The runtime of one is not installed.

    Example:
        >>> same("model.keras", "m/int8.tflite", SameOptions(evaluation=Path("eval.npz"))).same
        True
    """
    job = SameJob(
        first=compared_file(Path(first).resolve()),
        second=compared_file(Path(second).resolve()),
        evaluation=options.evaluation,
        signature=options.signature,
        min_snr_db=options.min_snr_db,
        allow_unsafe=options.allow_unsafe,
        imports=tuple(path.resolve() for path in options.imports),
    )
    found = run_job(WORKER, job, options.limits, progress, work="comparing")
    return SameResult(
        first=found["first"],
        second=found["second"],
        parity=tuple(Parity(**row) for row in found["rows"]),
        samples=found["samples"],
        real=found["real"],
        transposed=tuple(match["first"] for match in found["matches"] if match["axes"] is not None),
        first_difference=found["first_difference"],
        by_position=tuple((match["first"], match["second"]) for match in found["matches"] if match["by_position"]),
        notes=tuple(dict.fromkeys(found["notes"])),
    )
