"""`edgeloop cache`: list what the cache holds, and remove entries."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from edgeloop.errors import OptionsError
from edgeloop.quantities import byte_count
from edgeloop.result import CommandResult, Table
from edgeloop.runtime.program import program_name
from edgeloop.user_cache import CacheEntry, CacheKind, cache_folder, cache_root, entries
from edgeloop.user_cache import prune as prune_cache

DAY_S = 86_400.0


def cache(
    ctx: typer.Context,
    kind: Annotated[
        list[CacheKind] | None,
        typer.Option(metavar="NAME", show_default="all kinds", help="List or remove only entries of this kind."),
    ] = None,
    prune: Annotated[
        bool,
        typer.Option("--prune", help="Remove all entries, or only those that --older-than-days and --keep-mb choose."),
    ] = False,
    older_than_days: Annotated[
        float | None, typer.Option(min=0, metavar="DAYS", help="Remove entries not used for DAYS days (needs --prune).")
    ] = None,
    keep_mb: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="MB", help="Remove the entries used longest ago until MB are left (needs --prune)."
        ),
    ] = None,
) -> CommandResult:
    """List what the cache holds (conversions, programs for devices, measured speeds), or remove entries.

    What is removed is made again when it is needed.
    """
    if not prune and (older_than_days is not None or keep_mb is not None):
        raise OptionsError("--older-than-days and --keep-mb need --prune, which is missing", advice="Add --prune.")
    kinds = tuple(kind or CacheKind)
    removed = _removed(kinds, older_than_days, keep_mb) if prune else []
    kept = entries(kinds)
    document = {
        "folder": str(cache_root()),
        "entries": [_row(entry) for entry in kept],
        "removed": [_row(entry) for entry in removed],
    }
    cells = [(entry.kind.value, entry.title, _size(entry.bytes), _ago(entry), entry.path.name[:12]) for entry in kept]
    table = Table(str(cache_root()), ("kind", "content", "size", "last used", "name"), cells)
    return CommandResult(document, [table], [_said(removed)] if prune else [])


def _removed(kinds: tuple[CacheKind, ...], older_than_days: float | None, keep_mb: float | None) -> list[CacheEntry]:
    """The program that this very edgeloop runs with stays: agents on this machine read it for as long as they live."""
    if older_than_days is None and keep_mb is None:
        limit_bytes: int | None = 0  # --prune alone removes everything
    elif keep_mb is None:
        limit_bytes = None
    else:
        limit_bytes = byte_count(keep_mb, "--keep-mb") if keep_mb else 0
    return prune_cache(
        kinds,
        limit_bytes=limit_bytes,
        older_than_s=None if older_than_days is None else older_than_days * DAY_S,
        spare=[cache_folder(CacheKind.PROGRAMS) / program_name()],
    )


def _row(entry: CacheEntry) -> dict[str, object]:
    return {
        "kind": entry.kind.value,
        "name": entry.path.name,
        "of": entry.title,
        "bytes": entry.bytes,
        "used_s": entry.used_s,
    }


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e3:,.1f} kB" if size_bytes < 1e6 else f"{size_bytes / 1e6:,.1f} MB"


def _ago(entry: CacheEntry) -> str:
    return f"{(time.time() - entry.used_s) / DAY_S:.1f} days ago"


def _said(removed: list[CacheEntry]) -> str:
    size = sum(entry.bytes for entry in removed)
    return f"{len(removed)} {'entry' if len(removed) == 1 else 'entries'} removed, {_size(size)}"
