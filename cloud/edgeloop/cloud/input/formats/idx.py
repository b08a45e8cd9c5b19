"""Files of the IDX format (MNIST's), packed by gzip or not: `*images-idx3-ubyte*` with `*labels-idx1-ubyte*` beside it.

Source: http://yann.lecun.com/exdb/mnist/ ("the IDX file format")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgeloop.cloud.input.arrays import from_arrays
from edgeloop.cloud.input.examples import Examples
from edgeloop.cloud.input.options import DataOptions
from edgeloop.idx import read_pairs


def open_idx(options: DataOptions, files: Sequence[Path]) -> Examples:
    """Images uint8 [n, height, width, 1] and their labels, of all pairs of files end to end.

    Raises:
        DataError: A damaged file, images without labels, or of several sizes.
    """
    x, y = read_pairs(options.path, files)
    ranged = replace(options, value_range=options.value_range or (0.0, 1.0))
    return from_arrays(str(options.path), {"x": x[..., None], "y": y}, ranged, options.label or "y")
