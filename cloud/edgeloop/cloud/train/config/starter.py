"""A folder of data in, a commented `train.toml` for it out."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from edgeloop.atomic import write_file
from edgeloop.cloud.input.examples import Examples, LabelKind
from edgeloop.cloud.input.options import DataOptions
from edgeloop.cloud.input.readers import open_examples
from edgeloop.cloud.train.config.write_config import quoted
from edgeloop.cloud.train.strategies.strategies import Strategy
from edgeloop.errors import DataError, WriteError

IMAGE_SIZE = (96, 96)  # of images whose sizes differ
LARGE = 64  # pixels: larger images train a model of keras.applications
NAMES = 8  # classes named in a comment
TEMPLATE = """\
# {found}
# Every key can also be set for one run: edgeloop train {file} -o run/ --set pipeline.batch=64

[data]
path = {path}
{size}{channels}# validation = "other/"        # data to decide by; without it a part of `path` is held out:
held-out = 0.1

[pipeline]
batch = {batch:<22}# examples of one step on each device
cache = {cache:<22}# "memory" or "disk": keep decoded examples after the first epoch
# augment = ["flip"]          # change images at random in training

[model]
name = {model:<23}# or: {others}
# warm-start = "run/"         # a bundle, a run, a .keras file or federated weights (.npz)

[optimizer]
name = "adam"                 # as Keras calls it: sgd, adamw, ...
learning-rate = 0.001         # of one device; several multiply it (scaling = "none" turns that off)
schedule = "constant"         # or "cosine"

[loop]
epochs = 20
patience = 5                  # stop after 5 epochs without a lower validation loss; 0: never
loss = "auto"                 # {loss}
seed = 0                      # the same file gives the same weights on one device

[strategy]
name = "auto"                 # or {strategies}

[memory]
accumulate = 1                # compute a batch in so many parts
precision = "float32"         # or "bfloat16", "float16"
recompute = false             # keep fewer activations, and compute them again
"""


def write_starter(data: Path, file: Path) -> str:
    """Look at the examples in `data` and write a training of them to `file`.

    Returns:
        One sentence on what was found.

    Raises:
        DataError: There is nothing that can be read, or no labels.
        WriteError: `file` exists already, or cannot be written.
    """
    if file.exists():
        raise WriteError(f"{file} exists already, and is not overwritten", advice="Name another file.")
    examples, size = _look(data)
    if examples.label_kind is None:
        raise DataError(f"{data} has no labels", advice="Add an array or column of labels.")
    image = max(len(tensor.shape) for tensor in examples.features.values()) == 3
    large = image and min(next(iter(examples.features.values())).shape[:2]) > LARGE
    classify = examples.label_kind is LabelKind.CLASSES
    found = _found(examples, data)
    text = TEMPLATE.format(
        found=found,
        file=file.name,
        path=quoted(os.path.relpath(data.resolve(), file.resolve().parent)),
        size=f"image-size = [{size[0]}, {size[1]}]       # the images have several sizes\n" if size else "",
        channels="# channels = 1               # read the images as grey\n" if image and _of_images(data) else "",
        batch=64 if (examples.count or 0) > 10_000 else 32,
        cache='"memory"' if image else '"none"',
        model=quoted("MobileNetV2" if large else "small-cnn" if image else "mlp"),
        others="mcmahan-cnn, any class of keras.applications, a .keras file, package.module:function",
        strategies=", ".join(one.value for one in Strategy if one != Strategy.AUTO),
        loss="sparse-categorical-crossentropy here" if classify else "mean-squared-error here",
    )
    write_file(file, text.encode())
    return found


def _look(data: Path) -> tuple[Examples, tuple[int, int] | None]:
    """The examples, and the size their images are brought to, where they have several."""
    options = DataOptions(path=data)
    try:
        return open_examples(options), None
    except DataError as refused:
        try:
            return open_examples(replace(options, image_size=IMAGE_SIZE)), IMAGE_SIZE
        except DataError:
            raise refused from None


def _of_images(data: Path) -> bool:
    """Whether these are images in folders: no other format has folders within."""
    return data.is_dir() and any(one.is_dir() for one in data.iterdir())


def _found(examples: Examples, data: Path) -> str:
    shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in examples.features.items())
    count = "Examples" if examples.count is None else f"{examples.count:,} examples"
    if examples.label_kind is LabelKind.NUMBERS:
        return f"{count} in {data.name}: {shapes}; the labels are numbers."
    names = ", ".join(examples.classes[:NAMES]) + (" and more" if len(examples.classes) > NAMES else "")
    classes = f"{examples.class_count} classes" if examples.class_count else "classes"
    return f"{count} in {data.name}: {shapes}; {classes}{f': {names}' if names else ''}."
