"""Named values to and from the files of TensorFlow's checkpoint format, without an object graph.

A value is a `tf.Variable`, one that a strategy made included, or a ShardedVariable, which is written part by part and
read back into any other number of parts. What is read is what the values were at `snapshot`: reading a variable shares
its memory, and the next step that changes the variable copies it first (copy on write: TensorFlow 2.21, assign,
scatter and Adam's fused update tried), so that files can be written while training goes on.

Source: https://github.com/tensorflow/tensorflow/blob/v2.21.0/tensorflow/core/util/tensor_slice_util.h (slices)
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeloop.errors import IntegrityError, WriteError, one_line
from edgeloop.extras import need

FILES = "variables"  # the prefix of the files

NODE = re.compile(r"\{\{.*?\}\}\s*")  # TensorFlow's name of the place in a graph


@dataclass(frozen=True, slots=True)
class Part:
    """A whole value, or the rows of one that a slice names.

    Attributes:
        rows: TensorFlow's text of a slice, `9000 8 4500,4500:0,8`; empty: the whole value.
        variable: What holds it.
    """

    name: str
    rows: str
    variable: Any


def parts(values: Mapping[str, Any]) -> Iterator[Part]:
    """Every variable behind the named values."""
    for name, value in values.items():
        shards = getattr(value, "variables", None)  # of a ShardedVariable, split by its first dimension
        if shards is None:
            yield Part(name, "", value)
            continue
        whole, begin = list(value.shape), 0
        for shard in shards:
            extents = [f"{begin},{shard.shape[0]}", *(f"0,{size}" for size in whole[1:])]
            yield Part(name, f"{' '.join(map(str, whole))} {':'.join(extents)}", shard)
            begin += shard.shape[0]


def snapshot(values: Mapping[str, Any]) -> list[tuple[Part, Any]]:
    """Every part with what it holds now. Under MultiWorkerMirrored every worker has to call it: a variable that is
    reduced when it is read takes all of them."""
    return [(part, part.variable.read_value()) for part in parts(values)]


def write_values(taken: Sequence[tuple[Part, Any]], folder: Path, shard_bytes: int) -> None:
    """Write a snapshot as `variables.index` and data files of about `shard_bytes` each.

    Raises:
        WriteError: The disk or the permissions refuse.
    """
    tf = need("tensorflow", extra="cloud")
    prefixes: list[str] = []
    try:
        with tf.device("/cpu:0"):
            for group in _groups(taken, shard_bytes):
                prefixes.append(str(folder / f"part-{len(prefixes)}"))
                tf.raw_ops.SaveV2(
                    prefix=prefixes[-1],
                    tensor_names=[part.name for part, _ in group],
                    shape_and_slices=[part.rows for part, _ in group],
                    tensors=[value for _, value in group],
                )
            tf.raw_ops.MergeV2Checkpoints(
                checkpoint_prefixes=prefixes, destination_prefix=str(folder / FILES), delete_old_dirs=False
            )
    except tf.errors.OpError as e:  # a full disk is one of several classes of it
        raise WriteError(
            f"a checkpoint cannot be written to {folder.parent}: {reason_of(e)}",
            advice="Free space there, or choose another folder; the checkpoints that are there stay.",
        ) from e


def reason_of(error: Any) -> str:
    """What an error of TensorFlow says, in one line and without the place in a graph."""
    return one_line(NODE.sub("", error.message))


def read_values(values: Mapping[str, Any], folder: Path, partial: bool = False) -> None:
    """Give every value what the files hold under its name; `partial`: they may hold more.

    Raises:
        IntegrityError: A name is missing there, has another shape, or is there and not in `values`.
    """
    tf = need("tensorflow", extra="cloud")
    shapes = tf.train.load_checkpoint(str(folder / FILES)).get_variable_to_shape_map()
    for name, value in values.items():
        found = shapes.pop(name, None)
        if found != list(value.shape):
            raise _other_training(name, "is missing" if found is None else f"has the shape {found}", list(value.shape))
    if shapes and not partial:
        raise _other_training(min(shapes), "is there", None)
    wanted = list(parts(values))
    with tf.device("/cpu:0"):
        tensors = tf.raw_ops.RestoreV2(
            prefix=str(folder / FILES),
            tensor_names=[part.name for part in wanted],
            shape_and_slices=[part.rows for part in wanted],
            dtypes=[part.variable.dtype for part in wanted],
        )
    for part, tensor in zip(wanted, tensors, strict=True):
        part.variable.assign(tensor)


def _groups(taken: Sequence[tuple[Part, Any]], shard_bytes: int) -> Iterator[list[tuple[Part, Any]]]:
    """In order, each group at most `shard_bytes`, or one value that alone is larger."""
    group: list[tuple[Part, Any]] = []
    held = 0
    for part, value in taken:
        size = value.dtype.size * value.shape.num_elements()
        if group and held + size > shard_bytes:
            yield group
            group, held = [], 0
        group.append((part, value))
        held += size
    if group:
        yield group


def _other_training(name: str, found: str, shape: list[int] | None) -> IntegrityError:
    expected = "no such value" if shape is None else f"the shape {shape}"
    return IntegrityError(
        f"the checkpoint is of another model or optimizer: {name} {found}, expected {expected}",
        advice="Begin in a new run folder, or go on with the model and optimizer that the checkpoint was written by.",
    )
