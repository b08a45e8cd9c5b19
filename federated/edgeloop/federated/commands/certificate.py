"""The verb `federate certificate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeloop.federated.network.certificates import write_certificates
from edgeloop.result import CommandResult, Table

USES = (
    "copy it to each device: federate join --root-certificate",
    "keep it secret: it signs the next certificate",
    "[network] certificate",
    "keep it secret: [network] key",
)


def certificate(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Write the certificates and their keys here.")],
    host: Annotated[
        list[str],
        typer.Option(metavar="HOST", help="Write it for this name or address, by which devices reach the server."),
    ],
    days: Annotated[
        int, typer.Option(metavar="N", help="End the validity of the server's certificate after N days.")
    ] = 365,
) -> CommandResult:
    """Write the certificate that a server of rounds shows to devices of other machines.

    The first call makes an authority too, whose certificate the devices get; later calls renew the server's
    certificate by the same authority, and devices need nothing new.
    """
    written = write_certificates(folder, host, days)
    rows = [(path.name, use) for path, use in zip(written, USES, strict=True)]
    document = {"folder": str(folder), "files": [path.name for path in written], "hosts": host, "days": days}
    return CommandResult(document, [Table(str(folder), ("file", "use"), rows)])
