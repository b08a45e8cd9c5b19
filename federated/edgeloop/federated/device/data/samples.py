"""A device's samples as they were read, and as a model takes them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeloop.errors import DataError, one_line

# Spans of the manifest's range: local data may reach beyond the few samples that the conversion saw. A wrong scale is a
# factor of 127 or 255.
BEYOND = 16.0
# What pixels are scaled to, narrowest first, and the least span of the conversion's samples: 0..2 says nothing of bytes
PIXEL_RANGES = (((0.0, 1.0), 0.0), ((-1.0, 1.0), 0.0), ((0.0, 255.0), 32.0))


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
        pixels: Bytes of images: 0..255 stand for 0..1, -1..1 or 0..255, whichever the model was made for.
        shaped: Whether the shapes are meant; if not (a table, a file of images without channels), any shape of as many
            values per sample will do.
        ordered: Whether the order of the columns is meant: a table fills one input with all its columns, side by side.
        classes: Names of the classes, where `y` numbers them in an order of the device's own.
    """

    source: str
    columns: Mapping[str, np.ndarray]
    y: np.ndarray
    pixels: bool = False
    shaped: bool = True
    ordered: bool = True
    classes: tuple[str, ...] = ()

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

    def for_model(
        self, inputs: Mapping[str, InputSpec], labels: Sequence[str] = ()
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The arrays by the names of the model's inputs, and the labels as it numbers them.

        Args:
            labels: The model's own names of its classes, from 0; empty: it has none.

        Raises:
            DataError: Other names or shapes, values far outside the range that the model was made for, or a class that
                is none of `labels`.
        """
        arrays = {name: self._input(name, array, inputs[name]) for name, array in self._named(inputs).items()}
        return arrays, self._numbered(labels)

    def _numbered(self, labels: Sequence[str]) -> np.ndarray:
        if not (self.classes and labels):
            return self.y
        used = sorted({self.classes[number] for number in self.y})
        strange = [name for name in used if name not in labels]
        if strange:
            raise DataError(
                f"{self.source} has the class {strange[0]!r}, which the model does not know",
                advice=f"Name the folders as the model's classes: {one_line(', '.join(labels), 200)}.",
            )
        numbers = {name: labels.index(name) for name in used}
        return np.array([numbers[self.classes[number]] for number in self.y], np.int32)

    def _named(self, inputs: Mapping[str, InputSpec]) -> Mapping[str, np.ndarray]:
        if set(self.columns) == set(inputs):
            return self.columns
        if len(inputs) == 1:
            (name,) = inputs
            if len(self.columns) == 1:
                return {name: next(iter(self.columns.values()))}
            if not self.ordered:
                raise DataError(
                    f"{self.source} has {sorted(self.columns)} in no order, the model takes one input, {name!r}",
                    advice="Write all values into one feature, or give a .csv file: its columns have an order.",
                )
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
            low, high = (0.0, 1.0) if spec.range is None else _pixel_range(f"{self.source}: {name}", spec.range)
            return np.asarray(low + array * np.float32((high - low) / 255), np.float32)
        check_range(f"{self.source}: {name}", array, spec.range)
        return array


def check_range(what: str, array: np.ndarray, expected: Sequence[float] | None) -> None:
    """See that values are not far outside the range (low, high) that the manifest states for them, where it does.

    Raises:
        DataError: They are; `what` they are is named.
    """
    if expected is None or not expected[0] < expected[1]:
        return
    low, high, least, most = float(array.min()), float(array.max()), *expected
    room = BEYOND * (most - least)
    # Values within 1 for a model of bytes are scaled by 255 the other way (as convert/proof/input_range.py has it).
    small = 0 < max(-low, high) <= 1.05 and least >= -1 and 32 < most <= 256
    if low < least - room or high > most + room or small:
        raise DataError(
            f"{what} spans {low:.4g} to {high:.4g}, and the model was calibrated and evaluated on {least:.4g} to "
            f"{most:.4g}",
            advice="Scale the values as the model was trained.",
        )


def _pixel_range(what: str, observed: tuple[float, float]) -> tuple[float, float]:
    """The usual range of pixels that holds what the conversion's few samples spanned."""
    least, most = observed
    for (low, high), span in PIXEL_RANGES:
        rounding = (high - low) / 1000
        if low - rounding <= least and most <= high + rounding and most - least >= span:
            return low, high
    raise DataError(
        f"{what} holds pixels, and the model was calibrated and evaluated on {least:.4g} to {most:.4g}, which "
        "is none of 0..1, -1..1 and 0..255",
        advice="Scale them as the model was trained, and pass the arrays as an .npz file.",
    )
