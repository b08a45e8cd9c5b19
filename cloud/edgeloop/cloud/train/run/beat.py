"""A sign of life of a training, for whoever supervises it."""

from __future__ import annotations

from collections.abc import Callable

Beat = Callable[
    [int], None
]  # told how many steps are done, after each call of the step function and between what else takes time


def no_beat(step: int) -> None:
    """The `beat` of a training that nobody supervises."""
