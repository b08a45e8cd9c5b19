"""What to read, and how to make batches of it: the tables [data] and [pipeline] of a training's TOML file."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from pathlib import Path

from edgeloop.errors import OptionsError
from edgeloop.quantities import at_least


class DataFormat(enum.StrEnum):
    """How examples are stored."""

    NPZ = "npz"
    IDX = "idx"
    IMAGES = "images"
    CSV = "csv"
    TFRECORD = "tfrecord"
    PARQUET = "parquet"


class Cache(enum.StrEnum):
    """Where decoded examples are kept after they are read once."""

    NONE = "none"
    MEMORY = "memory"
    DISK = "disk"


def see_channels(channels: int, option: str) -> None:
    """See that images can have so many channels.

    Raises:
        OptionsError: They cannot.
    """
    if channels not in (1, 3, 4):
        raise OptionsError(f"{option} is {channels}", advice="It must be 1 (grey), 3 (RGB) or 4 (RGBA).")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOptions:
    """What to read.

    Attributes:
        path: A file, or a folder of files of one format.
        format: None: decided by what lies at `path`.
        features: Arrays or columns that the model takes; empty: all but the label and the time.
        label: The array or column of labels; None: `y` (npz), `label` (other formats).
        classes: Names of the classes in the order of their numbers; empty: those found, sorted.
        image_size: Height and width that images are resized to (bilinear); None: all images must have one size.
        channels: Of images: 1 (grey), 3 (RGB) or 4 (RGBA).
        value_range: LOW, HIGH that the stored values 0..255 of an unsigned byte are mapped to, as float32. None: images
            and idx files become 0..1, other data stays as it is.
        schema: Of TFRecord files without a schema.json beside them: the type of each feature, as
            `{"x": "float32[28,28,1]", "y": "int64[]"}`; `"image"` is an encoded image.
        time: A column with the time of each example, in any unit, for `PipelineOptions.half_life`.
    """

    path: Path
    format: DataFormat | None = None
    features: tuple[str, ...] = ()
    label: str | None = None
    classes: tuple[str, ...] = ()
    image_size: tuple[int, int] | None = None
    channels: int = 3
    value_range: tuple[float, float] | None = None
    schema: dict[str, str] | None = None
    time: str | None = None

    def __post_init__(self) -> None:
        see_channels(self.channels, "channels")
        if self.image_size is not None and min(self.image_size) < 1:
            raise OptionsError(f"image-size is {list(self.image_size)}", advice="Both numbers must be above 0.")
        if self.value_range is not None and not self.value_range[0] < self.value_range[1] < math.inf:
            raise OptionsError(
                f"value-range is {list(self.value_range)}", advice="Write LOW, HIGH with LOW below HIGH."
            )
        for name, given in (("features", self.features), ("classes", self.classes)):
            if len(set(given)) < len(given):
                raise OptionsError(f"{name} is {list(given)}", advice="Name each one once.")
        for name in ("label", "time"):
            if getattr(self, name) in self.features:
                raise OptionsError(f"{getattr(self, name)!r} is a feature and the {name}", advice="Choose one of them.")


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineOptions:
    """How to make batches. What a field changes is speed and memory; only `batch`, `shuffle`, `shuffle_buffer`,
    `augment` and `half_life` change which examples a batch holds.

    Attributes:
        batch: Examples of one batch, on one worker.
        shuffle: Draw the examples of each epoch in a new order.
        shuffle_buffer: Examples that a set too large to be shuffled whole (TFRecord) is shuffled among.
        cache: Where decoded examples are kept.
        cache_folder: Of `cache = "disk"`: the folder for the file; None: the user's cache.
        parallel_reads: Shards that are read at once; 0: TensorFlow decides (AUTOTUNE).
        parallel_map: Examples or batches that are decoded at once; 1: no parallelism, 0: AUTOTUNE.
        prefetch: Batches made before they are asked for; 0: none, None: AUTOTUNE.
        vectorised_map: Decode a batch at once, where the format can, instead of one example after another.
        augment: Names in `AUGMENTATIONS`, or `package.module:function`, in the order they are applied.
        half_life: In the unit of `DataOptions.time`: an example older by this is drawn half as often. None: all alike.
        service: HOST:PORT of the dispatcher of a tf.data service whose workers make the batches. Each batch comes once,
            but not in the order of the steps. None: this process makes them.
        service_timeout_s: How long to wait for a batch of the service.
    """

    batch: int = 32
    shuffle: bool = True
    shuffle_buffer: int = 10_000
    cache: Cache = Cache.NONE
    cache_folder: Path | None = None
    parallel_reads: int = 0
    parallel_map: int = 0
    prefetch: int | None = None
    vectorised_map: bool = True
    augment: tuple[str, ...] = ()
    half_life: float | None = None
    service: str | None = None
    service_timeout_s: float = 60.0

    def __post_init__(self) -> None:
        for name, least in (("batch", 1), ("shuffle_buffer", 1), ("parallel_reads", 0), ("parallel_map", 0)):
            at_least(getattr(self, name), least, name.replace("_", "-"))
        at_least(self.prefetch or 0, 0, "prefetch")
        if self.half_life is not None and not 0 < self.half_life < math.inf:
            raise OptionsError(f"half-life is {self.half_life:g}", advice="It must be a number above 0.")
        if self.half_life is not None and not self.shuffle:
            raise OptionsError("half-life is given without shuffle", advice="Turn shuffle on, or leave half-life out.")
        if not 0 < self.service_timeout_s < math.inf:
            raise OptionsError(
                f"service-timeout-s is {self.service_timeout_s:g}", advice="It must be a number above 0."
            )
        if self.service is not None and self.cache is not Cache.NONE:
            raise OptionsError(
                f'cache = "{self.cache}" is given with a service, whose workers keep nothing',
                advice='Write cache = "none", or leave the service out.',
            )
        if self.cache_folder is not None and self.cache is not Cache.DISK:
            raise OptionsError(
                f'cache-folder is given with cache = "{self.cache}"', advice='Write cache = "disk", or leave it out.'
            )
