"""A user's data with words in, the same with numbers out, for a model that was cut behind its lookup.

Words are looked up by what was cut off: the layer of a Keras model, the operations up to the table of a SavedModel.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from edgeloop.bundle import TensorSpec
from edgeloop.convert.read_samples import array_of, npz_files
from edgeloop.convert.sources.source_value import Lookup, Source
from edgeloop.errors import DataError, one_line
from edgeloop.files.npz import Member, members, readable

WORDS = "SU"  # kinds of dtypes: bytes in UTF-8, and text
ADVICE = "Save texts as the model was trained on them, in UTF-8."


def look_up(path: Path, source: Source, folder: Path) -> Path:
    """`path` itself where it holds no words that the source looks up; else `folder`, with a file for each of its files.

    Args:
        path: A .npz or a folder of them, with arrays as `read_samples` takes them.
        folder: Is made.

    Raises:
        DataError: No .npz, or words that do not fit the model or cannot be looked up.
    """
    if not source.lookups:
        return path
    files = npz_files(path)
    parts = [members(file) for file in files]
    numbers: dict[str, list[np.ndarray]] = {}
    for spec in source.inputs:
        name = array_of(parts, spec.name, len(source.inputs)) if spec.name in source.lookups else None
        if name is not None and all(part[name].dtype.kind in WORDS for part in parts):
            numbers[name] = _numbers([part[name] for part in parts], spec, source.lookups[spec.name], path)
    if not numbers:
        return path
    folder.mkdir(exist_ok=True)  # of an attempt that crashed
    for index, (file, part) in enumerate(zip(files, parts, strict=True)):
        _write(folder / f"{file.stem}.npz", file, part, {name: each[index] for name, each in numbers.items()})
    return folder


def _numbers(found: Sequence[Member], spec: TensorSpec, lookup: Lookup, path: Path) -> list[np.ndarray]:
    """Of each file, [n, ...]; where the model takes texts of any length, as long as the longest of all files."""
    for member in found:
        if not _fits(member, lookup.text):
            shape = "[n" + "".join(f", {'any' if d is None else d}" for d in lookup.text.shape[1:]) + "]"
            raise DataError(
                f"{path}: the words of {spec.name} have shape {list(member.shape)}, and the model takes {shape}",
                advice="Save arrays of that shape.",
            )
    try:
        if None in spec.shape[1:]:
            texts = [np.concatenate(list(_texts(member))) for member in found]
            ends = np.cumsum([len(text) for text in texts])[:-1]
            return np.split(lookup.numbers(np.concatenate(texts)), ends)
        return [np.concatenate([lookup.numbers(rows) for rows in _texts(member)]) for member in found]
    except DataError:
        raise
    except Exception as e:  # of NumPy, Keras or TensorFlow, which raise many types: it is no text, or not UTF-8
        raise DataError(
            f"{path}: the words of {spec.name} cannot be looked up ({one_line(e, 200)})", advice=ADVICE
        ) from e


def _fits(member: Member, text: TensorSpec) -> bool:
    if len(member.shape) != max(1, len(text.shape)) or not member.shape[0]:
        return False
    return all(d in (None, have) for d, have in zip(text.shape[1:], member.shape[1:], strict=True))


def _texts(member: Member) -> Iterator[np.ndarray]:
    """Rows as bytes, some at a time."""
    for rows in member.chunks():
        yield rows if rows.dtype.kind == "S" else np.char.encode(rows, "utf-8")


def _write(out: Path, file: Path, part: Mapping[str, Member], numbers: Mapping[str, np.ndarray]) -> None:
    """The file with these arrays in place of its own."""
    with readable(file), zipfile.ZipFile(file) as given, zipfile.ZipFile(out, "w") as made:
        for name, member in part.items():
            with made.open(f"{name}.npy", "w", force_zip64=True) as target:
                if name in numbers:
                    np.lib.format.write_array(target, numbers[name], allow_pickle=False)
                else:
                    with given.open(member.entry) as own:
                        shutil.copyfileobj(own, target)
