"""Examples with a soft target beside each label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.cloud.input.examples import Examples, Numbered
from edgeloop.errors import DataError
from edgeloop.extras import need


def read_targets(path: Path, examples: Examples) -> np.ndarray:
    """The soft targets in a .npy file, float32 [examples, classes], as they are stored.

    Raises:
        DataError: They cannot be read or are of another number of examples, or examples cannot be fetched by number.
    """
    if not isinstance(examples.source, Numbered):
        raise DataError(
            f"{examples.name} is read from one end to the other, so soft targets cannot be matched to its examples",
            advice="Distil from .npz, idx or CSV files, or from images in folders.",
        )
    try:
        targets = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as e:
        raise DataError(
            f"{path} cannot be read as .npy ({e})", advice="Run edgeloop distill again: it writes this file."
        ) from e
    if len(targets) != examples.source.count:
        raise DataError(
            f"{examples.name} has {examples.source.count} examples, and there are {len(targets)} soft targets",
            advice="Ask the teachers again: edgeloop distill does it.",
        )
    return targets


def check_width(path: Path, outputs: int) -> None:
    """Whether a student with so many outputs can learn the soft targets in a .npy file.

    Raises:
        DataError: They are of another number of classes.
    """
    shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
    if outputs < 2 or shape[1:] != (outputs,):
        raise DataError(
            f"the soft targets have the shape {list(shape)}, and the student has {outputs} output{'s'[: outputs != 1]}",
            advice="Give the student one output for each class of the teachers, two or more.",
        )


def with_soft_targets(examples: Examples, targets: np.ndarray) -> Examples:
    """The same examples, each label a pair (label, soft target [classes]).

    Args:
        examples: That can be fetched by number.
        targets: Float32 [count, classes], in their stored order.
    """
    source = examples.source
    assert isinstance(source, Numbered)  # `read_targets` looked
    held: list[Any] = []

    def target(numbers: Any) -> Any:
        tf = need("tensorflow", extra="cloud")
        if not held:
            with tf.init_scope(), tf.device("CPU:0"):  # eager: a graph holds no constants above 2 GB
                held.append(tf.constant(targets))
        return tf.gather(held[0], numbers)

    def relabeling(decode: Callable[[Any], tuple[Any, Any]]) -> Callable[[Any], tuple[Any, Any]]:
        def relabeled(number: Any) -> tuple[Any, Any]:
            features, label = decode(number)
            return features, (label, target(number))

        return relabeled

    many = None if source.decode_batch is None else relabeling(source.decode_batch)
    return replace(examples, source=replace(source, decode=relabeling(source.decode), decode_batch=many))
