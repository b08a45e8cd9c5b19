"""An image file in, the input of a model that takes one image out. Python 3.9 syntax.

PGM and PPM are read here, PNG, JPEG and others by Pillow where it is installed. What a pixel becomes follows from
the range of real inputs in the manifest: they were 0..1, -1..1 or 0..255.

Source: https://netpbm.sourceforge.net/doc/ppm.html
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import numpy as np

from edgeloop.bundle import Kind, TensorSpec
from edgeloop.edge.on_device.serving.regular_file import open_regular
from edgeloop.errors import DataError, MissingExtra, OptionsError

NETPBM = re.compile(
    rb"P([56])(?:\s+|\s*#[^\n]*\n\s*)(\d{1,5})(?:\s+|\s*#[^\n]*\n\s*)(\d{1,5})(?:\s+|\s*#[^\n]*\n\s*)(\d{1,5})\s"
)
# ITU-R BT.601, as Pillow's convert("L")
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
UNIT, SIGNED, BYTES = (0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)


def image_inputs(
    specs: Sequence[TensorSpec], pixels: np.ndarray, pixel_range: tuple[float, float] | None
) -> tuple[dict[str, np.ndarray], bool]:
    """The inputs of a model that takes one image, as `to_input` makes it; False: no batch.

    Raises:
        OptionsError: It takes something else, or the manifest does not say how pixels are scaled.
    """
    if len(specs) == 1 and specs[0].kind is Kind.IMAGE and len(specs[0].shape) == 4:
        return {specs[0].name: to_input(specs[0], pixels, pixel_range)}, False
    found = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in specs)
    raise OptionsError(
        f"the model takes {found}, which is not a single image", advice="Send .npy or .npz files, or JSON lines."
    )


def decode_image(path: str) -> np.ndarray:
    """An image file as uint8 [height, width, 1 or 3].

    Raises:
        MissingExtra: Pillow is needed and not installed.
        DataError: Not an image, or a damaged one.
    """
    with open_regular(path) as file:
        data = file.read()
    if data[:2] in (b"P5", b"P6"):
        return netpbm(data, path)
    try:
        from PIL import Image, ImageOps
    except ImportError as e:
        raise MissingExtra(
            f"{path} needs Pillow, which is not installed on the device",
            advice="Run there: python3 -m pip install pillow; or send .npy, .npz, .pgm or .ppm files.",
        ) from e
    try:
        with Image.open(io.BytesIO(data)) as image:
            upright = ImageOps.exif_transpose(image)
            grey = upright.mode in ("1", "L", "I", "F", "LA") or upright.mode.startswith("I;")
            pixels = np.asarray(upright.convert("L" if grey else "RGB"), np.uint8)
    except Exception as e:  # damaged files gave SyntaxError, struct.error, zlib.error, EOFError, IndexError and more
        raise DataError(
            f"{path} is not an image that Pillow reads ({e})", advice="Save it again, as PNG or JPEG."
        ) from e
    return pixels[:, :, np.newaxis] if pixels.ndim == 2 else pixels


def netpbm(data: bytes, path: str) -> np.ndarray:
    """A binary PGM or PPM of 8 or 16 bits, scaled to 8. Raises DataError."""
    head = NETPBM.match(data)
    kind, width, height, most = (int(group) for group in head.groups()) if head else (0, 0, 0, 0)
    if head is None or not (width and height and 0 < most < 65536):
        raise DataError(f"{path} is not a binary PGM or PPM file", advice="Save it again, as P5 or P6.")
    channels, dtype = (1 if kind == 5 else 3), np.dtype(np.uint8 if most < 256 else ">u2")
    count = width * height * channels
    if len(data) - head.end() < count * dtype.itemsize:
        raise DataError(
            f"{path} ends early: {len(data) - head.end()} bytes for {width} x {height} pixels", advice="Save it again."
        )
    pixels = np.frombuffer(data, dtype, count, head.end()).reshape(height, width, channels)
    return pixels.astype(np.uint8) if most == 255 else np.rint(pixels.astype(np.float64) * 255 / most).astype(np.uint8)


def to_input(spec: TensorSpec, pixels: np.ndarray, pixel_range: tuple[float, float] | None = None) -> np.ndarray:
    """uint8 [height, width, channels] as one image of the model: resized, its channels, its layout, its numbers.

    `pixel_range`: what 0 and 255 become; None: as the manifest says. The batch axis comes first.

    Raises:
        OptionsError: The manifest does not say how pixels are scaled.
    """
    first = spec.layout == "NCHW"
    height, width, channels = spec.shape[2:] + spec.shape[1:2] if first else spec.shape[1:]
    image = _channels(pixels, channels or pixels.shape[2]).astype(np.float32)
    image = resize(image, height or len(pixels), width or pixels.shape[1])
    low, high = pixel_range or _nominal_range(spec)
    values = low + image * np.float32((high - low) / 255)
    if np.dtype(spec.dtype).kind in "iu":
        limits = np.iinfo(spec.dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    values = values.transpose(2, 0, 1) if first else values
    return values[np.newaxis].astype(spec.dtype)


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear with half-pixel centres, as tf.image.resize without antialiasing; float32 [height, width, channels]."""
    if image.shape[:2] == (height, width):
        return image
    above, below, down = _taps(len(image), height)
    left, right, across = _taps(image.shape[1], width)
    rows = image[above] + (image[below] - image[above]) * down[:, np.newaxis, np.newaxis]
    return rows[:, left] + (rows[:, right] - rows[:, left]) * across[:, np.newaxis]


def _taps(size: int, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each new pixel its two neighbours, and how far it lies from the first to the second."""
    at = np.clip((np.arange(wanted, dtype=np.float32) + 0.5) * (size / wanted) - 0.5, 0, size - 1)
    before = np.floor(at).astype(int)
    return before, np.minimum(before + 1, size - 1), (at - before).astype(np.float32)


def _channels(pixels: np.ndarray, wanted: int) -> np.ndarray:
    have = pixels.shape[2]
    if have == wanted:
        return pixels
    if wanted == 1:
        return pixels[:, :, :3] @ LUMA[:, np.newaxis]
    colours = np.repeat(pixels, 3, axis=2) if have == 1 else pixels[:, :, :3]
    if wanted == 3:
        return colours
    return np.concatenate([colours, np.full_like(colours[:, :, :1], 255)], axis=2)  # opaque


def _nominal_range(spec: TensorSpec) -> tuple[float, float]:
    """The nominal range that the measured one lies in: the brightest of a few real pixels need not be white."""
    if spec.range is None:
        if spec.dtype == "uint8":
            return BYTES
        raise OptionsError(
            f"the manifest has no range for input {spec.name!r}: the model was converted without real data",
            advice="Pass --pixels LOW,HIGH, e.g. 0,1: what the pixel values 0 and 255 become.",
        )
    low, high = spec.range
    if low >= -1 and 32 < high <= 256:
        return BYTES
    if low >= -1.05 and high <= 1.05:
        return SIGNED if low < -0.05 else UNIT
    raise OptionsError(
        f"the manifest gives input {spec.name!r} the range {low:g}..{high:g}, which is not a usual scaling of pixels",
        advice="Convert with --input-range 0,255 --mean --std, or send .npy files.",
    )
