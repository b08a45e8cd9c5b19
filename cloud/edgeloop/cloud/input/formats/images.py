"""Images in folders, one folder a class: FOLDER/CLASS/FILE, with the suffix .png, .jpg, .jpeg, .bmp or .gif."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.cloud.input.arrays import rescaling
from edgeloop.cloud.input.damage import until_late
from edgeloop.cloud.input.examples import Examples, LabelKind, Numbered, TensorType
from edgeloop.cloud.input.formats.image_size import image_size
from edgeloop.cloud.input.options import DataOptions
from edgeloop.errors import DataError
from edgeloop.extras import need
from edgeloop.settings import suggestion

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")
LOOKED_AT = 64  # images whose sizes are compared before all are read


def open_images(options: DataOptions, files: Sequence[Path]) -> Examples:
    """Images uint8 [height, width, channels], decoded by TensorFlow; the first frame of a moving .gif.

    Raises:
        DataError: A folder of a class without an image, an image outside of any such folder, images of several sizes
            without `image_size`, or a file that is no image.
    """
    folder = options.path
    classes = options.classes or tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != "."))
    labels = _labels(folder, files, classes)
    size = options.image_size or _one_size(folder, files)
    shape, value_range = (*size, options.channels), options.value_range or (0.0, 1.0)
    return Examples(
        name=str(folder),
        features={"image": TensorType(dtype="float32", shape=shape)},
        label=TensorType(dtype="int64", shape=()),
        label_kind=LabelKind.CLASSES,
        classes=classes,
        class_count=len(classes),
        source=Numbered(count=len(files), decode=_decoder(files, labels, options, size)),
        stored_bytes=int(np.prod(shape)) + 8,
        value_range=value_range,
        finish=rescaling({"image": np.empty(0, np.uint8)}, value_range),
        find_damage=lambda: _find_damage(folder, files, options, size),
    )


def _labels(folder: Path, files: Sequence[Path], classes: Sequence[str]) -> np.ndarray:
    number = {name: place for place, name in enumerate(classes)}
    labels = []
    for file in files:
        name = file.relative_to(folder).parts[0]
        if name not in number:
            raise DataError(
                f"{file} lies in no folder of a class",
                advice=suggestion(name, classes) if classes else f"Make a folder for each class in {folder}.",
            )
        labels.append(number[name])
    for name in sorted(set(classes) - {classes[label] for label in labels}):
        raise DataError(
            f"{folder / name} holds no image ({', '.join(SUFFIXES)})",
            advice="Remove the folder, or put images of that class into it.",
        )
    return np.array(labels, np.int64)


def _one_size(folder: Path, files: Sequence[Path]) -> tuple[int, int]:
    """Height and width by the headers of some files, spread over all."""
    looked_at = files[:: max(1, len(files) // LOOKED_AT)]
    sizes = {image_size(file): file for file in looked_at}
    if len(sizes) > 1:
        (one, a), (other, b) = list(sizes.items())[:2]
        raise DataError(
            f"{folder} holds images of several sizes: {a.name} has {one[0]}x{one[1]}, {b.name} {other[0]}x{other[1]}",
            advice=f"Choose one: image-size = [{one[0]}, {one[1]}].",
        )
    return next(iter(sizes))


def _decoder(files: Sequence[Path], labels: np.ndarray, options: DataOptions, size: tuple[int, int]) -> Callable:
    held: dict[str, Any] = {}

    def decode(number: Any) -> tuple[Any, Any]:
        tf = need("tensorflow", extra="cloud")
        if not held:
            with tf.init_scope(), tf.device("CPU:0"):  # eager, although a graph is being made
                held.update(files=tf.constant([str(file) for file in files]), labels=tf.constant(labels))
        return _image(tf, held["files"][number], options, size), held["labels"][number]

    return decode


def _image(tf: Any, file: Any, options: DataOptions, size: tuple[int, int]) -> Any:
    """uint8 [height, width, channels]."""
    channels = options.channels
    image = tf.io.decode_image(tf.io.read_file(file), channels, expand_animations=False)
    if options.image_size is not None:
        image = tf.cast(tf.round(tf.image.resize(image, size)), tf.uint8)
    return tf.ensure_shape(image, [*size, channels])


def _find_damage(folder: Path, files: Sequence[Path], options: DataOptions, size: tuple[int, int]) -> None:
    tf = need("tensorflow", extra="cloud")
    for file in until_late(files):
        try:
            _image(tf, str(file), options, size)
        except (tf.errors.OpError, ValueError) as e:
            found = image_size(file)
            if found != size and options.image_size is None:
                raise DataError(
                    f"{file} has {found[0]}x{found[1]} pixels, the first image has {size[0]}x{size[1]}",
                    advice=f"Choose one size: image-size = [{size[0]}, {size[1]}].",
                ) from e
            raise DataError(f"{file} is damaged: it cannot be decoded", advice="Remove or replace it.") from e
