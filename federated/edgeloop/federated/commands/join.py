"""The verb `federate join`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeloop.errors import OptionsError
from edgeloop.federated.device.connection.link import parse_link
from edgeloop.federated.device.data.readers import read_samples
from edgeloop.federated.device.join import JoinOptions
from edgeloop.federated.device.join import join as take_part
from edgeloop.federated.device.options import STATE, DeviceOptions
from edgeloop.registry.signatures.signers import read_signers


def join(
    ctx: typer.Context,
    url: Annotated[str, typer.Argument(help="Use the server at this address: HOST:PORT or https://HOST:PORT.")],
    data: Annotated[
        str,
        typer.Option(
            metavar="DATA",
            help="Train on this data, which stays here: .npz, .csv, TFRecord, a folder of IDX files or of pictures by "
            "class, or module:function.",
        ),
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
            help="Show the server this EC key (ssh-keygen -t ecdsa), which the server's owner registered.",
        ),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            help="Use plain HTTP: whoever is on the way can read and change the weights and the model.",
        ),
    ] = False,
    signers: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Train only models that one of these keys signed (an allowed_signers file of OpenSSH).",
        ),
    ] = None,
    unsigned: Annotated[
        bool,
        typer.Option(
            "--unsigned",
            help="Train models that nobody signed: whoever runs the server decides which files this device loads.",
        ),
    ] = False,
    keep_local: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WEIGHTS",
            help="Store these weights here instead of sending them: head (the last layer), w006 or a pattern.",
        ),
    ] = None,
    no_statistics: Annotated[
        bool,
        typer.Option(
            "--no-statistics",
            help="Send no counts by class, neither of the examples nor of those that the model gets right, and no mean "
            "and variance of the labels.",
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

    What leaves the device is weights, losses, counts of examples (also by class), the class of machine and the kind of
    an error; if the server asks for it, also the mean and variance of labels that are numbers, of 10 samples or more.
    Its data and the text of an error are kept. When the server or the network is away, the device waits and
    connects again; it ends only if the server refuses it, or if its own folder cannot be written.
    """
    if ctx.obj.json:
        raise OptionsError("join runs until it is interrupted, and --json wants one result", advice="Leave out --json.")
    if (signers is not None) == unsigned:
        raise OptionsError(
            "--signers is given, and so is --unsigned" if unsigned else "neither --signers nor --unsigned is given",
            advice="Pass --signers FILE to train signed models alone, else --unsigned.",
        )
    files = [None if file is None else str(file) for file in (root_certificate, key)]
    link = parse_link(url, insecure=insecure, certificate=files[0], key=files[1])
    if signers is not None:
        read_signers(signers)
    read_samples(data)  # bad data is found here, not in the first round
    device = DeviceOptions(
        data=str(Path(data).absolute()) if Path(data).exists() else data,
        state=state,
        keep_local=tuple(keep_local or ()),
        signers=None if signers is None else str(signers.absolute()),
        no_statistics=no_statistics,
    )
    take_part(JoinOptions(link, device), ctx.obj.say)
