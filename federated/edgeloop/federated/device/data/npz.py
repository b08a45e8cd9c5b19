"""Samples in an .npz file."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence

import numpy as np

from edgeloop.errors import DataError, one_line
from edgeloop.federated.device.data.samples import Samples


def read_shard(path: str | os.PathLike[str], names: Sequence[str]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The inputs `names` and the labels `y` of a shard (.npz). Arrays are named as the inputs, or `in/NAME`; one input
    may be called `x`.

    Raises:
        DataError: No such file, no .npz, pickled objects in it, no `y`, or samples that `Samples` refuses.
    """
    shard = read_arrays(path)
    y = shard.pop("y")
    Samples(os.fspath(path), shard, y)  # numbers, one label for each sample
    if len(names) == 1 and list(shard) == ["x"]:
        return {names[0]: shard["x"]}, y
    return shard, y


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All arrays, `y` among them.

    Raises:
        DataError: As `read_shard`.
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
    return shard
