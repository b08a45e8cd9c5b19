"""Samples in an .npz file."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np

from edgeloop.errors import DataError, one_line


def read_shard(path: str | os.PathLike[str], names: Sequence[str]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The inputs `names` and the labels `y` of a shard (.npz). Arrays are named as the inputs, or `in/NAME`; one input
    may be called `x`.

    Raises:
        DataError: No such file, no .npz, pickled objects in it, or no `y`.
    """
    shard = read_arrays(path)
    y = shard.pop("y")
    if len(names) == 1 and list(shard) == ["x"]:
        return {names[0]: shard["x"]}, y
    return shard, y


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All arrays, `y` among them, which is [N, ...] as every other one.

    Raises:
        DataError: As `read_shard`; no sample, unequal numbers of samples, NaN.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise ValueError("one bare array")
        with loaded:
            shard = {name[3:] if name.startswith("in/") else name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as e:
        reason = one_line(e, 200)
        raise DataError(f"{path} is not a shard ({reason})", advice="Pass an .npz file with the inputs and y.") from e
    if "y" not in shard:
        raise DataError(f"{path} holds {sorted(shard)} and no labels", advice="Add an array named y.")
    counts = {name: len(array) if array.ndim else 0 for name, array in shard.items()}
    if len(set(counts.values())) > 1 or not counts["y"] or len(shard) == 1:
        raise DataError(
            f"{path} holds {_listed(counts)}", advice="Expected at least one sample, and one label for each."
        )
    for name, array in shard.items():
        if not np.issubdtype(array.dtype, np.number):
            raise DataError(f"{path}: {name} holds {array.dtype}", advice="Expected numbers.")
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise DataError(f"{path}: {name} holds NaN or Infinity", advice="Clean the data first.")
    return shard


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} of {name}" for name, count in sorted(counts.items()))
