"""Examples of any format -> sharded TFRecord files with a schema.json, here or by Apache Beam."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgeloop.atomic import new_folder
from edgeloop.cloud.input import beam
from edgeloop.cloud.input.damage import named_damage
from edgeloop.cloud.input.examples import Examples, Sharded
from edgeloop.cloud.input.options import DataOptions
from edgeloop.cloud.input.readers import open_examples
from edgeloop.cloud.input.record_files import count
from edgeloop.cloud.input.records import decoded, schema_of, serialized
from edgeloop.cloud.input.schema import FILE, Schema, write_schema
from edgeloop.errors import OptionsError, WriteError
from edgeloop.extras import need
from edgeloop.progress import Progress, silent

STEM = "examples"
TOLD = 256  # examples between two reports of progress
OPEN_FILES = 512  # shards at most: each is an open file while they are written


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOptions:
    """How to write.

    Attributes:
        shards: Files; at least as many as workers will read them.
        gzip: Pack each file; smaller, and slower to read.
        runner: A runner of Apache Beam, e.g. `DirectRunner`, `FlinkRunner`, `SparkRunner`, `DataflowRunner`. None: this
            process writes, without Beam.
        runner_options: Beam's own options of that runner by name, without the dashes before it.
    """

    shards: int = 1
    gzip: bool = False
    runner: str | None = None
    runner_options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= self.shards <= OPEN_FILES:
            raise OptionsError(f"--shards is {self.shards}", advice=f"It must be 1 to {OPEN_FILES}.")
        if self.runner_options and self.runner is None:
            raise OptionsError("runner options are given without a runner", advice="Pass --runner too.")

    @property
    def suffix(self) -> str:
        return ".tfrecord.gz" if self.gzip else ".tfrecord"


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenData:
    """What was written: examples of each file by its name, and bytes of all of them."""

    out: Path
    counts: Mapping[str, int]
    size_bytes: int

    @property
    def examples(self) -> int:
        return sum(self.counts.values())


def write_data(data: DataOptions, out: Path, options: WriteOptions, progress: Progress = silent) -> WrittenData:
    """Write the examples at `data.path` as `examples-00000-of-00008.tfrecord` and so on, with schema.json, into `out`.

    Example i of the stored order is in shard i modulo `options.shards`, so the same examples give the same files; Beam
    distributes them as it likes. Images are decoded once and stored as bytes. `out` is replaced when all is written.

    Raises:
        DataError: The examples cannot be read, or are fewer than the shards.
        WriteError: `out` holds something else than such data, or cannot be written.
        MissingExtra: TensorFlow, or Beam for a runner, is not installed.
        DeviceError: A runner of Beam failed.
    """
    _see_that_it_may_be_replaced(data.path, out)
    examples = open_examples(data)
    if examples.count is not None and examples.count < options.shards:
        raise OptionsError(
            f"{examples.name} has {examples.count} examples for {options.shards} shards", advice="Ask for fewer shards."
        )
    with new_folder(out) as folder, named_damage(examples):
        if options.runner is None:
            schema, counts = write_examples(examples, folder, options, progress)
        else:
            schema = schema_of(examples, next(decoded(examples, _first(examples))))
            beam.write(
                data, examples, folder / STEM, options.shards, options.suffix, options.runner, options.runner_options
            )
            counts = {file.name: count(file) or 0 for file in sorted(folder.glob(f"{STEM}*"))}
        write_schema(folder, replace(schema, counts=counts))
        size = sum(file.stat().st_size for file in folder.iterdir())
    return WrittenData(out=out, counts=counts, size_bytes=size)


def _first(examples: Examples) -> range | None:
    return None if isinstance(examples.source, Sharded) else range(1)


def write_examples(
    examples: Examples, folder: Path, options: WriteOptions, progress: Progress = silent
) -> tuple[Schema, dict[str, int]]:
    """Write shards into a folder that is there, without schema.json: what the records hold, and how many there are."""
    tf = need("tensorflow", extra="cloud")
    names = [f"{STEM}-{k:05d}-of-{options.shards:05d}{options.suffix}" for k in range(options.shards)]
    packing = tf.io.TFRecordOptions(compression_type="GZIP" if options.gzip else "")
    counts, schema, number = dict.fromkeys(names, 0), None, 0
    with contextlib.ExitStack() as opened:
        writers = [opened.enter_context(tf.io.TFRecordWriter(str(folder / name), packing)) for name in names]
        for number, example in enumerate(decoded(examples), 1):
            schema = schema or schema_of(examples, example)
            place = (number - 1) % len(names)
            writers[place].write(serialized(example))
            counts[names[place]] += 1
            if number % TOLD == 0:
                progress("write", number, max(number, examples.count or 0))
    assert schema is not None  # readers refuse a set without examples
    progress("write", number, number)
    return schema, counts


def _see_that_it_may_be_replaced(source: Path, out: Path) -> None:
    if out.is_dir() and any(out.iterdir()) and not (out / FILE).is_file():
        raise WriteError(f"{out} holds other files", advice="Choose a new folder, or empty this one.")
    if source.resolve().is_relative_to(out.resolve()):
        raise WriteError(f"{out} holds the data to read, {source}", advice="Choose another folder to write to.")
