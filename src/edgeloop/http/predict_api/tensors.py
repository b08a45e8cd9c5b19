"""One JSON value in, an array of the signature's type and shape out. Python 3.9 syntax.

A value is a nested list of numbers, or {"npy": base64 of a .npy file}, which is shorter and exact.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeloop.bundle import TensorSpec
from edgeloop.errors import DataError, one_line


def named_arrays(specs: Sequence[TensorSpec], document: Any) -> dict[str, np.ndarray]:
    """`{input: value}`, or a bare value where there is one input, as arrays in the order of `specs`; shapes unchecked.

    Raises:
        DataError: Other names than the signature's, or values that are not numbers of its types.
    """
    if len(specs) == 1 and not (isinstance(document, Mapping) and "npy" not in document):
        return {specs[0].name: to_array(specs[0], document)}
    expected = ", ".join(repr(spec.name) for spec in specs)
    if not isinstance(document, Mapping):
        raise DataError(
            f"found a JSON {_json_type(document)}", advice=f"Expected an object with the inputs {expected}."
        )
    if set(document) != {spec.name for spec in specs}:
        raise DataError(f"found the inputs {sorted(map(str, document))}", advice=f"Expected {expected}.")
    return {spec.name: to_array(spec, document[spec.name]) for spec in specs}


def to_array(spec: TensorSpec, value: Any) -> np.ndarray:
    """One value as an array of the signature's dtype.

    Raises:
        DataError: Not numbers, not finite, or numbers that the dtype cannot hold.
    """
    try:
        array = value if isinstance(value, np.ndarray) else _decode(value)
        dtype = np.dtype(spec.dtype)
    except (ValueError, TypeError, OverflowError, EOFError, MemoryError) as e:
        found = f"input {spec.name!r} cannot be read as an array of {spec.dtype} ({first_words(e)})"
        raise DataError(f"{found}", advice="Send nested lists of equal length.") from e
    if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        raise DataError(
            f"input {spec.name!r} holds something other than finite numbers", advice=f"Expected {spec.dtype}."
        )
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if (array != np.rint(array)).any() or (array < limits.min).any() or (array > limits.max).any():
            found = f"input {spec.name!r} holds numbers that {spec.dtype} cannot"
            raise DataError(f"{found}", advice=f"Send whole numbers from {limits.min} to {limits.max}.")
    return array.astype(dtype)


def check_shape(spec: TensorSpec, array: np.ndarray) -> None:
    """Refuse an array that is not a batch of the input. A first axis that is free or 1 is the batch, of any size: the
    server cuts it to what the variant takes.

    Raises:
        DataError: Another shape, or no element.
    """
    expected = tuple(None if axis == 0 and size == 1 else size for axis, size in enumerate(spec.shape))
    fits = array.ndim == len(expected) and all(size in (None, own) for size, own in zip(expected, array.shape))
    if not fits or not array.size:
        raise DataError(
            f"input {spec.name!r} has shape {list(array.shape)}", advice=f"Expected {_words(expected)}, batch first."
        )


def check_sample(spec: TensorSpec, array: np.ndarray) -> None:
    """Refuse an array that is not one sample of the input, without its batch axis. Raises DataError."""
    expected = spec.shape[1:]
    fits = array.ndim == len(expected) and all(size in (None, own) for size, own in zip(expected, array.shape))
    if not fits or not array.size:
        raise DataError(
            f"a sample of input {spec.name!r} has shape {list(array.shape)}", advice=f"Expected {_words(expected)}."
        )


def check_batch_sizes(inputs: Mapping[str, np.ndarray]) -> None:
    """Refuse inputs of different batch sizes. Raises DataError."""
    sizes = {name: len(array) for name, array in inputs.items() if array.ndim}
    if len(set(sizes.values())) > 1:
        raise DataError(f"the inputs have the batch sizes {sizes}", advice="Send as many samples of each input.")


def first_words(error: Exception) -> str:
    """A foreign error in one short line."""
    return one_line(error, 120) or type(error).__name__


def _words(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("any" if size is None else str(size) for size in shape) + "]"


def _decode(value: Any) -> np.ndarray:
    if not isinstance(value, Mapping):
        return np.asarray(value)
    if set(value) != {"npy"}:
        raise ValueError(f"an object with {sorted(map(str, value))}")
    data = io.BytesIO(base64.b64decode(value["npy"], validate=True))
    try:
        return np.lib.format.read_array(data, allow_pickle=False)  # not np.load: it takes other kinds of files as well
    except Exception as e:  # a damaged header is read as Python, and gave TokenError, SyntaxError, TypeError and others
        raise ValueError(f"a damaged .npy, {type(e).__name__}: {e}") from e


def _json_type(value: Any) -> str:
    names = {list: "list", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
