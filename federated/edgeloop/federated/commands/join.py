"""The verb `federate join`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeloop.errors import OptionsError
from edgeloop.federated.device.connection.link import parse_link
from edgeloop.federated.device.data.npz import read_arrays
from edgeloop.federated.device.join import STATE, JoinOptions
from edgeloop.federated.device.join import join as take_part


def join(
    ctx: typer.Context,
    url: Annotated[str, typer.Argument(help="Use the server at this address: HOST:PORT or https://HOST:PORT.")],
    data: Annotated[
        Path,
        typer.Option(metavar="F.npz", help="Train on this data (inputs by name, or x, and y), which stays here."),
    ],
    root_certificate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default="those of the system",
            help="Trust servers whose certificate leads to this one (PEM).",
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Show the server this EC key (ssh-keygen -t ecdsa), which its owner has registered.",
        ),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            help="Use plain HTTP: whoever is on the way can read and change the weights and the model.",
        ),
    ] = False,
    state: Annotated[
        str,
        typer.Option(
            metavar="DIR", help="Store what the device remembers here; a relative path lies in $EDGELOOP_HOME."
        ),
    ] = STATE,
) -> None:
    """Join a federation as a device: train on local data in each round, until interrupted.

    Only weights, counts and losses leave the device, which has the data. When the server or the network is away, the
    device waits and connects again; it ends only if the server refuses it.
    """
    if ctx.obj.json:
        raise OptionsError("join runs until it is interrupted, and --json wants one result", advice="Leave out --json.")
    certificate, own = (None if file is None else str(file) for file in (root_certificate, key))
    link = parse_link(url, insecure=insecure, certificate=certificate, key=own)
    read_arrays(data)  # bad data is found here, not in the first round
    take_part(JoinOptions(link, str(data.absolute()), state=state), ctx.obj.say)
