"""Tensors of two models in, which belongs to which out: by name, else by shape, else by position.

PyTorch's exports put channels before height and width, TensorFlow's behind them: a tensor whose shape is the other's
with the channels moved is matched too, and its values are transposed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgeloop.bundle import TensorSpec
from edgeloop.errors import ParityError

Shape = tuple[int | None, ...]
DECORATION = re.compile(r"^serving_default_|(:\d+)$|\W")


@dataclass(frozen=True, slots=True)
class Match:
    """`first` and `second` are names; `axes` transposes a value of the first to one of the second, None: as it is.

    `by_position`: neither their names nor their shapes tell that they belong together.
    """

    first: str
    second: str
    axes: tuple[int, ...] | None = None
    by_position: bool = False

    def to_second(self, value: np.ndarray) -> np.ndarray:
        return value if self.axes is None else np.transpose(value, self.axes)

    def to_first(self, value: np.ndarray) -> np.ndarray:
        return value if self.axes is None else np.transpose(value, np.argsort(self.axes))


def match_tensors(first: Sequence[TensorSpec], second: Sequence[TensorSpec], what: str) -> list[Match]:
    """Pair the tensors of two models. `what` is "inputs" or "outputs", for the message.

    Raises:
        ParityError: Another number of them, or no pairing in which every shape fits: the models differ.
    """
    if len(first) != len(second):
        raise _differ(first, second, what)
    found = _by_name(first, second, str) or _by_name(first, second, _plain)
    found = found or _by_shape(first, second)
    if found is None:
        placed = _fitting(list(zip(first, second, strict=True)))
        found = None if placed is None else [replace(match, by_position=True) for match in placed]
    if found is None:
        raise _differ(first, second, what)
    return found


def _by_name(
    first: Sequence[TensorSpec], second: Sequence[TensorSpec], key: Callable[[str], str]
) -> list[Match] | None:
    names = {key(spec.name): spec for spec in second}
    return _fitting([(spec, names.get(key(spec.name))) for spec in first])


def _by_shape(first: Sequence[TensorSpec], second: Sequence[TensorSpec]) -> list[Match] | None:
    """Where each tensor fits exactly one of the other model's."""
    pairs: list[tuple[TensorSpec, TensorSpec | None]] = []
    for spec in first:
        fitting = [other for other in second if layout(spec.shape, other.shape) is not None]
        pairs.append((spec, fitting[0] if len(fitting) == 1 else None))
    return _fitting(pairs)


def _fitting(pairs: Sequence[tuple[TensorSpec, TensorSpec | None]]) -> list[Match] | None:
    """None where one has no other, two have the same, or a shape does not fit."""
    if len({other.name for _, other in pairs if other is not None}) < len(pairs):
        return None
    matches = []
    for spec, other in pairs:
        axes = None if other is None else layout(spec.shape, other.shape)
        if other is None or axes is None:
            return None
        plain = axes == tuple(range(len(axes)))
        matches.append(Match(spec.name, other.name, None if plain else axes))
    return matches


def layout(first: Shape, second: Shape) -> tuple[int, ...] | None:
    """The axes that transpose a value of shape `first` to one of `second`: as it is, channels first, or channels last.

    None where none of them fits. A free dimension fits any; of two orders that fit, the one with more equal sizes.
    """
    rank = len(first)
    if rank != len(second):
        return None
    orders = [tuple(range(rank))]
    if rank > 2:
        orders += [(0, rank - 1, *range(1, rank - 1)), (0, *range(2, rank), 1)]
    pairs = {axes: [(first[a], size) for a, size in zip(axes, second, strict=True)] for axes in orders}
    fitting = [axes for axes in orders if all(None in pair or pair[0] == pair[1] for pair in pairs[axes])]
    return max(fitting, key=lambda axes: sum(None not in pair for pair in pairs[axes]), default=None)


def _plain(name: str) -> str:
    return DECORATION.sub("", name).lower()


def _differ(first: Sequence[TensorSpec], second: Sequence[TensorSpec], what: str) -> ParityError:
    a, b = (", ".join(f"{s.name} {_text(s.shape)}" for s in side) for side in (first, second))
    return ParityError(
        f"the {what} of the two models do not match: the first has {a}; the second has {b}",
        advice="Compare models of one task, in one input size.",
    )


def _text(shape: Shape) -> str:
    return "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"
