"""Files of the IDX format (MNIST's), packed by gzip or not: `*images-idx3-ubyte*` with `*labels-idx1-ubyte*` beside it.

Source: http://yann.lecun.com/exdb/mnist/ ("the IDX file format")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeloop.cloud.input.arrays import from_arrays
from edgeloop.cloud.input.examples import Examples
from edgeloop.cloud.input.options import DataOptions
from edgeloop.errors import DataError
from edgeloop.idx import read_pair


def open_idx(options: DataOptions, files: Sequence[Path]) -> Examples:
    """Images uint8 [n, height, width, 1] and their labels, of all pairs of files end to end.

    Raises:
        DataError: A damaged file, images without labels, or of several sizes.
    """
    pairs = [read_pair(file) for file in files]
    sizes = {x.shape[1:] for x, _ in pairs}
    if len(sizes) > 1:
        raise DataError(
            f"{options.path} holds images of sizes {sorted(sizes)}, expected one size",
            advice="Use a folder for each size.",
        )
    x, y = (np.concatenate(column) if len(pairs) > 1 else column[0] for column in zip(*pairs, strict=True))
    ranged = replace(options, value_range=options.value_range or (0.0, 1.0))
    return from_arrays(str(options.path), {"x": x[..., None], "y": y}, ranged, options.label or "y")
