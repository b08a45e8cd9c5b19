"""Arrays from a user's .npz, checked against the model before anything is measured with them."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeloop.bundle import TensorSpec
from edgeloop.errors import DataError

SYNTHETIC = 16  # samples made up where a user gives none
FREE_SIZE = 32  # of a made-up sample along a free dimension other than the batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """`inputs` {name: [n, ...]}, `labels` integers [n] or None; `real` is False for made-up values."""

    inputs: dict[str, np.ndarray]
    labels: np.ndarray | None = None
    real: bool = True

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def take(self, count: int) -> Samples:
        """The first `count` samples."""
        labels = None if self.labels is None else self.labels[:count]
        return Samples(inputs={n: a[:count] for n, a in self.inputs.items()}, labels=labels, real=self.real)


def read_samples(path: str | Path, specs: Sequence[TensorSpec], *, labels: bool = False) -> Samples:
    """A .npz, or a folder of them, with `in/NAME`, `NAME` or (for one input) `x`; `y` where labels are wanted.

    Raises:
        DataError: Missing, no .npz, pickled, an input that is absent, of another dtype or shape, or not finite;
            labels that are absent, no integers, or of another number.
    """
    path = Path(path)
    files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise DataError(f"{path} is no .npz file and no folder with some. Make one with numpy.savez.")
    parts = [_arrays(file) for file in files]
    keys = sorted(set(parts[0]).intersection(*parts[1:]))
    try:
        arrays = {key: np.concatenate([part[key] for part in parts]) for key in keys}
    except ValueError as e:
        raise DataError(f"{path}: its files do not fit together ({e}). Save them with equal shapes.") from e
    inputs = {spec.name: _input(arrays, spec, len(specs), path) for spec in specs}
    counts = {name: len(a) for name, a in inputs.items()}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        raise DataError(f"{path} holds samples {counts}. Expected as many of each input, and at least one.")
    y = _labels(arrays, next(iter(counts.values())), path) if labels else None
    return Samples(inputs=inputs, labels=y)


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


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise DataError(f"{path} holds one bare array. Save it by name: numpy.savez(path, x=array).")
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, MemoryError) as e:
        raise DataError(f"{path} is no .npz file of plain arrays ({e}). Make one with numpy.savez.") from e


def _input(arrays: dict[str, np.ndarray], spec: TensorSpec, inputs: int, path: Path) -> np.ndarray:
    names = [f"in/{spec.name}", spec.name, *(["x"] if inputs == 1 else [])]
    found = [name for name in names if name in arrays]
    if not found:
        raise DataError(
            f"{path} has arrays {sorted(arrays)}, none for the input {spec.name!r}. Name one {names[-1]!r}."
        )
    array, wanted = arrays[found[0]], np.dtype(spec.dtype)
    if array.dtype.kind != wanted.kind:
        raise DataError(
            f"{path}: {found[0]} is {array.dtype}, the model takes {wanted}. Convert it as the model saw it."
        )
    fits = array.ndim == len(spec.shape) and all(
        d is None or d == have for d, have in zip(spec.shape[1:], array.shape[1:], strict=True)
    )
    if not fits:
        shape = "[n" + "".join(f", {'any' if d is None else d}" for d in spec.shape[1:]) + "]"
        raise DataError(f"{path}: {found[0]} has shape {list(array.shape)}, the model takes {shape}.")
    with np.errstate(over="ignore"):  # what does not fit is looked for, right below
        cast = array.astype(wanted, copy=False)
    if wanted.kind == "f" and not np.isfinite(cast).all():
        raise DataError(f"{path}: {found[0]} holds NaN, infinity or a number beyond {wanted}. Take those samples out.")
    if wanted.kind in "iu" and not np.array_equal(cast, array):
        raise DataError(f"{path}: {found[0]} holds integers beyond {wanted}. Expected what the model takes.")
    return cast


def _labels(arrays: dict[str, np.ndarray], count: int, path: Path) -> np.ndarray:
    y = arrays.get("y")
    if y is None or y.dtype.kind not in "iu" or y.shape != (count,):
        found = "no array y" if y is None else f"y of {y.dtype} {list(y.shape)}"
        raise DataError(f"{path} has {found}. Expected integer labels y [{count}].")
    return y
