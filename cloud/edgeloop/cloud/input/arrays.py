"""Examples that lie in arrays, one row each: what a batch is, is one `gather`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgeloop.cloud.input.examples import Examples, LabelKind, Numbered, TensorType
from edgeloop.cloud.input.options import DataOptions
from edgeloop.errors import DataError
from edgeloop.extras import need
from edgeloop.settings import suggestion

BYTE = 255.0


def from_arrays(
    name: str, arrays: Mapping[str, np.ndarray], options: DataOptions, label: str, classes: Sequence[str] = ()
) -> Examples:
    """Examples of equally long arrays [n, ...].

    Args:
        label: The array of labels; texts and whole numbers [n] are classes, any other numbers are what to predict.
        classes: Names of the classes where the format brings them.

    Raises:
        DataError: An array that is missing, of another length, of objects; labels that are out of range; NaN or
            infinity in floats.
    """
    names = _chosen(name, arrays, options, label)
    columns = {key: arrays[key] for key in (*names, *([label] if label in arrays else []))}
    lengths = {key: len(column) for key, column in columns.items()}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        raise DataError(f"{name} holds {lengths} examples", advice="Pass equally many of each, and at least one.")
    for key in names:
        _check_numbers(name, key, columns[key])
    labels, kind = None, None
    found: tuple[str, ...] = ()
    if label in columns:
        labels, kind, found = label_column(name, columns[label], options.classes or tuple(classes))
    class_count = max(len(found), int(labels.max()) + 1) if labels is not None and kind is LabelKind.CLASSES else 0
    times = None if options.time is None else _times(name, arrays, options.time)
    features = {key: columns[key] for key in names}
    return Examples(
        name=name,
        features={key: finished_type(features[key], options) for key in names},
        label=None if labels is None else TensorType(dtype=str(labels.dtype), shape=labels.shape[1:]),
        label_kind=kind,
        classes=found,
        class_count=class_count,
        source=numbered(features, labels, times),
        stored_bytes=sum(column.nbytes // len(column) for column in columns.values()),
        value_range=options.value_range,
        finish=rescaling(features, options.value_range),
    )


def numbered(
    features: Mapping[str, np.ndarray],
    labels: np.ndarray | None,
    times: np.ndarray | None = None,
    in_memory: bool = True,
) -> Numbered:
    """Rows by number: of tensors, made when they are first asked for, or of the arrays themselves (mapped)."""
    fetch = _from_tensors(features, labels) if in_memory else _from_file(features, labels)

    def rows(numbers: Any) -> tuple[Any, ...]:
        taken, label = fetch(numbers)
        inputs = next(iter(taken.values())) if len(taken) == 1 else taken
        return (inputs,) if label is None else (inputs, label)

    count = len(next(iter(features.values())))
    return Numbered(count=count, decode=rows, decode_batch=rows, times=times, in_memory=in_memory)


def _from_tensors(features: Mapping[str, np.ndarray], labels: np.ndarray | None) -> Callable:
    held: dict[str, Any] = {}

    def fetch(numbers: Any) -> tuple[dict[str, Any], Any]:
        tf = need("tensorflow", extra="cloud")
        if not held:
            with tf.init_scope(), tf.device("CPU:0"):  # eager, although a graph is being made
                held.update({key: tf.constant(column) for key, column in features.items()})
                held[""] = None if labels is None else tf.constant(labels)
        label = None if labels is None else tf.gather(held[""], numbers)
        return {key: tf.gather(held[key], numbers) for key in features}, label

    return fetch


def _from_file(features: Mapping[str, np.ndarray], labels: np.ndarray | None) -> Callable:
    columns = [*features.values(), *([] if labels is None else [labels])]

    def fetch(numbers: Any) -> tuple[dict[str, Any], Any]:
        tf = need("tensorflow", extra="cloud")
        kinds = [tf.as_dtype(column.dtype) for column in columns]
        rows = tf.numpy_function(lambda at: [column[at] for column in columns], [numbers], kinds, stateful=False)
        for row, column in zip(rows, columns, strict=True):
            row.set_shape([*numbers.shape, *column.shape[1:]])
        return dict(zip(features, rows, strict=False)), None if labels is None else rows[-1]

    return fetch


def label_column(
    name: str, column: np.ndarray, classes: Sequence[str]
) -> tuple[np.ndarray, LabelKind, tuple[str, ...]]:
    """Labels as the model takes them: int64 [n] of classes (texts by their names), or float32 [n, ...] of numbers.

    Raises:
        DataError: A text that names no class, a number that is none of the classes, or no number.
    """
    if column.dtype.kind in "OUS":
        texts = np.array([text.decode() if isinstance(text, bytes) else str(text) for text in column])
        names = tuple(classes) or tuple(sorted(set(texts.tolist())))
        unknown = sorted(set(texts.tolist()) - set(names))
        if unknown:
            raise DataError(f"{name} has the label {unknown[0]!r}", advice=suggestion(unknown[0], names))
        number = {text: place for place, text in enumerate(names)}
        return np.array([number[text] for text in texts.tolist()], np.int64), LabelKind.CLASSES, names
    if column.dtype.kind in "iub" and column.ndim == 1:
        labels = column.astype(np.int64)
        check_range(name, labels, len(classes))
        return labels, LabelKind.CLASSES, tuple(classes)
    _check_numbers(name, "the label", column)
    return column.astype(np.float32), LabelKind.NUMBERS, ()


def check_range(name: str, labels: np.ndarray, classes: int) -> None:
    """See that labels are 0 to `classes` - 1; `classes` 0: any from 0 on.

    Raises:
        DataError: One is not; its place is named.
    """
    bad = np.flatnonzero((labels < 0) | ((labels >= classes) if classes else False))
    if len(bad):
        wanted = f"0 to {classes - 1}" if classes else "0 or more"
        raise DataError(
            f"{name}: the label of example {bad[0]} is {labels[bad[0]]}, expected {wanted}",
            advice="Correct the label, or name all classes.",
        )


def finished_type(column: np.ndarray, options: DataOptions) -> TensorType:
    """What one example's tensor is after `rescaling`."""
    rescaled = options.value_range is not None and column.dtype == np.uint8
    return TensorType(dtype="float32" if rescaled else str(column.dtype), shape=column.shape[1:])


def rescaling(features: Mapping[str, np.ndarray], value_range: tuple[float, float] | None) -> Any:
    """A function that maps unsigned bytes onto `value_range` as float32 and leaves other features alone; None: nothing
    is to be mapped."""
    bytes_of = [key for key, column in features.items() if column.dtype == np.uint8]
    if value_range is None or not bytes_of:
        return None
    low, high = value_range

    def scaled(tensor: Any) -> Any:
        tf = need("tensorflow", extra="cloud")
        return tf.cast(tensor, tf.float32) * ((high - low) / BYTE) + low

    if len(features) == 1:
        return scaled
    return lambda tensors: {key: scaled(value) if key in bytes_of else value for key, value in tensors.items()}


def _chosen(name: str, arrays: Mapping[str, np.ndarray], options: DataOptions, label: str) -> tuple[str, ...]:
    """Names of the features: those asked for, or all but the label and the time."""
    wanted = (*options.features, *([options.label] if options.label else []), *([options.time] if options.time else []))
    for key in wanted:
        if key not in arrays:
            raise DataError(f"{name} has no {key!r}", advice=suggestion(key, arrays))
    names = options.features or tuple(key for key in arrays if key not in (label, options.time))
    if not names:
        raise DataError(f"{name} holds {sorted(arrays)} and nothing to learn from", advice="Add a feature, e.g. x.")
    return names


def _check_numbers(name: str, key: str, column: np.ndarray) -> None:
    if column.dtype.kind not in "biuf":
        raise DataError(
            f"{name}: {key} is {column.dtype}, expected numbers", advice="Choose the features by name, or encode it."
        )
    if column.dtype.kind == "f" and not np.isfinite(column).all():
        row = np.argwhere(~np.isfinite(column))[0][0]
        raise DataError(f"{name}: {key} of example {row} is NaN or infinite", advice="Remove or repair such examples.")


def _times(name: str, arrays: Mapping[str, np.ndarray], key: str) -> np.ndarray:
    column = arrays[key]
    if column.dtype.kind == "M":
        column = column.astype("datetime64[s]").astype(np.int64)
    if column.ndim != 1:
        raise DataError(f"{name}: {key} has shape {list(column.shape)}, expected one time each", advice="Name another.")
    _check_numbers(name, key, column)
    return column.astype(np.float64)
