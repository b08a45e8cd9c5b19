"""Open a set of examples, by what lies at a path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeloop.cloud.input.examples import Examples
from edgeloop.cloud.input.formats.csv import open_csv
from edgeloop.cloud.input.formats.idx import open_idx
from edgeloop.cloud.input.formats.images import SUFFIXES, open_images
from edgeloop.cloud.input.formats.npz import open_npz
from edgeloop.cloud.input.formats.parquet import open_parquet
from edgeloop.cloud.input.formats.tfrecord import open_tfrecord
from edgeloop.cloud.input.options import DataFormat, DataOptions
from edgeloop.errors import DataError
from edgeloop.idx import IMAGES


@dataclass(frozen=True, slots=True)
class Reader:
    """How files of a format are found and opened.

    Attributes:
        endings: Of files' names, in small letters; a single file of any name is read if `DataOptions.format` says so.
        open: `(options, files)`; the files are sorted.
        nested: Files lie in folders below the given one.
    """

    endings: tuple[str, ...]
    open: Callable[[DataOptions, Sequence[Path]], Examples]
    nested: bool = False


READERS: dict[DataFormat, Reader] = {  # the first format whose files are there is taken
    DataFormat.NPZ: Reader((".npz",), open_npz),
    DataFormat.IDX: Reader((IMAGES, f"{IMAGES}.gz"), open_idx),
    DataFormat.TFRECORD: Reader((".tfrecord", ".tfrecords", ".tfrecord.gz", ".tfrecords.gz"), open_tfrecord),
    DataFormat.PARQUET: Reader((".parquet",), open_parquet),
    DataFormat.CSV: Reader((".csv",), open_csv),
    DataFormat.IMAGES: Reader(SUFFIXES, open_images, nested=True),
}


def open_examples(options: DataOptions) -> Examples:
    """The examples at `options.path`; their number, kinds and labels are checked, most values are not read yet.

    Raises:
        DataError: Nothing there that can be read, or the reader refuses it.
        MissingExtra: A package of the format is not installed.
    """
    path = options.path
    if not path.exists():
        raise DataError(f"{path} does not exist", advice="Pass a file, or a folder of files of one format.")
    for kind in [options.format] if options.format else READERS:
        files = _files(path, READERS[kind])
        if files or (options.format and path.is_file()):
            return READERS[kind].open(options, files or [path])
    kinds = f"files of the format {options.format}" if options.format else "data"
    raise DataError(f"{path} holds no {kinds}", advice=f"Formats are {', '.join(READERS)}.")


def _files(path: Path, reader: Reader) -> list[Path]:
    """Sorted; hidden files and folders, and what a killed writer left, are none."""
    if path.is_file():
        return [] if reader.nested or not path.name.lower().endswith(reader.endings) else [path]
    found = path.rglob("*") if reader.nested else path.iterdir()
    named = (file for file in found if file.name.lower().endswith(reader.endings) and file.is_file())
    return sorted(file for file in named if not any(part[0] == "." for part in file.relative_to(path).parts))
