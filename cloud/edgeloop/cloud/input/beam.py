"""TFRecord files written by Apache Beam, on any of its runners: for data sets too large for one process.

Source: https://beam.apache.org/documentation/runners/capability-matrix/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.cloud.input.examples import Examples, Numbered
from edgeloop.cloud.input.options import DataOptions
from edgeloop.cloud.input.parts import take
from edgeloop.cloud.input.readers import open_examples
from edgeloop.cloud.input.records import decoded, serialized
from edgeloop.errors import DeviceError, EdgeloopError, one_line
from edgeloop.extras import need

PART = 1024  # examples that one worker reads at once

Part = tuple[int, int]  # of `Numbered` examples from and up to a number; of `Sharded` ones the number of a file, and -1


def write(
    data: DataOptions,
    examples: Examples,
    prefix: Path,
    shards: int,
    suffix: str,
    runner: str,
    options: Mapping[str, str],
) -> None:
    """Read parts of the examples on the runner's workers and write all of them as sharded TFRecord files.

    Each worker opens `data` itself, so its path has to lead to the same files on every worker.

    Raises:
        MissingExtra: Apache Beam is not installed.
        DeviceError: The runner failed, or there is none of that name.
    """
    beam = need("apache_beam", extra="beam")
    given = [f"--runner={runner}", *(f"--{name}={value}" for name, value in options.items())]
    try:
        with beam.Pipeline(
            options=need("apache_beam.options.pipeline_options", extra="beam").PipelineOptions(given)
        ) as p:
            records = p | beam.Create(parts(examples)) | beam.Reshuffle() | beam.FlatMap(lambda part: read(data, part))
            records | beam.io.WriteToTFRecord(str(prefix), file_name_suffix=suffix, num_shards=shards)
    except EdgeloopError:
        raise
    except Exception as e:  # whatever a runner raises, of which Beam has no common class
        raise DeviceError(f"{runner} failed: {one_line(e)}", advice="Check --runner and its options.") from e


def parts(examples: Examples) -> list[Part]:
    """All examples in parts that one worker reads at once."""
    source = examples.source
    if isinstance(source, Numbered):
        return [(start, min(start + PART, source.count)) for start in range(0, source.count, PART)]
    return [(number, -1) for number in range(len(source.files))]


def read(data: DataOptions, part: Part) -> Iterator[bytes]:
    """The records of one part, on the worker that it was given to."""
    start, end = part
    examples: Any = open_examples(data)
    numbers = None if end < 0 else range(start, end)
    if numbers is None:
        examples = take(examples, np.array([start]))
    for example in decoded(examples, numbers):
        yield serialized(example)
