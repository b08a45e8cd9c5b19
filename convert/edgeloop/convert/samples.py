"""Arrays from a user's .npz, checked against the model before anything is measured with them.

However many samples there are, few of them are in memory at a time: `Samples.inputs` are maps of files.
"""

from __future__ import annotations

import enum
import hashlib
import math
import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgeloop.bundle import TensorSpec
from edgeloop.convert.npz import ArrayFile, Member, mapped, members
from edgeloop.errors import DataError

Shape = tuple[int | None, ...]

SYNTHETIC = 16  # samples made up where a user gives none
FREE_SIZE = 32  # of a made-up sample along a free dimension other than the batch
MADE_UP_VALUES = 1 << 26  # of all made-up samples together, where free dimensions leave a choice
# what floats are made up between, one after the other until no output is empty
SPANS = ((0.0, 1.0), (-4.0, 4.0), (0.0, 255.0))


class LabelPolicy(enum.Enum):
    """Whether to read the array `y`: numbers of any shape, or (NEEDED) integers [n]."""

    NONE = enum.auto()
    IF_ANY = enum.auto()
    NEEDED = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """`inputs` {name: [n, ...]}, `labels` numbers [n, ...] or None; `real` is False for made-up values.

    Where `whole` is True, the model has no batch axis: each sample is all that one call takes, [n, *its shape].

    Attributes:
        inputs: Read-only, and perhaps not aligned where they are maps of a file. Whoever goes over all of them uses
            `batches`, which gives aligned copies and lets go of what it has read.
        maps: The mapped files under `inputs`.
    """

    inputs: dict[str, np.ndarray]
    labels: np.ndarray | None = None
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

    def spread(self, count: int) -> Samples:
        """Copies of up to `count` samples, evenly spaced over all of them, without labels."""
        rows: dict[str, list[np.ndarray]] = {name: [] for name in self.inputs}
        for i in np.unique(np.linspace(0, len(self) - 1, count).astype(int)):
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


def read_samples(
    path: str | Path, specs: Sequence[TensorSpec], *, labels: LabelPolicy = LabelPolicy.NONE, whole: bool = False
) -> Samples:
    """A .npz, or a folder of them, with `in/NAME`, `NAME` or (for one input) `x`; `y` where labels are wanted.

    Every value is looked at once, a quarter of a mebibyte at a time.

    Args:
        whole: The model has no batch axis: a sample is all that one call takes, so arrays are [n, *the whole shape].
            What comes as rows of a batch is called in batches of the model's own size, or of one.

    Raises:
        DataError: Missing, no .npz, pickled, over the limit, an input that is absent, of another dtype or shape, or
            not finite; labels that are absent, no numbers (where they are NEEDED, no integers), or of another number.
    """
    path = Path(path)
    files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise DataError(f"{path} is neither an .npz file nor a folder of them", advice="Make one with numpy.savez.")
    parts = [members(file) for file in files]
    layouts = {spec.name: _layouts(spec, specs, whole) for spec in specs}
    found = {spec.name: _find(parts, spec, layouts[spec.name], len(specs), path) for spec in specs}
    counts = {name: sum(member.shape[0] for member in each) for name, each in found.items()}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        raise DataError(f"{path} holds {counts} samples", advice="Pass equally many of each input, and at least one.")
    wanted = labels is LabelPolicy.NEEDED or (labels is LabelPolicy.IF_ANY and any("y" in part for part in parts))
    y = _labels(parts, next(iter(counts.values())), path, labels) if wanted else None
    inputs, maps = {}, []
    for spec in specs:
        inputs[spec.name], pages = _read(found[spec.name], spec)
        maps.append(pages)
    samples = Samples(inputs=inputs, labels=y, maps=tuple(maps))
    return as_calls(samples, specs, path) if whole else _as_rows(samples, specs, path)


def as_calls(samples: Samples, specs: Sequence[TensorSpec], path: str | Path = "the data") -> Samples:
    """The same samples whole: rows of a batch become calls of the model's own batch, or of one row.

    Raises:
        DataError: Some inputs come as rows of a batch of several, others whole.
    """
    inputs: dict[str, np.ndarray] = {}
    for spec in specs:
        array = samples.inputs[spec.name]
        size = spec.shape[0] or 1 if spec.shape else 1
        if array.ndim == len(spec.shape) + 1:
            inputs[spec.name] = array
        elif size == 1:
            inputs[spec.name] = array[:, None]
        else:  # as many calls as all rows need, the last one filled up with the first rows
            rows = np.arange(-(-len(array) // size) * size) % len(array)
            inputs[spec.name] = array[rows].reshape(-1, size, *array.shape[1:])
    return replace(_relabelled(samples, inputs, path), whole=True)


def _as_rows(samples: Samples, specs: Sequence[TensorSpec], path: Path) -> Samples:
    """Whole calls of a model that has a fixed batch, as rows of it."""
    inputs = {}
    for spec in specs:
        array = samples.inputs[spec.name]
        inputs[spec.name] = array if array.ndim == len(spec.shape) else array.reshape(-1, *array.shape[2:])
    return _relabelled(samples, inputs, path)


def _relabelled(samples: Samples, inputs: dict[str, np.ndarray], path: str | Path) -> Samples:
    counts = {name: len(array) for name, array in inputs.items()}
    if len(set(counts.values())) > 1:
        raise DataError(
            f"{path} holds {counts} samples: some inputs as rows of a batch, others as whole calls",
            advice="Save every input with one axis more than the model's own, which counts the calls.",
        )
    same = next(iter(counts.values())) == len(samples)
    return replace(samples, inputs=inputs, labels=samples.labels if same else None)


def synthetic(
    specs: Sequence[TensorSpec],
    seed: int = 0,
    *,
    whole: bool = False,
    span: int = 0,
    free: int = FREE_SIZE,
    count: int = SYNTHETIC,
) -> Samples:
    """Made-up samples: floats uniform in 0..1 (or another of SPANS), integers 0 or 1. They prove arithmetic, not
    accuracy."""
    rng, (low, high) = np.random.default_rng(seed), SPANS[span]
    shapes = {spec.name: spec.shape if whole else spec.shape[1:] for spec in specs}
    for size in (free, free // 4, 1):
        made = {name: [count, *(size if d is None else d for d in shape)] for name, shape in shapes.items()}
        if sum(math.prod(shape) for shape in made.values()) <= MADE_UP_VALUES:
            break
    inputs = {}
    for spec in specs:
        shape = made[spec.name]
        kind = np.dtype(spec.dtype).kind
        values = low + (high - low) * rng.random(shape) if kind == "f" else rng.integers(0, 2, shape)
        inputs[spec.name] = values.astype(spec.dtype)
    return Samples(inputs=inputs, real=False, whole=whole)


def _layouts(spec: TensorSpec, specs: Sequence[TensorSpec], whole: bool) -> list[Shape]:
    """The shapes that one sample of this input may have, the expected one first."""
    first = spec.shape[:1]
    rows = [] if not spec.shape else [spec.shape[1:]]
    if not whole:
        return rows + ([] if first == (None,) else [spec.shape])
    same = len({other.shape[:1] for other in specs}) == 1
    return [spec.shape, *(rows if same or first in ((1,), (None,)) else [])]


def _find(
    parts: Sequence[Mapping[str, Member]], spec: TensorSpec, layouts: Sequence[Shape], inputs: int, path: Path
) -> list[Member]:
    """The member for `spec` in every file, by header of the right kind and shape."""
    keys = set(parts[0]).intersection(*parts[1:])
    names = [f"in/{spec.name}", spec.name, *(["x"] if inputs == 1 else [])]
    name = next((name for name in names if name in keys), None)
    if name is None:
        raise DataError(
            f"{path} has the arrays {sorted(keys)}, and none for the input {spec.name!r}",
            advice=f"Name one {names[-1]!r}.",
        )
    found, wanted = [part[name] for part in parts], np.dtype(spec.dtype)
    for member in found:
        if member.dtype.kind != wanted.kind:
            raise DataError(
                f"{path}: {name} is {member.dtype}, and the model takes {wanted}",
                advice="Save the inputs as the model was trained on them.",
            )
        if not member.shape or not any(_fits(member.shape[1:], layout) for layout in layouts):
            shape = "[n" + "".join(f", {'any' if d is None else d}" for d in layouts[0]) + "]"
            raise DataError(
                f"{path}: {name} has shape {list(member.shape)}, and the model takes {shape}",
                advice="Save arrays of that shape.",
            )
        if member.shape[1:] != found[0].shape[1:]:
            shapes = [list(m.shape) for m in (found[0], member)]
            raise DataError(
                f"{path}: {name} has the shapes {shapes} in two of its files",
                advice="Save all files with equal shapes.",
            )
    return found


def _fits(shape: Shape, layout: Shape) -> bool:
    return len(shape) == len(layout) and all(d in (None, have) for d, have in zip(layout, shape, strict=True))


def _read(found: Sequence[Member], spec: TensorSpec) -> tuple[np.ndarray, mmap.mmap]:
    wanted, first = np.dtype(spec.dtype), found[0]
    direct = len(found) == 1 and first.stored and first.dtype == wanted
    spool = None if direct else ArrayFile(wanted)
    for member in found:
        for rows in member.chunks():
            cast = _fitting(rows, wanted, f"{member.path}: {member.entry.filename.removesuffix('.npy')}")
            if spool is not None:
                spool.add(cast)
    if spool is None:
        return mapped(first)
    return spool.array((sum(member.shape[0] for member in found), *first.shape[1:]))


def _fitting(rows: np.ndarray, wanted: np.dtype, name: str) -> np.ndarray:
    with np.errstate(over="ignore"):  # what does not fit is looked for, right below
        cast = rows.astype(wanted, copy=False)
    if wanted.kind == "f" and not np.isfinite(cast).all():
        raise DataError(
            f"{name} holds NaN, infinity or a number too large for {wanted}", advice="Remove those samples."
        )
    if wanted.kind in "iu" and not np.array_equal(cast, rows):
        raise DataError(
            f"{name} holds integers that do not fit {wanted}", advice="Save values that the model can take."
        )
    return cast


def _labels(parts: Sequence[Mapping[str, Member]], count: int, path: Path, policy: LabelPolicy) -> np.ndarray:
    """Integers [n], where they are needed; else any numbers [n, ...]: metrics.py tells what they mean."""
    found = [part["y"] for part in parts if "y" in part]
    shapes = {m.shape[1:] for m in found}
    classes = policy is LabelPolicy.NEEDED
    good = len(found) == len(parts) and all(m.shape and m.dtype.kind in ("iu" if classes else "biuf") for m in found)
    if not good or sum(m.shape[0] for m in found) != count or len(shapes) > 1 or (classes and shapes != {()}):
        what = f"y of {found[0].dtype} {list(found[0].shape)}" if found else "no array y"
        kind = "integer labels y" if classes else "labels y, classes or numbers"
        raise DataError(f"{path} has {what}", advice=f"Pass {kind}, one for each of the {count} samples.")
    return np.concatenate([_numbers(rows, path) for member in found for rows in member.chunks()])


def _numbers(rows: np.ndarray, path: Path) -> np.ndarray:
    """Labels as they are, but booleans and floats as float64, none larger than a float32 output can be."""
    if rows.dtype.kind in "iu":
        return rows
    _fitting(rows, np.dtype(np.float32), f"{path}: y")
    return rows.astype(np.float64)
