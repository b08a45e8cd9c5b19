"""A .npz file, or a folder of them: arrays by name, one row an example."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeloop.cloud.input.arrays import from_arrays
from edgeloop.cloud.input.examples import Examples
from edgeloop.cloud.input.options import DataOptions
from edgeloop.errors import DataError
from edgeloop.files.npz import ArrayFile, Member, mapped, members

LABEL = "y"
INPUT = "in/"  # before the names of inputs in files that edgeloop writes


def open_npz(options: DataOptions, files: Sequence[Path]) -> Examples:
    """Arrays that lie in every file, end to end; nothing is unpickled, a file stored as it is is mapped.

    Raises:
        DataError: As `members` and `from_arrays`; files whose arrays differ in dtype or shape.
    """
    parts = [{key.removeprefix(INPUT): member for key, member in members(file).items()} for file in files]
    names = [key for key in parts[0] if all(key in part for part in parts)]
    arrays = {key: _joined([part[key] for part in parts], options) for key in names}
    return from_arrays(str(options.path), arrays, options, options.label or LABEL)


def _joined(found: Sequence[Member], options: DataOptions) -> np.ndarray:
    first = found[0]
    for member in found:
        if not member.shape or (member.dtype, member.shape[1:]) != (first.dtype, first.shape[1:]):
            raise DataError(
                f"{member.entry.filename} of {member.path} is {member.dtype} {list(member.shape)}, "
                f"that of {first.path.name} is {first.dtype} {list(first.shape)}",
                advice="Save one row for each example, with one dtype and one shape in all files.",
            )
    if len(found) == 1 and first.stored:
        return mapped(first)[0]
    whole = ArrayFile(first.dtype)
    for member in found:
        for rows in member.chunks():
            whole.add(rows)
    return whole.array((sum(member.shape[0] for member in found), *first.shape[1:]))[0]
