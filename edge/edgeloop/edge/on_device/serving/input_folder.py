"""A folder of frames on the device in, one input per file out, in order; with `watch`, new files as they come.

.npy: one array. .npz: arrays named as the inputs (also in/NAME, or x where there is one input). Everything else is an
image (images.py). Python 3.9 syntax.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from edgeloop.bundle import Kind, TensorSpec
from edgeloop.edge.on_device.serving.images import decode_image, image_inputs
from edgeloop.edge.on_device.serving.regular_file import open_regular
from edgeloop.errors import DataError, OptionsError
from edgeloop.http.predict_api.request import read_sample

POLL_S = 0.2  # between two looks for new files; a file is read once its size has not changed for that long
IMAGES = (".pgm", ".ppm", ".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif")
ARRAYS = (".npy", ".npz")


def frame_files(folder: str, watch: bool, say: Callable[[str], None]) -> Iterator[str]:
    """Paths of frames, by name (numbers in a name count as numbers), each once; one that is removed and comes again
    is another.

    Raises:
        OptionsError: No such folder on the device, or no frame in it.
    """
    if not os.path.isdir(folder):
        raise OptionsError(
            f"{folder} is not a folder on the device", advice="Pass --input a folder there, camera, or -."
        )
    ready = _names(folder)
    others = sorted(name for name in os.listdir(folder) if not name.startswith(".") and name not in ready)
    if others:
        say(f"{folder}: {len(others)} entries are not frames and are skipped, e.g. {others[0]}")
    if not ready and not watch:
        raise OptionsError(
            f"{folder} holds no frame", advice=f"Expected files that end in {', '.join((*ARRAYS, *IMAGES))}."
        )
    yield from (os.path.join(folder, name) for name in ready)
    done = set(ready)
    seen: dict[str, tuple[int, int] | None] = {}
    while watch:
        time.sleep(POLL_S)
        names = _names(folder)
        done.intersection_update(names)  # a camera's folder is emptied and filled for months
        here = {name: _stamp(os.path.join(folder, name)) for name in names if name not in done}
        resting = [name for name, stamp in here.items() if stamp is not None and seen.get(name) == stamp]
        for name in resting:
            done.add(name)
            yield os.path.join(folder, name)
        seen = here


def read_frame_file(
    path: str, specs: Sequence[TensorSpec], pixel_range: tuple[float, float] | None
) -> tuple[dict[str, np.ndarray], bool]:
    """The inputs in a file, and whether they came as a batch.

    Raises:
        DataError: Damaged, or not of the model's shape and type.
        OptionsError, MissingExtra: As `image_inputs` and `decode_image`.
    """
    if not path.lower().endswith(ARRAYS):
        return image_inputs(specs, decode_image(path), pixel_range)
    try:
        found = _arrays(path)
    except DataError:
        raise
    except Exception as e:  # a damaged header is read as Python, and gives any error; so does a damaged zip
        raise DataError(
            f"{path} cannot be read as a {path[-4:]} file of numbers ({e})", advice="Save it again with NumPy."
        ) from e
    if len(specs) == 1 and len(found) == 1 and set(found) <= {"x", ""}:
        found = {specs[0].name: next(iter(found.values()))}
    pixels = found.get(specs[0].name)
    if len(specs) == 1 and pixels is not None and _is_image(specs[0], pixels):
        return image_inputs(specs, pixels, pixel_range)
    return read_sample(specs, found)


def _is_image(spec: TensorSpec, array: np.ndarray) -> bool:
    """Bytes for a model of other numbers: pixels that nobody has scaled yet."""
    bytes_ = array.dtype == np.uint8 and spec.dtype != "uint8"
    return bool(bytes_ and spec.kind is Kind.IMAGE and array.ndim == 3 and array.shape[2] in (1, 3, 4) and array.size)


def _arrays(path: str) -> dict[str, np.ndarray]:
    with open_regular(path) as file:
        found = np.load(file, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return {"": found}
        return {name[3:] if name.startswith("in/") else name: found[name] for name in found.files}


def _names(folder: str) -> list[str]:
    with os.scandir(folder) as entries:  # a FIFO or a folder of such a name is no frame
        known = [
            e.name for e in entries if e.name.lower().endswith((*ARRAYS, *IMAGES)) and e.name[0] != "." and e.is_file()
        ]
    return sorted(known, key=_order)


def _order(name: str) -> list[tuple[int, str]]:
    """Text and numbers alternate in a split, so a number is only ever compared with a number."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if index % 2 else (0, part) for index, part in enumerate(parts)]


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:  # taken away again
        return None
    return found.st_size, found.st_mtime_ns
