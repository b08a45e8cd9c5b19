"""Words of a command line to values: lists of numbers, sizes, files of labels."""

from __future__ import annotations

import math
from pathlib import Path

from edgeloop.convert.forms.preprocess import Preprocessing
from edgeloop.convert.training.losses import Loss
from edgeloop.convert.training.optimizers import Optimizer
from edgeloop.convert.training.trainable import TrainableOptions
from edgeloop.errors import DataError, OptionsError


def numbers(given: str | None, option: str) -> tuple[float, ...]:
    """`0.485,0.456,0.406`; empty when the option was not given.

    Raises:
        OptionsError: Something is not a number.
    """
    if given is None:
        return ()
    try:
        return tuple(float(word) for word in given.split(","))
    except ValueError as e:
        raise OptionsError(
            f"{option} is {given!r}", advice="Write one number, or several with commas between them."
        ) from e


def pair(given: str | None, option: str) -> tuple[float, float] | None:
    """Two numbers, as `0,255`; None when the option was not given. Raises as `numbers`."""
    values = numbers(given, option)
    if given is not None and len(values) != 2:
        raise OptionsError(
            f"{option} is {given!r}: {len(values)} of 2 numbers", advice="Write two numbers with a comma between them."
        )
    return (values[0], values[1]) if values else None


def size(given: str | None, option: str) -> tuple[int, int] | None:
    """Height and width in pixels, as `480,640`. Raises as `numbers`."""
    values = pair(given, option)
    if values is None:
        return None
    if any(value != int(value) for value in values):
        raise OptionsError(f"{option} is {given!r}", advice="Write whole numbers of pixels: HEIGHT,WIDTH.")
    return int(values[0]), int(values[1])


def byte_count(megabytes: float, option: str) -> int:
    """A size in units of 10^6 bytes as bytes.

    Raises:
        OptionsError: It is no finite number above 0.
    """
    if not (math.isfinite(megabytes) and megabytes > 0):
        raise OptionsError(f"{option} is {megabytes:g}. It must be a number above 0.")
    return int(megabytes * 1e6)


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
