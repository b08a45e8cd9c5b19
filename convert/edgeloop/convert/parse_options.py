"""Words of a command line to values: limits, sizes of images, preprocessing, training, files of labels."""

from __future__ import annotations

import math
from pathlib import Path

from edgeloop.convert.forms.preprocess import Preprocessing
from edgeloop.convert.training.losses import Loss
from edgeloop.convert.training.optimizers import Optimizer
from edgeloop.convert.training.trainable import TrainableOptions
from edgeloop.errors import DataError, OptionsError
from edgeloop.processes.sandbox import Limits
from edgeloop.quantities import byte_count, numbers, pair

READ_MB = Limits().read_bytes / 1e6  # of --memory-mb, where it is not given


def size(given: str | None, option: str) -> tuple[int, int] | None:
    """Height and width in pixels, as `480,640`. Raises as `pair`."""
    values = pair(given, option)
    if values is None:
        return None
    if any(value != int(value) for value in values):
        raise OptionsError(f"{option} is {given!r}", advice="Write whole numbers of pixels: HEIGHT,WIDTH.")
    return int(values[0]), int(values[1])


def fixed_input(given: str) -> tuple[str, tuple[float, ...]]:
    """`sr=16000` as a name and its numbers.

    Raises:
        OptionsError: No name, or something that is no number.
    """
    name, _, values = given.rpartition("=")
    try:
        found = tuple(float(word) for word in values.split(","))
    except ValueError:
        found = ()
    if not name or not found or not all(map(math.isfinite, found)):
        raise OptionsError(
            f"--fix is {given!r}", advice="Write NAME=VALUE with a number, or one for each element, e.g. sr=16000."
        )
    return name, found


def memory_limits(megabytes: float) -> Limits:
    """By --memory-mb: so much to read a model, four times as much to work with it. Raises as `byte_count`."""
    read_bytes = byte_count(megabytes, "--memory-mb")
    return Limits(read_bytes=read_bytes, work_bytes=4 * read_bytes)


def preprocessing(
    input_range: str | None, mean: str | None, std: str | None, resize: str | None
) -> Preprocessing | None:
    """What goes into the model before its first layer; None when none of the options was given."""
    if input_range is mean is std is resize is None:
        return None
    return Preprocessing(
        input_range=pair(input_range, "--input-range"),
        mean=numbers(mean, "--mean") or (0.0,),
        std=numbers(std, "--std") or (1.0,),
        resize=size(resize, "--resize"),
    )


def training(
    trainable: bool, batch: int | None, last: int | None, optimizer: Optimizer | None, loss: Loss | None
) -> TrainableOptions | None:
    """How devices train; None without --trainable.

    Raises:
        OptionsError: One of the other options without --trainable.
    """
    given = {"--train-batch": batch, "--train-last": last, "--optimizer": optimizer, "--loss": loss}
    for option, value in given.items():
        if value is not None and not trainable:
            raise OptionsError(f"{option} needs --trainable, which is missing", advice="Add --trainable.")
    if not trainable:
        return None
    return TrainableOptions(
        batch=16 if batch is None else batch, optimizer=optimizer or Optimizer.SGD, loss=loss, train_last=last
    )


def label_file(path: Path | None) -> tuple[str, ...]:
    """Names, one a line, in the order of the classes; empty when there is no file.

    Raises:
        DataError: It cannot be read as UTF-8 text, or is empty.
    """
    if path is None:
        return ()
    try:
        labels = tuple(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as e:
        raise DataError(f"{path} cannot be read as text: {e}", advice="Write one class name per line.") from e
    if not labels:
        raise DataError(f"{path} is empty", advice="Write one class name per line.")
    return labels
