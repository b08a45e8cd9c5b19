"""Decoded examples kept in memory or in one file, so that every epoch after the first reads nothing.

All examples are decoded once, in their stored order, into arrays; from then on they are fetched by number. Unlike
tf.data's own `cache`, this leaves each epoch a permutation of all examples, and a batch is one `gather`.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from typing import Any

import numpy as np

from edgeloop.cloud.input.arrays import numbered
from edgeloop.cloud.input.damage import named_damage
from edgeloop.cloud.input.examples import WHOLE, Examples, Numbered
from edgeloop.cloud.input.memory import see_that_it_fits
from edgeloop.cloud.input.options import Cache, PipelineOptions
from edgeloop.cloud.input.order import parallel, stored, unconverted
from edgeloop.extras import need
from edgeloop.files.npz import ArrayFile
from edgeloop.progress import Progress, silent

PIECE = 256  # examples of one piece while the cache is filled


def cached(examples: Examples, options: PipelineOptions, progress: Progress = silent) -> Examples:
    """The same examples, decoded once and kept as `options.cache` says; those that lie in arrays stay as they are.

    The features are kept as they are before `Examples.finish`, e.g. images as bytes. The file of `cache = "disk"`
    has no name and ends with this process.

    Raises:
        DataError: More than the memory holds, or as `named_damage`.
    """
    if options.cache is Cache.NONE or (isinstance(examples.source, Numbered) and examples.source.in_memory):
        return examples
    in_memory = options.cache is Cache.MEMORY
    if in_memory and examples.count is not None:
        needed = examples.count * examples.stored_bytes
        see_that_it_fits(examples.name, needed, 'Write cache = "disk", or smaller images.')
    with named_damage(examples):
        features, labels = _decoded(examples, options, progress, in_memory)
    times = examples.source.times if isinstance(examples.source, Numbered) else None
    return replace(examples, source=numbered(features, labels, times, in_memory=in_memory))


def _decoded(
    examples: Examples, options: PipelineOptions, progress: Progress, in_memory: bool
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Every example before `finish`: arrays by feature, and labels."""
    tf = need("tensorflow", extra="cloud")
    source, names = examples.source, list(examples.features)
    single = stored(source, WHOLE).map(unconverted(source.decode), **parallel(options.parallel_map))
    pieces = single.batch(PIECE).prefetch(tf.data.AUTOTUNE)
    columns: dict[str, _Column] = {}
    done = 0
    for features, *labels in pieces:
        batch = dict(features) if isinstance(features, dict) else {names[0]: features}
        for key, value in (*batch.items(), *((("", labels[0]),) if labels else ())):
            array = value.numpy()
            if key not in columns:
                columns[key] = _Column(array.dtype, options, in_memory)
            columns[key].add(array)
        done += len(array)
        progress("fill the cache", done, max(done, examples.count or 0))
    arrays = {key: column.array() for key, column in columns.items()}
    return {key: arrays[key] for key in names}, arrays.get("")


class _Column:
    """Rows that become one array, in memory or mapped."""

    def __init__(self, dtype: Any, options: PipelineOptions, in_memory: bool) -> None:
        self.pieces: list[np.ndarray] = []
        self.rows, self.shape = 0, ()
        folder = options.cache_folder or tempfile.gettempdir()
        self.file = None if in_memory else ArrayFile(np.dtype(dtype), folder)

    def add(self, rows: np.ndarray) -> None:
        self.rows, self.shape = self.rows + len(rows), rows.shape[1:]
        if self.file is None:
            self.pieces.append(rows)
        else:
            self.file.add(rows)

    def array(self) -> np.ndarray:
        if self.file is None:
            return np.concatenate(self.pieces)
        return self.file.array((self.rows, *self.shape))[0]
