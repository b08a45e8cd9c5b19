"""The verb `cache`."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from edgeloop.convert import cache as conversions
from edgeloop.errors import OptionsError
from edgeloop.result import CommandResult, Table


def cache(
    ctx: typer.Context,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove all entries, or those that the next two options name.")
    ] = False,
    older_than_days: Annotated[
        float | None, typer.Option(metavar="DAYS", help="Remove entries not used for DAYS days (needs --prune).")
    ] = None,
    keep_mb: Annotated[
        float | None,
        typer.Option(metavar="MB", help="Remove the entries used longest ago until MB are left (needs --prune)."),
    ] = None,
) -> CommandResult:
    """List the conversions that the cache holds, or remove some of them."""
    if not prune and (older_than_days is not None or keep_mb is not None):
        raise OptionsError("--older-than-days and --keep-mb need --prune, which is missing", advice="Add --prune.")
    removed = []
    if prune:
        everything = older_than_days is None and keep_mb is None
        removed = conversions.prune(
            limit_bytes=0 if everything else None if keep_mb is None else int(keep_mb * 1e6),
            older_than_s=None if older_than_days is None else older_than_days * 86400,
        )
    kept = conversions.entries()
    rows = [{"key": e.key, "model": e.model, "bytes": e.bytes, "used_s": e.used_s} for e in kept]
    folder = str(conversions.cache_folder())
    document = {"folder": folder, "entries": rows, "removed": [e.key for e in removed]}
    cells = [
        (e.key[:12], e.model, f"{e.bytes / 1e6:,.1f} MB", f"{(time.time() - e.used_s) / 86400:.1f} days ago")
        for e in kept
    ]
    notes = [f"{len(removed)} removed."] if prune else []
    return CommandResult(document, [Table(folder, ("key", "model", "size", "last used"), cells)], notes)
