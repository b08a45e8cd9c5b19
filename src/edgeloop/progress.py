"""How long work says where it is, and what else a user should know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Say = Callable[[str], None]  # given one sentence for the user, as soon as it is known


class Progress(Protocol):
    """Told by long work where it is."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """`done` of `total` steps of `what` are finished."""


def silent(what: str, done: int, total: int) -> None:
    """The progress of a caller who does not look."""
