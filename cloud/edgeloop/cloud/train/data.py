"""Labelled examples of a training: read, checked before the first step, and handed out in batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.errors import DataError, OptionsError
from edgeloop.extras import need


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Which data.

    Attributes:
        path: A .npz file: inputs by name (or x), and y.
        validation: Data of the same kind to decide by; None: a part of `path` is held out.
        held_out: Share of `path` that no step trains on, above 0 and below 1.
        batch: Examples of one step on each replica.
    """

    path: Path
    validation: Path | None = None
    held_out: float = 0.1
    batch: int = 32

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise OptionsError(f"[data] batch is {self.batch}", advice="It must be 1 or more.")
        if not 0 < self.held_out < 1:
            raise OptionsError(f"[data] held-out is {self.held_out}", advice="It must be above 0 and below 1.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Arrays in memory: `features` by input name [n, ...], `labels` [n]."""

    features: Mapping[str, np.ndarray]
    labels: np.ndarray

    @property
    def count(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int | None:
        """Labels are 0 to classes - 1; None: they are numbers to predict."""
        return int(self.labels.max()) + 1 if self.labels.dtype.kind in "iu" else None

    def take(self, index: np.ndarray) -> Examples:
        return Examples(features={k: v[index] for k, v in self.features.items()}, labels=self.labels[index])


def open_examples(path: Path) -> Examples:
    """The arrays of a .npz file.

    Raises:
        DataError: It cannot be read, lacks y, or its arrays differ in length.
    """
    try:
        with np.load(path) as packed:
            arrays = {name.removeprefix("in/"): packed[name] for name in packed.files}
    except (OSError, ValueError) as e:
        raise DataError(f"{path} cannot be read as .npz ({e})", advice="Pass a file that numpy.savez wrote.") from e
    labels = arrays.pop("y", None)
    if labels is None or not arrays:
        raise DataError(f"{path} lacks {'y' if labels is None else 'inputs'}", advice="Store x and y in it.")
    if len({len(labels), *map(len, arrays.values())}) > 1:
        raise DataError(f"the arrays of {path} differ in length", advice="Store one label for each input.")
    return Examples(features=arrays, labels=labels)


def training_and_validation(config: DataConfig, seed: int) -> tuple[Examples, Examples]:
    """What steps train on, and what decides when to stop."""
    examples = open_examples(config.path)
    if config.validation is not None:
        return examples, open_examples(config.validation)
    held = int(config.held_out * examples.count)
    order = np.random.default_rng(seed).permutation(examples.count)
    if held < 1:
        raise DataError(
            f"{config.path} has {examples.count} examples, of which {config.held_out:g} is none",
            advice="Pass more examples, or a larger [data] held-out.",
        )
    return examples.take(order[held:]), examples.take(order[:held])


def batches(examples: Examples, batch: int, *, shuffle: tuple[int, int] | None) -> Any:
    """A tf.data.Dataset of (features, labels); `shuffle` is (seed, epoch): whole batches in another order each epoch.

    None: every example once, in order, the last batch perhaps smaller.
    """
    tf = need("tensorflow", extra="cloud")
    features: Any = dict(examples.features)
    order = np.arange(examples.count) if shuffle is None else np.random.default_rng(shuffle).permutation(examples.count)
    taken = examples.take(order)
    features = next(iter(taken.features.values())) if len(features) == 1 else dict(taken.features)
    found = tf.data.Dataset.from_tensor_slices((features, taken.labels))
    return found.batch(batch, drop_remainder=shuffle is not None).prefetch(2)
