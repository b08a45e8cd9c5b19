"""Parquet files, read by PyArrow: only the columns that are needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeloop.cloud.input.examples import Examples
from edgeloop.cloud.input.formats.csv import joined
from edgeloop.cloud.input.formats.table import from_table, needed_columns
from edgeloop.cloud.input.memory import see_that_it_fits
from edgeloop.cloud.input.options import DataOptions
from edgeloop.errors import DataError, one_line
from edgeloop.extras import need


def open_parquet(options: DataOptions, files: Sequence[Path]) -> Examples:
    """All rows of all files, in memory. A column of lists of equal lengths is a feature of that shape.

    Raises:
        DataError: A damaged file, files with other columns, more than the memory holds; as `from_table`.
    """
    arrow, parquet = need("pyarrow", extra="cloud"), need("pyarrow.parquet", extra="cloud")
    tables, size = [], 0
    for file in files:
        try:
            with parquet.ParquetFile(file) as opened:
                columns = needed_columns(str(file), opened.schema_arrow.names, options)
                groups = (opened.metadata.row_group(i) for i in range(opened.metadata.num_row_groups))
                size += sum(group.total_byte_size for group in groups)
                see_that_it_fits(str(options.path), size)
                tables.append(opened.read(columns))
        except (arrow.ArrowInvalid, OSError) as e:
            raise DataError(f"{file} is no Parquet file: {one_line(e)}", advice="Write it again.") from e
    return from_table(str(options.path), joined(options.path, files, tables), options)
