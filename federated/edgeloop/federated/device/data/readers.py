"""Formats of local data, read without TensorFlow: a row each in READERS. The first that knows the source reads it."""

from __future__ import annotations

import csv
import importlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.errors import DataError, MissingExtra, one_line
from edgeloop.federated.device.data.npz import read_arrays
from edgeloop.federated.device.data.samples import Samples
from edgeloop.federated.device.data.tfrecord import holds_tfrecords, read_tfrecords
from edgeloop.idx import IMAGES, read_pairs

LABELS = ("y", "label")  # a column of one of these names holds the labels
TEST = "t10k-"  # begins the names of MNIST's test data, which no device trains on beside others
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")
FORMS = (
    "Expected an .npz or .csv file, TFRecord files, a folder of IDX files, a folder with a folder of pictures for each "
    "class, or module:function."
)


def read_samples(source: str) -> Samples:
    """The samples of a file, a folder or a function.

    Raises:
        DataError: Nothing there, of another kind, or damaged; names what was found.
        MissingExtra: Pillow is not installed, and the source is a folder of pictures.
    """
    for recognizes, read in READERS.values():
        if recognizes(source):
            return read(source)
    found = "is no data that a device reads" if os.path.exists(source) else "does not exist"
    raise DataError(f"{source} {found}", advice=FORMS)


def _read_npz(source: str) -> Samples:
    arrays = read_arrays(source)
    y = arrays.pop("y")
    return Samples(source, arrays, y)


def _read_idx(source: str) -> Samples:
    files = sorted(Path(source, name) for name in os.listdir(source) if IMAGES in name)
    to_train = [file for file in files if not file.name.startswith(TEST)]
    x, y = read_pairs(Path(source), to_train or files)
    return Samples(source, {"x": x}, y.astype(np.int32), pixels=True, shaped=False)


def _read_csv(source: str) -> Samples:
    try:
        with open(source, newline="", encoding="utf-8-sig") as file:
            header, *rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as e:
        raise DataError(f"{source} cannot be read ({one_line(e)})", advice="Expected a header and rows.") from e
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise DataError(
                f"{source}, row {number}, has {len(row)} values, its header {len(header)}", advice="Correct the file."
            )
    names = [name.strip() for name in header]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{source} has two columns {twice!r}", advice="Give each column a name of its own.")
    columns = {name.strip(): _column(source, name, [row[i] for row in rows]) for i, name in enumerate(header)}
    label = next((name for name in LABELS if name in columns), None)
    if label is None:
        raise DataError(f"{source} has the columns {list(columns)}, none of labels", advice="Name one y or label.")
    y = columns.pop(label)
    whole = np.array_equal(y, np.rint(y)) and bool((np.abs(y) < 2.0**31).all())
    return Samples(source, columns, y.astype(np.int32) if whole else y, shaped=False)


def _column(source: str, name: str, words: list[str]) -> np.ndarray:
    try:
        return np.array([float(word) for word in words], np.float32)
    except ValueError as e:
        raise DataError(f"{source}: column {name!r} holds {one_line(e, 80)}", advice="Expected numbers.") from e


def _read_pictures(source: str) -> Samples:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as e:
        raise MissingExtra(
            f"{source} holds pictures, and Pillow is not installed", advice="Run: pip install pillow"
        ) from e
    x: list[np.ndarray] = []
    y: list[int] = []
    sizes: dict[tuple[int, ...], str] = {}
    classes = _classes(source)
    for label, kind in enumerate(classes):
        folder = os.path.join(source, kind)
        for name in sorted(name for name in os.listdir(folder) if name.lower().endswith(PICTURES)):
            path = os.path.join(folder, name)
            try:
                with Image.open(path) as picture:
                    x.append(np.asarray(picture if picture.mode == "L" else picture.convert("RGB")))
            except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as e:
                raise DataError(f"{path} is no picture ({one_line(e, 80)})", advice="Remove it.") from e
            sizes.setdefault(x[-1].shape, path)
            y.append(label)
    if len(sizes) > 1:
        (first, a), (second, b), *_ = sizes.items()
        raise DataError(
            f"{a} has the shape {list(first)}, {b} has {list(second)}",
            advice=(
                "Convert all to one colour mode."
                if len(first) != len(second) and first[:2] == second[:2]
                else "Resize all pictures to the model's input."
            ),
        )
    labels = np.array(y, np.int32)
    return Samples(source, {"x": np.array(x)}, labels, pixels=True, shaped=False, classes=tuple(classes))


def _classes(source: str) -> list[str]:
    """Folders in the order of their names, the classes from 0. One without pictures counts: a device that lacks a class
    would otherwise number those after it as no other device does."""
    return sorted(entry.name for entry in os.scandir(source) if entry.is_dir() and not entry.name.startswith("."))


def _holds_pictures(source: str) -> bool:
    return os.path.isdir(source) and any(
        name.lower().endswith(PICTURES) for kind in _classes(source) for name in os.listdir(os.path.join(source, kind))
    )


def _call_function(source: str) -> Samples:
    module, _, function = source.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = getattr(importlib.import_module(module), function)()
    except Exception as e:  # the user's code may raise anything
        raise DataError(
            f"{source} failed: {one_line(f'{type(e).__name__}: {e}')}", advice="Correct the function."
        ) from e
    expected = "Return (x, y), or ({name: array}, y)."
    if not isinstance(found, tuple) or len(found) != 2:
        raise DataError(f"{source} returned {type(found).__name__}", advice=expected)
    inputs, y = found
    named = inputs if isinstance(inputs, dict) else {"x": inputs}
    return Samples(source, {str(name): np.asarray(array) for name, array in named.items()}, np.asarray(y))


def _holds_idx(source: str) -> bool:
    return os.path.isdir(source) and any(IMAGES in name for name in os.listdir(source))


# recognizes a source, reads it
READERS: dict[str, tuple[Callable[[str], bool], Callable[[str], Samples]]] = {
    "npz": (lambda source: source.endswith(".npz") and os.path.isfile(source), _read_npz),
    "csv": (lambda source: source.endswith(".csv") and os.path.isfile(source), _read_csv),
    "tfrecord": (holds_tfrecords, read_tfrecords),
    "idx": (_holds_idx, _read_idx),
    "pictures": (_holds_pictures, _read_pictures),
    "function": (
        lambda source: not os.path.exists(source) and bool(re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", source)),
        _call_function,
    ),
}
