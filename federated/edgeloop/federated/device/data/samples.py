"""A device's samples as they were read, and as a model takes them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeloop.errors import DataError

BEYOND = (
    16.0  # spans of the manifest's range: local data may differ from the conversion's, a wrong scale is a factor 255
)


@dataclass(frozen=True)
class InputSpec:
    """One input of a model: its sizes without the batch, the real values it was made for, if known, and its dtype."""

    shape: tuple[int, ...]
    range: tuple[float, float] | None = None
    dtype: str = "float32"


@dataclass(frozen=True)
class Samples:
    """What a file, a folder or a function gave.

    Attributes:
        source: Its name for messages.
        columns: Arrays [N, ...] by name, as long as `y`.
        y: Labels [N, ...].
        pixels: Bytes of images: 0..255 stand for the least and the largest value that the model takes.
        shaped: Whether the shapes are meant; if not (a table, a file of images without channels), any shape of as many
            values per sample will do.
    """

    source: str
    columns: Mapping[str, np.ndarray]
    y: np.ndarray
    pixels: bool = False
    shaped: bool = True

    def __post_init__(self) -> None:
        counts = {name: len(a) if a.ndim else 0 for name, a in {**self.columns, "y": self.y}.items()}
        if len(set(counts.values())) > 1 or not counts["y"] or len(counts) == 1:
            listed = ", ".join(f"{count} of {name}" for name, count in sorted(counts.items()))
            raise DataError(
                f"{self.source} holds {listed}", advice="Expected at least one sample, and one label for each."
            )
        for name, array in {**self.columns, "y": self.y}.items():
            if not np.issubdtype(array.dtype, np.number):
                raise DataError(f"{self.source}: {name} holds {array.dtype}", advice="Expected numbers.")
            if np.issubdtype(array.dtype, np.inexact) and not np.isfinite(array).all():
                raise DataError(f"{self.source}: {name} holds NaN or Infinity", advice="Clean the data first.")

    def for_model(self, inputs: Mapping[str, InputSpec]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The arrays by the names of the model's inputs, and the labels.

        Raises:
            DataError: Other names or shapes, or values far outside the range that the model was made for.
        """
        return {name: self._input(name, array, inputs[name]) for name, array in self._named(inputs).items()}, self.y

    def _named(self, inputs: Mapping[str, InputSpec]) -> Mapping[str, np.ndarray]:
        if set(self.columns) == set(inputs):
            return self.columns
        if len(inputs) == 1:
            (name,) = inputs
            if len(self.columns) == 1:
                return {name: next(iter(self.columns.values()))}
            if not self.shaped:  # a table: its columns side by side
                return {name: np.stack(list(self.columns.values()), axis=1)}
        raise DataError(
            f"{self.source} has {sorted(self.columns)}, the model takes {sorted(inputs)}",
            advice="Name the arrays or columns as the inputs.",
        )

    def _input(self, name: str, array: np.ndarray, spec: InputSpec) -> np.ndarray:
        if array.shape[1:] != spec.shape:
            if self.shaped or math.prod(array.shape[1:]) != math.prod(spec.shape):
                raise DataError(
                    f"{self.source}: {name} has samples of shape {list(array.shape[1:])}, the model takes "
                    f"{list(spec.shape)}",
                    advice="Give samples as large as the model's input.",
                )
            array = array.reshape(len(array), *spec.shape)
        if self.pixels and spec.dtype == "float32":
            low, high = spec.range or (0.0, 1.0)
            return np.asarray(low + array * np.float32((high - low) / 255), np.float32)
        _check_range(f"{self.source}: {name}", array, spec.range)
        return array


def _check_range(what: str, array: np.ndarray, expected: Sequence[float] | None) -> None:
    if expected is None or not expected[0] < expected[1]:
        return
    low, high, least, most = float(array.min()), float(array.max()), *expected
    room = BEYOND * (most - least)
    bytes_wanted = 0 < max(-low, high) <= 1.05 and least >= -1 and 32 < most <= 256  # 0..1 for a model of 0..255
    if low < least - room or high > most + room or bytes_wanted:
        raise DataError(
            f"{what} spans {low:.4g} to {high:.4g}, and the model was made for {least:.4g} to {most:.4g}",
            advice="Scale the values as the model was trained.",
        )
