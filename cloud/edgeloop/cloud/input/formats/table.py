"""A table of columns (CSV, Parquet) as examples, one row each: numbers side by side are one feature `x`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edgeloop.cloud.input.arrays import from_arrays
from edgeloop.cloud.input.examples import Examples
from edgeloop.cloud.input.options import DataOptions
from edgeloop.errors import DataError
from edgeloop.extras import need
from edgeloop.settings import suggestion

LABEL, STACKED = "label", "x"


def needed_columns(name: str, known: list[str], options: DataOptions) -> list[str]:
    """The columns to read: features, label and time, or all.

    Raises:
        DataError: One of them is not there.
    """
    for column in (*options.features, *filter(None, (options.label, options.time))):
        if column not in known:
            raise DataError(f"{name} has no column {column!r}", advice=suggestion(column, known))
    if not options.features:
        return known
    label = options.label or (LABEL if LABEL in known else None)
    return [*options.features, *filter(None, (label, options.time))]


def from_table(name: str, table: Any, options: DataOptions) -> Examples:
    """Examples of a pyarrow Table: single numbers become one feature `x` float32 [columns], lists one of their own.

    Raises:
        DataError: A missing value, a text among the features, lists of several lengths; as `from_arrays`.
    """
    label = options.label or LABEL
    arrays = {column: _array(name, column, table.column(column)) for column in table.column_names}
    features = options.features or tuple(column for column in arrays if column not in (label, options.time))
    for column in features:
        if arrays[column].dtype.kind not in "biuf":
            raise DataError(
                f"{name}: the column {column} holds no numbers",
                advice="Encode it as numbers, or name the features to read: [data] features = [...].",
            )
    single = [column for column in features if arrays[column].ndim == 1]
    rest = {column: arrays[column] for column in features if column not in single}
    stacked = {STACKED: np.stack([arrays[c].astype(np.float32) for c in single], 1)} if single else {}
    kept = {column: arrays[column] for column in (label, options.time) if column is not None and column in arrays}
    return from_arrays(name, {**stacked, **rest, **kept}, replace(options, features=(*stacked, *rest)), label)


def _array(name: str, column: str, values: Any) -> np.ndarray:
    if values.null_count:
        row = next(i for i, value in enumerate(values) if not value.is_valid)
        raise DataError(
            f"{name}: row {row} (counted from 0) has no value in the column {column}",
            advice="Fill it in, or leave the row out.",
        )
    flat, shape = values.combine_chunks(), [len(values)]
    compute = need("pyarrow.compute", extra="cloud")
    while "list" in str(flat.type).partition("<")[0]:
        lengths = compute.unique(compute.list_value_length(flat)).to_pylist()
        if len(lengths) > 1:
            raise DataError(f"{name}: the lists in the column {column} differ in length", advice="Make them equal.")
        flat, shape = flat.flatten(), [*shape, *lengths]
    return np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(shape)
