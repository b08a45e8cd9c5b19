"""Arrays from a user's .npz, checked against the model before anything is measured with them.

However many samples there are, few of them are in memory at a time: `Samples.inputs` are maps of files.
"""

from __future__ import annotations

import enum
import hashlib
import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeloop.bundle import TensorSpec
from edgeloop.convert.npz import ArrayFile, Member, mapped, members
from edgeloop.errors import DataError

Arrays = Mapping[str, np.ndarray]
Outputs = dict[str, np.ndarray]

SYNTHETIC = 16  # samples made up where a user gives none
FREE_SIZE = 32  # of a made-up sample along a free dimension other than the batch


class LabelPolicy(enum.Enum):
    """Whether to read the array `y`."""

    NONE = enum.auto()
    IF_ANY = enum.auto()
    NEEDED = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """`inputs` {name: [n, ...]}, `labels` integers [n] or None; `real` is False for made-up values.

    Attributes:
        inputs: Read-only, and perhaps not aligned where they are maps of a file. Whoever goes over all of them uses
            `batches`, which gives aligned copies and lets go of what it has read.
        maps: The mapped files under `inputs`.
    """

    inputs: dict[str, np.ndarray]
    labels: np.ndarray | None = None
    real: bool = True
    maps: tuple[mmap.mmap, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def take(self, count: int) -> Samples:
        """The first `count` samples."""
        labels = None if self.labels is None else self.labels[:count]
        inputs = {n: a[:count] for n, a in self.inputs.items()}
        return Samples(inputs=inputs, labels=labels, real=self.real, maps=self.maps)

    def batches(self, size: int, *, fill: bool = False) -> Iterator[dict[str, np.ndarray]]:
        """Copies of `size` samples at a time. The last batch is shorter or, with `fill`, filled up with the first."""
        count = len(self)
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
        return Samples(inputs={name: np.concatenate(each) for name, each in rows.items()}, real=self.real)

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


def read_samples(path: str | Path, specs: Sequence[TensorSpec], *, labels: LabelPolicy = LabelPolicy.NONE) -> Samples:
    """A .npz, or a folder of them, with `in/NAME`, `NAME` or (for one input) `x`; `y` where labels are wanted.

    Every value is looked at once, a quarter of a mebibyte at a time.

    Raises:
        DataError: Missing, no .npz, pickled, over the limit, an input that is absent, of another dtype or shape, or
            not finite; labels that are absent, no integers, or of another number.
    """
    path = Path(path)
    files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise DataError(f"{path} is neither an .npz file nor a folder of them", advice="Make one with numpy.savez.")
    parts = [members(file) for file in files]
    found = {spec.name: _find(parts, spec, len(specs), path) for spec in specs}
    counts = {name: sum(member.shape[0] for member in each) for name, each in found.items()}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        raise DataError(f"{path} holds {counts} samples", advice="Pass equally many of each input, and at least one.")
    wanted = labels is LabelPolicy.NEEDED or (labels is LabelPolicy.IF_ANY and any("y" in part for part in parts))
    y = _labels(parts, next(iter(counts.values())), path) if wanted else None
    inputs, maps = {}, []
    for spec in specs:
        inputs[spec.name], pages = _read(found[spec.name], spec)
        maps.append(pages)
    return Samples(inputs=inputs, labels=y, maps=tuple(maps))


def in_batches(call: Callable[[Arrays], Arrays], samples: Samples, fixed: int | None, size: int = 64) -> Outputs:
    """Every output of `call` for all samples, each [n, ...]: `size` at a time, or exactly the model's own `fixed`."""
    parts = [call(batch) for batch in samples.batches(fixed or size, fill=fixed is not None)]
    return {name: np.concatenate([np.asarray(part[name]) for part in parts])[: len(samples)] for name in parts[0]}


def synthetic(specs: Sequence[TensorSpec], seed: int = 0) -> Samples:
    """16 made-up samples: floats uniform in 0..1, integers 0 or 1. They prove arithmetic, not accuracy."""
    rng = np.random.default_rng(seed)
    inputs = {}
    for spec in specs:
        shape = [SYNTHETIC, *(FREE_SIZE if d is None else d for d in spec.shape[1:])]
        kind = np.dtype(spec.dtype).kind
        values = rng.random(shape) if kind == "f" else rng.integers(0, 2, shape)
        inputs[spec.name] = values.astype(spec.dtype)
    return Samples(inputs=inputs, real=False)


def _find(parts: Sequence[Mapping[str, Member]], spec: TensorSpec, inputs: int, path: Path) -> list[Member]:
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
        if len(member.shape) != len(spec.shape) or any(
            d not in (None, have) for d, have in zip(spec.shape[1:], member.shape[1:], strict=True)
        ):
            shape = "[n" + "".join(f", {'any' if d is None else d}" for d in spec.shape[1:]) + "]"
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


def _labels(parts: Sequence[Mapping[str, Member]], count: int, path: Path) -> np.ndarray:
    found = [part["y"] for part in parts if "y" in part]
    good = len(found) == len(parts) and all(m.dtype.kind in "iu" and len(m.shape) == 1 for m in found)
    if not good or sum(m.shape[0] for m in found) != count:
        what = f"y of {found[0].dtype} {list(found[0].shape)}" if found else "no array y"
        advice = f"Pass integer labels y, one for each of the {count} samples."
        if found and any(member.dtype.kind == "f" for member in found):
            advice += " For a model that predicts numbers, leave y out of --eval."
        raise DataError(f"{path} has {what}", advice=advice)
    return np.concatenate([rows for member in found for rows in member.chunks()])
