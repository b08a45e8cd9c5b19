"""How long work says where it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told by long work where it is."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """`done` of `total` steps of `what` are finished."""


def silent(what: str, done: int, total: int) -> None:
    """The progress of a caller who does not look."""
