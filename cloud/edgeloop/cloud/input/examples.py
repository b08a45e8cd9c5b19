"""`Examples`: what a reader found, before any batch is made of it.

A source is read in one of two ways. `Numbered` examples can each be fetched by number (arrays, a list of image files),
so every epoch is a permutation that is computed, not stored. `Sharded` examples lie one behind another in files
(TFRecord) and are shuffled among those in a buffer.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.errors import OptionsError

Decode = Callable[[Any], tuple[Any, Any]]  # records -> (features, labels), tensors


class LabelKind(enum.StrEnum):
    """What labels are."""

    CLASSES = "classes"
    NUMBERS = "numbers"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorType:
    """One example's tensor: its dtype's name and its shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        return int(np.dtype(self.dtype).itemsize * np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One worker's part: the `index`-th of `count`."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise OptionsError(f"worker {self.index} of {self.count}", advice="Workers are numbered from 0.")


WHOLE = Shard()


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbered:
    """Examples that are fetched by number, 0 to `count` - 1.

    Attributes:
        decode: A number (int64 scalar) to one example.
        decode_batch: Numbers (int64 [b]) to a batch at once; None: the format reads one after another.
        times: Of each example, float64 [count], where a column of times was chosen.
        in_memory: Nothing is read and nothing decoded any more: a cache would change nothing.
    """

    count: int
    decode: Decode
    decode_batch: Decode | None = None
    times: np.ndarray | None = None
    in_memory: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharded:
    """Examples that lie in files, each read from its beginning.

    Attributes:
        files: The shards, sorted.
        counts: Examples of each shard; None: not known.
        records: A file's name (string scalar) to a tf.data.Dataset of its records.
        decode: One record to one example.
        decode_batch: Records [b] to a batch at once; None: the format decodes one after another.
    """

    files: tuple[Path, ...]
    counts: tuple[int, ...] | None
    records: Callable[[Any], Any]
    decode: Decode
    decode_batch: Decode | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """A set of examples and what each of them is.

    Attributes:
        name: What messages call it, a path as a rule.
        features: Tensors of one example by name, as the model receives them.
        label: The tensor of one label; int64 [] where `label_kind` is CLASSES. None: there are no labels.
        classes: Names of the classes; empty where labels are numbers, or whole numbers without names.
        class_count: 0 where labels are no classes, or the largest one is not known.
        source: How the examples are read.
        value_range: What `finish` maps unsigned bytes to.
        finish: Applied to the features last, of one example or of a batch: casts and scales.
        stored_bytes: Of one decoded example before `finish`, with its label: what a cache keeps.
        find_damage: Called after a read failed: raises a DataError that names the file and the record, if it finds one.
    """

    name: str
    features: Mapping[str, TensorType]
    label: TensorType | None
    label_kind: LabelKind | None
    source: Numbered | Sharded
    stored_bytes: int
    classes: tuple[str, ...] = ()
    class_count: int = 0
    value_range: tuple[float, float] | None = None
    finish: Callable[[Any], Any] | None = None
    find_damage: Callable[[], None] | None = None

    @property
    def count(self) -> int | None:
        """How many there are; None: not known before all are read."""
        if isinstance(self.source, Numbered):
            return self.source.count
        return None if self.source.counts is None else sum(self.source.counts)

    def dataset(self, shard_index: int = 0, shard_count: int = 1) -> Any:
        """A tf.data.Dataset of single examples (features, label) in their stored order, of one worker's part."""
        from edgeloop.cloud.input.pipeline import in_order

        return in_order(self, Shard(index=shard_index, count=shard_count))
