"""What stands for a tensor of an ONNX graph while it is imported: a constant, or a tensor in some order of its axes.

Layouts are right by construction: a tensor carries the permutation in which it lies in memory (`Value.perm`). After a
convolution it lies channels last, and stays so; an operator takes its inputs in any order it can work in, maps its
axes through the permutation, and asks for ONNX's own order only where the order of elements matters (Reshape across
axes, MatMul, outputs). ONNX's Transpose is a new label on the same memory.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from edgeloop.extras import need

tf: Any = need("tensorflow", extra="convert")

Pair = tuple[np.ndarray, np.ndarray]  # whole numbers under either assignment of sizes to the free dimensions
SENTINEL = 2**62  # whole numbers beyond it stand for "to the end" (PyTorch writes 2^63 - 1); clipped to 32 bits
INT32 = np.iinfo(np.int32)
COMPUTED_IN_FLOAT32 = frozenset({"float16", "bfloat16", "float32", "float64"})
COMPUTED_IN_INT32 = frozenset({"int64", "int32", "int16", "int8", "uint8", "uint16", "int4", "uint4"})


class Unsupported(Exception):
    """The model has something that cannot be imported, and what: "a Resize of extrapolated pixels"."""


class AtRunTime(Unsupported):
    """Something has to be known while importing, and is computed from sizes or values that only the device knows.

    A fixed size (`--shape`) or input (`--fix`) may make it known.
    """


def working_type(dtype: Any) -> Any:
    """What tensors of an ONNX type are computed in. LiteRT has few kernels for anything but float32, int32 and bool.

    Raises:
        Unsupported: Text, complex numbers, 32- and 64-bit unsigned numbers, 8-bit floats.
    """
    name = np.dtype(dtype).name
    if name in COMPUTED_IN_FLOAT32:
        return tf.float32
    if name in COMPUTED_IN_INT32:
        return tf.int32
    if name == "bool":
        return tf.bool
    raise Unsupported(f"tensors of type {'string' if name == 'object' else name}")


class Value:
    """A tensor of the ONNX graph: a constant (numpy, in ONNX's order of axes) or TensorFlow's, in an order of its own.

    Attributes:
        const: The numbers, in ONNX's type and order, where they are known now; else None.
        dtype: ONNX's type. What the tensor is computed in is `working_type(dtype)`.
        perm: The tensor's axis i is ONNX's axis perm[i].
        pair: Of whole numbers: their values under both assignments of the free dimensions, as far as they are followed.
        names: What onnx's shape inference calls the free dimensions, in ONNX's order; equal names are equal sizes.
    """

    def __init__(
        self,
        tensor: Any = None,
        dtype: Any = None,
        perm: Iterable[int] | None = None,
        const: Any = None,
        pair: Pair | None = None,
    ):
        self.const = None if const is None else np.asarray(const)
        self.dtype = np.dtype(dtype if self.const is None else self.const.dtype if dtype is None else dtype)
        self.pair = pair
        self.names: Sequence[str] | None = None
        self._tensor = tensor
        self._kept: dict[tuple, Any] = {}
        self._nameless: dict[int, tuple[int, int]] = {}
        if self.const is not None:
            self.perm = tuple(range(self.const.ndim))
            return
        if tensor.shape.rank is None:
            raise AtRunTime("a tensor whose number of dimensions is only known at run time")
        self.perm = tuple(range(tensor.shape.rank) if perm is None else perm)

    @property
    def rank(self) -> int:
        return len(self.perm)

    @property
    def dims(self) -> list[int | None]:
        """Sizes in ONNX's order; None where free."""
        if self.const is not None:
            return list(self.const.shape)
        return [self._tensor.shape[self.perm.index(axis)] for axis in range(self.rank)]

    def to(self, perm: Iterable[int]) -> Any:
        """The tensor in another order of axes, kept for each graph: branches and bodies are graphs of their own."""
        perm = tuple(perm)
        if self.const is None and perm == self.perm:
            return self._tensor
        key = (tf.compat.v1.get_default_graph(), perm)
        if key not in self._kept:
            if self.const is None:
                self._kept[key] = transposed(self._tensor, self.perm, perm)
            else:
                # order="C" instead of ascontiguousarray, which makes a scalar one-dimensional
                self._kept[key] = tf.constant(np.asarray(narrowed(self.const).transpose(perm), order="C"))
        return self._kept[key]

    def onnx(self) -> Any:
        """The tensor in ONNX's order."""
        return self.to(range(self.rank))

    def raw(self) -> Any:
        """The tensor as it lies, in the order `perm`."""
        return self.to(self.perm)

    def last(self) -> Any:
        """The tensor with its channels (ONNX's axis 1) last."""
        return self.to(channels_last(self.rank))

    def symbols(self) -> list[tuple[int, int]]:
        """Its sizes under both assignments, in ONNX's order."""
        found = []
        for axis, d in enumerate(self.dims):
            if d is not None:
                found.append((d, d))
            elif self.names is not None and len(self.names) == self.rank and self.names[axis]:
                found.append(two_sizes(self.names[axis]))
            else:
                found.append(self._nameless.setdefault(axis, two_sizes("")))
        return found

    def symbol(self) -> Pair | None:
        """Its elements under both assignments, where they are followed; of a few whole numbers that come from what is
        not followed, numbers like no other."""
        if self.const is not None and self.dtype.kind in "iu":
            return self.const, self.const
        if self.pair is None and self.const is None and self.dtype.name in ("int32", "int64") and self.rank <= 2:
            dims = [FOLLOWED + 1 if d is None else d for d in self.dims]
            if 0 < math.prod(dims) <= FOLLOWED:
                sizes = np.array([two_sizes("") for _ in range(math.prod(dims))], self.dtype)
                self.pair = sizes[:, 0].reshape(dims), sizes[:, 1].reshape(dims)
        return self.pair


FOLLOWED = 16  # elements of a shape, or of the widths of a Pad
# the two made-up sizes of the first free dimension; the next ones lie above, in two different progressions
FREE = (100_003, 200_017)
_sizes: dict[str, tuple[int, int]] = {}
_nameless = itertools.count()


def forget_sizes() -> None:
    """Begin another model: its free dimensions are others, also where they bear the same names."""
    _sizes.clear()


def two_sizes(name: str) -> tuple[int, int]:
    """Two sizes for a free dimension, the same ones for the same name; "" is a dimension like no other."""
    k = len(_sizes)
    return _sizes.setdefault(name or f"nameless {next(_nameless)}", (FREE[0] + 14 * k, FREE[1] + 22 * k * k))


def channels_last(rank: int) -> tuple[int, ...]:
    """The order (0, 2, ..., 1); of two axes or fewer their own."""
    return (0, *range(2, rank), 1) if rank > 2 else tuple(range(rank))


def narrowed(array: np.ndarray) -> np.ndarray:
    """A constant in the type it is computed in.

    Raises:
        Unsupported: Whole numbers beyond 32 bits that do not stand for "to the end".
    """
    target = working_type(array.dtype).as_numpy_dtype
    if array.dtype == np.int64:
        beyond = (array > INT32.max) | (array < INT32.min)
        if np.any(beyond & (array < SENTINEL) & (array > -SENTINEL)):
            raise Unsupported("whole numbers beyond 32 bits")
        array = np.clip(array, INT32.min, INT32.max)
    return array.astype(target, copy=False)


def transposed(tensor: Any, now: Sequence[int], then: Sequence[int]) -> Any:
    """A tensor that lies in the order `now`, in the order `then`: a reshape where only axes of size 1 change place."""
    order = [now.index(axis) for axis in then]
    sizes = tensor.shape.as_list()
    moved = [i for i in order if sizes[i] != 1]
    if moved == sorted(moved) and sizes.count(None) <= 1 and 0 not in sizes:
        return tf.reshape(tensor, [-1 if sizes[i] is None else sizes[i] for i in order])
    return tf.transpose(tensor, order)


def size(tensor: Any, axis: int) -> Any:
    """The size of a TensorFlow tensor's axis: a number, or the scalar tensor that holds it."""
    return tensor.shape[axis] if tensor.shape[axis] is not None else tf.shape(tensor)[axis]


def shape_of(dims: Sequence[Any]) -> Any:
    """A shape from numbers and scalar tensors."""
    return list(dims) if all(isinstance(d, int) for d in dims) else tf.stack([tf.cast(d, tf.int32) for d in dims])


def renumbered(axes: Sequence[int]) -> list[int]:
    """Axes that are left after some went, counted anew: [3, 0, 2] becomes [2, 0, 1]."""
    order = sorted(axes)
    return [order.index(axis) for axis in axes]


def unsqueezed(x: Value, axes: Sequence[int]) -> Value:
    """With axes of size 1 at these places of the result, which ascend."""
    if x.const is not None:
        return Value(const=np.expand_dims(x.const, tuple(axes)))
    old = [axis for axis in range(x.rank + len(axes)) if axis not in axes]
    perm, tensor = [old[axis] for axis in x.perm], x.raw()
    for axis in axes:
        tensor = tf.expand_dims(tensor, axis)
        perm.insert(axis, axis)
    return Value(tensor, x.dtype, perm)


def relabelled(x: Value, order: Sequence[int]) -> Value:
    """Transposed as numpy does it by this order, with nothing moved in memory."""
    if x.const is not None:
        return Value(const=x.const.transpose(order))
    return Value(x.raw(), x.dtype, [order.index(axis) for axis in x.perm])


def per_channel(v: Value, rank: int) -> Value:
    """A vector of one number a channel (ONNX's axis 1), ready to broadcast against `rank` axes."""
    return unsqueezed(v, [0, *range(2, rank)]) if rank > 1 else v
