"""Labels and the source's answers in, whether the labels can be compared with the answers out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgeloop.convert.samples import Samples
from edgeloop.errors import DataError
from edgeloop.runtime.parity.compare import label_task
from edgeloop.runtime.parity.metrics import Task, class_numbers

VOID = frozenset({-1, 255})  # what data sets write where there is no class


def check_labels(expected: Mapping[str, np.ndarray], samples: Samples, path: Path | None) -> str | None:
    """Where labels go unused, all or some of them, a sentence that says so.

    Raises:
        DataError: They do not fit the output that they are for, or name a class that it does not have.
    """
    labels, named = samples.labels, samples.label_output
    if labels is None:
        return None
    names = ", ".join(expected)
    if named is not None and named not in expected:
        raise DataError(
            f"{path} has labels y/{named}, and the model has no output {named!r}",
            advice=f"Name the array y/OUTPUT for one of: {names}.",
        )
    if named is None and len(expected) > 1:
        return (
            f"The labels y of {path} were not used: the model has {len(expected)} outputs. "
            f"Name the array y/OUTPUT for one of: {names}."
        )
    name = named or next(iter(expected))
    task = label_task(expected, labels, named)
    if task is not None:
        return _void(task, expected[name], labels, path)
    output = expected[name]
    if not np.isfinite(output).all():
        return f"The labels y of {path} were not used: the size of the output {name!r} depends on the values."
    classes = f"class numbers {list(output.shape[:-1])} or " if output.ndim > 1 and output.shape[-1] > 1 else ""
    raise DataError(
        f"{path} has labels y of {labels.dtype} {list(labels.shape)}, and the model answers {list(output.shape)} in "
        f"{name!r}",
        advice=f"Save y as {classes}numbers {list(output.shape)}, or leave y out.",
    )


def _void(task: Task, output: np.ndarray, labels: np.ndarray, path: Path | None) -> str | None:
    """Labels that are no class of the model's: of single positions, as in a segmentation, -1 and 255 do not count."""
    if task is Task.NUMBERS and _is_probability(output) and set(np.unique(labels)) <= {0, 1, *VOID}:
        odd = sorted({*map(int, np.unique(labels))} & VOID)
        raise DataError(
            f"{path} has the label {odd[0]}, and the model answers probabilities from 0 to 1",
            advice="Save y as 0 and 1, without the samples that are neither.",
        )
    if not task.classifies:
        return None
    numbers, count = class_numbers(output, labels), output.shape[-1]
    odd_ones = numbers[(numbers < 0) | (numbers >= count)]
    if not odd_ones.size:
        return None
    values = sorted({*map(int, odd_ones)})
    if numbers.ndim > 1 and VOID.issuperset(values) and odd_ones.size < numbers.size:
        words = " and ".join(map(str, values))
        return f"Of the labels y of {path}, {odd_ones.size / numbers.size:.1%} are {words}: they do not count."
    raise DataError(
        f"{path} has the label {values[-1]}, and the model has {count} classes, 0 to {count - 1}",
        advice="Save y as the numbers of the model's own classes, without the samples that have none.",
    )


def _is_probability(output: np.ndarray) -> bool:
    return output.dtype.kind == "f" and bool(((output >= 0) & (output <= 1)).all())
