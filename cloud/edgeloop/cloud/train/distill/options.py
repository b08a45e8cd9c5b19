"""What a student learns from its teachers, and in how many rounds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeloop.errors import OptionsError
from edgeloop.quantities import above_zero, at_least


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillConfig:
    """The table [distill] of a training: soft targets beside the labels.

    The loss of an example is alpha * T^2 * KL(target || softmax(student / T)) + (1 - alpha) * loss of its label:
    Hinton et al. 2015, https://arxiv.org/abs/1503.02531, section 2, where T^2 keeps the size of the gradients.

    Attributes:
        targets: A .npy file, float32 [examples, classes]: what the teachers say of each example, softened by T. None: a
            training without teachers.
        temperature: T, above 0; large values show more of what the teachers think of wrong classes.
        alpha: Weight of the soft targets, 0 to 1.
    """

    targets: Path | None = None
    temperature: float = 4.0
    alpha: float = 0.7

    def __post_init__(self) -> None:
        above_zero(self.temperature, "[distill] temperature")
        if not 0 <= self.alpha <= 1:
            raise OptionsError(f"[distill] alpha is {self.alpha:g}", advice="It must be between 0 and 1.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillOptions:
    """Who teaches whom.

    Attributes:
        teachers: Models of any format, bundles, or run folders.
        students: How many are trained, each from another seed; their mean is a model of its own.
        fine_tune: Epochs of a second stage on the labels alone, at a tenth of the learning rate; 0: none.
        iterations: Rounds in which the student of one is the teacher of the next. The teacher sees plain examples, the
            student augmented ones ([pipeline] augment) and its own dropout: Xie et al. 2020,
            https://arxiv.org/abs/1911.04252.
        compare: Train the same student without teachers as well.
    """

    teachers: tuple[Path, ...]
    temperature: float = 4.0
    alpha: float = 0.7
    students: int = 1
    fine_tune: int = 0
    iterations: int = 1
    compare: bool = False

    def __post_init__(self) -> None:
        above_zero(self.temperature, "--temperature")
        if not 0 <= self.alpha <= 1:
            raise OptionsError(f"--alpha is {self.alpha:g}", advice="It must be between 0 and 1.")
        if not self.teachers:
            raise OptionsError("no teacher is given", advice="Pass a model, a bundle or a run folder.")
        for name, least in (("students", 1), ("fine_tune", 0), ("iterations", 1)):
            at_least(getattr(self, name), least, f"--{name.replace('_', '-')}")
