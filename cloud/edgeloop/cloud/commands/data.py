"""The verb `data write`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeloop.cloud.input.options import DataFormat, DataOptions, see_channels
from edgeloop.cloud.input.writers import WriteOptions, WrittenData, write_data
from edgeloop.errors import OptionsError
from edgeloop.quantities import pair
from edgeloop.result import CommandResult, Table


def write(
    ctx: typer.Context,
    data: Annotated[Path, typer.Argument(help="Read the examples in this file, or in the files of this folder.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Write the TFRecord files into this folder.")],
    shards: Annotated[int, typer.Option(metavar="N", help="Write N files, at least one for each worker.")] = 8,
    gzip: Annotated[
        bool, typer.Option("--gzip", help="Write files compressed with gzip, which are smaller and slower to read.")
    ] = False,
    data_format: Annotated[
        DataFormat | None,
        typer.Option(
            "--format", metavar="FORMAT", show_default="by the files' names", help="Read the data as this format."
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(metavar="NAME", show_default="y or label", help="Read labels from this array or column."),
    ] = None,
    feature: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", show_default="all others", help="Read a feature from this array or column."),
    ] = None,
    resize: Annotated[
        str | None,
        typer.Option(metavar="HEIGHT,WIDTH", show_default="as they are", help="Resize images to this size."),
    ] = None,
    channels: Annotated[int, typer.Option(metavar="N", help="Read images with 1, 3 or 4 channels.")] = 3,
    runner: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default="without Beam",
            help="Write with Apache Beam on this runner, e.g. DirectRunner, FlinkRunner or DataflowRunner.",
        ),
    ] = None,
    runner_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", show_default="none", help="Give this option to Beam's runner."),
    ] = None,
) -> CommandResult:
    """Write examples of any format as TFRecord files, in shards that several workers can read."""
    see_channels(channels, "--channels")
    size = pair(resize, "--resize")
    read = DataOptions(
        path=data,
        format=data_format,
        label=label,
        features=tuple(feature or ()),
        image_size=None if size is None else (int(size[0]), int(size[1])),
        channels=channels,
    )
    options = WriteOptions(
        shards=shards, gzip=gzip, runner=runner, runner_options=dict(map(_option, runner_option or ()))
    )
    written = write_data(read, out, options, ctx.obj)
    document = {
        "out": str(out),
        "examples": written.examples,
        "bytes": written.size_bytes,
        "files": dict(written.counts),
    }
    return CommandResult(document, [_table(written)])


def _option(given: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if not name or not equals:
        raise OptionsError(f"--runner-option is {given!r}", advice="Write NAME=VALUE.")
    return name, value


def _table(written: WrittenData) -> Table:
    rows = [(name, str(number)) for name, number in written.counts.items()]
    return Table(
        f"{written.examples} examples, {written.size_bytes / 1e6:.1f} MB, in {written.out}", ("file", "examples"), rows
    )
