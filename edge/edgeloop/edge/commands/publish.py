"""The verb `publish`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeloop.registry.publish import publish as publish_bundle
from edgeloop.result import CommandResult, Table


def publish(
    ctx: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="Publish this bundle.")],
    registry: Annotated[Path, typer.Argument(help="Add the bundle to the registry in this folder.")],
    alias: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Set this alias, e.g. canary, to the published version."),
    ] = None,
) -> CommandResult:
    """Publish a bundle as a version in a registry, which devices follow with edgeloop run --follow."""
    done = publish_bundle(bundle, registry, alias or ())
    result = "unchanged" if done.unchanged else "published"
    row = (done.name, str(done.version), result, ", ".join(done.aliases), str(done.folder))
    table = Table("", ("name", "version", "result", "aliases", "folder"), [row])
    unsigned = (
        "The bundle is not signed, and devices that follow the registry refuse it. Sign it: edgeloop convert ... "
    )
    document = {
        "name": done.name,
        "version": done.version,
        "result": result,
        "aliases": list(done.aliases),
        "folder": str(done.folder),
        "signed": done.signed,
    }
    return CommandResult(document, [table], [] if done.signed else [unsigned + "--sign KEY"])
