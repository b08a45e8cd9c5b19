"""The verb `verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeloop.bundle import read_bundle
from edgeloop.convert.present import conversion
from edgeloop.convert.proof.verify import verify as run
from edgeloop.registry.signatures.sign import verify_signature
from edgeloop.registry.signatures.signers import read_signers
from edgeloop.result import CommandResult
from edgeloop.runtime.chosen_devices import FLEET_FORMS, parse_devices


def verify(
    ctx: typer.Context,
    bundle: Annotated[
        Path, typer.Argument(help="Verify this bundle, or this model, which is then converted into a temporary bundle.")
    ],
    on: Annotated[
        list[str] | None,
        typer.Option(metavar="DEVICE", help=f"Check each variant on this device too: {FLEET_FORMS}."),
    ] = None,
    signers: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Require the signature of a signer in this OpenSSH allowed_signers file."),
    ] = None,
) -> CommandResult:
    """Verify a bundle: its hashes, its signature, and the answers of every variant."""
    notes = []
    if signers is not None:
        read_signers(signers)
        notes.append(f"Signed by {verify_signature(read_bundle(bundle), signers)}.")
    checked = run(bundle, ctx.obj, tuple(parse_devices(on or ())))
    return conversion(checked.bundle, checked.parity, notes)
