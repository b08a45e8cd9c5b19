"""The verb `federate init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeloop.federated.network.plain_app import write_plain_app
from edgeloop.result import CommandResult, Table


def init(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Write the app into this new folder.")],
    bundle: Annotated[
        Path, typer.Option(metavar="BUNDLE", help="Train the trainable variant of this bundle, which the server reads.")
    ],
) -> CommandResult:
    """Write a Flower app that trains a bundle, for flwr run and your own changes.

    The app is plain: it has Flower's FedAvg on the server, and needs edgeloop only for the training on devices.
    """
    written = write_plain_app(folder, bundle)
    rows = [(str(path.relative_to(folder)),) for path in written]
    return CommandResult({"app": str(folder), "files": [row[0] for row in rows]}, [Table(str(folder), ("file",), rows)])
