"""[data]: what to read, and what of it to hold out."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from edgeloop.cloud.input.options import DataOptions
from edgeloop.errors import OptionsError


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig(DataOptions):
    """What to read, and what of it to hold out.

    Attributes:
        validation: Data of the same kind to decide by; None: a part of `path` is held out.
        held_out: Share of `path` that no step trains on, above 0 and below 1.
        share: Share of the rest that is trained on; a smaller share is a part of every larger one.
        split_seed: Of what is held out and of the share; None: [loop] seed. Trainings that are compared have one split.
    """

    validation: Path | None = None
    held_out: float = 0.1
    share: float = 1.0
    split_seed: int | None = None

    def __post_init__(self) -> None:
        DataOptions.__post_init__(self)  # `super()` does not find the class that slots=True makes anew
        if not 0 < self.held_out < 1:
            raise OptionsError(f"[data] held-out is {self.held_out:g}", advice="It must be above 0 and below 1.")
        if not 0 < self.share <= 1:
            raise OptionsError(f"[data] share is {self.share:g}", advice="It must be above 0 and at most 1.")


def plain_options(data: DataConfig) -> DataOptions:
    """What to read, without what is held out of it."""
    return DataOptions(**{field.name: getattr(data, field.name) for field in fields(DataOptions)})
