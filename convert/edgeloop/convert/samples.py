"""Samples for a model: from a file, whose rows become calls or calls rows, or made up.

However many samples there are, few of them are in memory at a time: `Samples.inputs` are maps of files.
"""

from __future__ import annotations

import hashlib
import math
import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgeloop.bundle import TensorSpec
from edgeloop.errors import DataError

SYNTHETIC = 16  # samples made up where a user gives none
FREE_SIZE = 32  # of a made-up sample along a free dimension other than the batch
MADE_UP_VALUES = 1 << 26  # of all made-up samples together, where free dimensions leave a choice
# what floats are made up between, one after the other until no output is empty
SPANS = ((0.0, 1.0), (-4.0, 4.0), (0.0, 255.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """`inputs` {name: [n, ...]}, `labels` numbers [n, ...] or None; `real` is False for made-up values.

    Where `whole` is True, the model has no batch axis: each sample is all that one call takes, [n, *its shape].

    Attributes:
        inputs: Read-only, and perhaps not aligned where they are maps of a file. Whoever goes over all of them uses
            `batches`, which gives aligned copies and lets go of what it has read.
        label_output: The output that the labels are for; None: the only one.
        maps: The mapped files under `inputs`.
    """

    inputs: dict[str, np.ndarray]
    labels: np.ndarray | None = None
    label_output: str | None = None
    real: bool = True
    maps: tuple[mmap.mmap, ...] = ()
    whole: bool = False

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def take(self, count: int) -> Samples:
        """The first `count` samples."""
        labels = None if self.labels is None else self.labels[:count]
        return replace(self, inputs={n: a[:count] for n, a in self.inputs.items()}, labels=labels)

    def at_once(self, size: int) -> int:
        """How many samples one call takes: `size`, or a single one where it is whole."""
        return 1 if self.whole else size

    def batches(self, size: int, *, fill: bool = False) -> Iterator[dict[str, np.ndarray]]:
        """Copies of `size` samples at a time. The last batch is shorter or, with `fill`, filled up with the first.

        Whole samples come one by one, in the shape that the call takes.
        """
        count = len(self)
        if self.whole:
            for i in range(count):
                yield {name: np.array(array[i], order="C") for name, array in self.inputs.items()}
                self._let_go()
            return
        for start in range(0, count, size):
            index: slice | np.ndarray = slice(start, start + size)
            if fill and start + size > count:
                index = np.arange(start, start + size) % count
            # a slice of a map is a view: the copy outlives the pages below
            yield {name: np.array(array[index], order="C") for name, array in self.inputs.items()}
            self._let_go()

    def spaced(self, count: int) -> np.ndarray:
        """Indices of up to `count` samples, evenly spaced over all of them."""
        return np.unique(np.linspace(0, len(self) - 1, count).astype(int))

    def spread(self, count: int) -> Samples:
        """Copies of up to `count` samples, evenly spaced over all of them, without labels."""
        return self.copies(self.spaced(count))

    def copies(self, indices: np.ndarray) -> Samples:
        """Copies of these samples, without labels."""
        rows: dict[str, list[np.ndarray]] = {name: [] for name in self.inputs}
        for i in indices:
            for name, array in self.inputs.items():
                rows[name].append(np.array(array[i : i + 1], order="C"))
            self._let_go()
        inputs = {name: np.concatenate(each) for name, each in rows.items()}
        return Samples(inputs=inputs, real=self.real, whole=self.whole)

    def _let_go(self) -> None:
        for pages in self.maps:
            pages.madvise(mmap.MADV_DONTNEED)  # pages that were read count as resident memory until then

    def spans(self) -> dict[str, tuple[float, float]]:
        """Smallest and largest value of each input."""
        found: dict[str, tuple[float, float]] = {}
        for batch in self.batches(64):
            for name, array in batch.items():
                low, high = found.get(name, (np.inf, -np.inf))
                found[name] = min(low, float(array.min())), max(high, float(array.max()))
        return found

    def digest(self) -> str:
        """sha256 of the inputs by name; the same for maps and arrays of equal values."""
        digest = hashlib.sha256()
        for name in sorted(self.inputs):
            digest.update(name.encode())
            for batch in Samples(inputs={name: self.inputs[name]}, maps=self.maps).batches(16):
                digest.update(batch[name].data)
        return digest.hexdigest()


def as_calls(samples: Samples, specs: Sequence[TensorSpec], path: str | Path = "the data") -> Samples:
    """The same samples whole: rows of a batch become calls of the model's own batch, or of one row.

    Raises:
        DataError: Some inputs come as rows of a batch of several, others whole.
    """
    inputs: dict[str, np.ndarray] = {}
    labels = samples.labels
    for spec in specs:
        array = samples.inputs[spec.name]
        size = spec.shape[0] or 1 if spec.shape else 1
        rows = array.ndim == len(spec.shape)
        inputs[spec.name] = _in_calls(array, size) if rows else array
        if rows and labels is samples.labels and labels is not None:
            labels = _in_calls(labels, size)
    return replace(_relabelled(samples, inputs, labels, path), whole=True)


def _in_calls(rows: np.ndarray, size: int) -> np.ndarray:
    """[n, ...] as calls [calls, size, ...]: as many as all rows need, the last one filled up with the first rows."""
    if size == 1:
        return rows[:, None]
    return rows[np.arange(-(-len(rows) // size) * size) % len(rows)].reshape(-1, size, *rows.shape[1:])


def as_rows(samples: Samples, specs: Sequence[TensorSpec], path: Path) -> Samples:
    """Whole calls of a model that has a fixed batch, as rows of it."""
    inputs, labels = {}, samples.labels
    for spec in specs:
        array = samples.inputs[spec.name]
        calls = array.ndim != len(spec.shape)
        inputs[spec.name] = array.reshape(-1, *array.shape[2:]) if calls else array
        if calls and labels is samples.labels and labels is not None and labels.shape[1:2] == array.shape[1:2]:
            labels = labels.reshape(-1, *labels.shape[2:])
    return _relabelled(samples, inputs, labels, path)


def _relabelled(
    samples: Samples, inputs: dict[str, np.ndarray], labels: np.ndarray | None, path: str | Path
) -> Samples:
    counts = {name: len(array) for name, array in inputs.items()}
    if len(set(counts.values())) > 1:
        raise DataError(
            f"{path} holds {counts} samples: some inputs as rows of a batch, others as whole calls",
            advice="Save every input with one axis more than the model's own, which counts the calls.",
        )
    count = next(iter(counts.values()))
    if labels is not None and len(labels) != count:
        raise DataError(
            f"{path} has labels y {list(labels.shape)} for {len(samples)} calls of {count // len(samples)} rows each",
            advice="Save y with a label for each row: its first axis counts the calls, its second the rows of a call.",
        )
    return replace(samples, inputs=inputs, labels=labels)


def synthetic(
    specs: Sequence[TensorSpec],
    seed: int = 0,
    *,
    whole: bool = False,
    span: int = 0,
    sizes: Mapping[str, Sequence[int]] = {},
    below: int = 2,
    count: int = SYNTHETIC,
) -> Samples:
    """Made-up samples: floats uniform in 0..1 (or another of SPANS), integers from 0 to `below` - 1. They prove
    arithmetic, not accuracy.

    Args:
        sizes: The whole shape of inputs by name, where that makes no more than MADE_UP_VALUES; of others, free
            dimensions are FREE_SIZE or less.
    """
    rng, (low, high) = np.random.default_rng(seed), SPANS[span]
    first = 0 if whole else 1
    for given, size in ((sizes, FREE_SIZE), ({}, FREE_SIZE), ({}, FREE_SIZE // 4), ({}, 1)):
        shapes = {spec.name: sized(spec.shape, given.get(spec.name, ()))[first:] for spec in specs}
        made = {name: [count, *(size if d is None else d for d in shape)] for name, shape in shapes.items()}
        if sum(math.prod(shape) for shape in made.values()) <= MADE_UP_VALUES:
            break
    inputs = {}
    for spec in specs:
        shape = made[spec.name]
        kind = np.dtype(spec.dtype).kind
        values = low + (high - low) * rng.random(shape) if kind == "f" else rng.integers(0, below, shape)
        inputs[spec.name] = values.astype(spec.dtype)
    return Samples(inputs=inputs, real=False, whole=whole)


def sized(shape: Sequence[int | None], sizes: Sequence[int]) -> tuple[int | None, ...]:
    """A shape with its free dimensions as in `sizes`, if these have as many."""
    if len(sizes) != len(shape):
        return tuple(shape)
    return tuple(size if d is None else d for d, size in zip(shape, sizes, strict=True))
