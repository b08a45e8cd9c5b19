"""CSV files with a header line; the kind of each column is inferred by PyArrow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeloop.cloud.input.examples import Examples
from edgeloop.cloud.input.formats.table import from_table, needed_columns
from edgeloop.cloud.input.memory import see_that_it_fits
from edgeloop.cloud.input.options import DataOptions
from edgeloop.errors import DataError, one_line
from edgeloop.extras import need


def open_csv(options: DataOptions, files: Sequence[Path]) -> Examples:
    """All rows of all files, in memory.

    Raises:
        DataError: A line with another number of values, a column of several kinds, files with other columns, more than
            the memory holds; as `from_table`.
    """
    arrow, reader = need("pyarrow", extra="cloud"), need("pyarrow.csv", extra="cloud")
    see_that_it_fits(str(options.path), sum(file.stat().st_size for file in files))
    tables = []
    for file in files:
        try:
            table = reader.read_csv(file)
        except (arrow.ArrowInvalid, OSError) as e:
            raise DataError(f"{file}: {one_line(e)}", advice="Correct the file.") from e
        tables.append(table.select(needed_columns(str(file), table.column_names, options)))
    return from_table(str(options.path), joined(options.path, files, tables), options)


def joined(path: Path, files: Sequence[Path], tables: Sequence) -> object:
    """One table of several with the same columns; numbers of two kinds become the wider one.

    Raises:
        DataError: Columns that differ.
    """
    arrow = need("pyarrow", extra="cloud")
    for file, table in zip(files, tables, strict=True):
        if table.column_names != tables[0].column_names:
            raise DataError(
                f"{file} has the columns {table.column_names}, and {files[0].name} has {tables[0].column_names}",
                advice="Write all files with the same columns.",
            )
    try:
        return arrow.concat_tables(tables, promote_options="permissive")
    except (arrow.ArrowInvalid, arrow.ArrowTypeError) as e:
        raise DataError(f"the columns of {path} differ in kind: {one_line(e)}", advice="Write them alike.") from e
