"""The option `--set` of every verb that reads a `train.toml`."""

from __future__ import annotations

from typing import Annotated

import typer

Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="TABLE.KEY=VALUE",
        show_default="none",
        help="Set a key of the TOML file to another value, e.g. data.batch=64.",
    ),
]
