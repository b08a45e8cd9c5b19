"""Labels and the source's answers in, whether the labels can be compared with the answers out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgeloop.errors import DataError
from edgeloop.runtime.parity.compare import label_task


def check_labels(expected: Mapping[str, np.ndarray], labels: np.ndarray | None, path: Path | None) -> str | None:
    """Where labels go unused, a sentence that says so.

    Raises:
        DataError: They do not fit the one output that there is.
    """
    if labels is None or label_task(expected, labels) is not None:
        return None
    if len(expected) > 1:
        return f"The labels y of {path} were not used: the model has {len(expected)} outputs."
    ((name, output),) = expected.items()
    if not np.isfinite(output).all():
        return f"The labels y of {path} were not used: the size of the output {name!r} depends on the values."
    classes = f"class numbers {list(output.shape[:-1])} or " if output.ndim > 1 and output.shape[-1] > 1 else ""
    raise DataError(
        f"{path} has labels y of {labels.dtype} {list(labels.shape)}, and the model answers {list(output.shape)} in "
        f"{name!r}",
        advice=f"Save y as {classes}numbers {list(output.shape)}, or leave y out.",
    )
