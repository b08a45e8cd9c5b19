"""The user's cache: a folder for each kind of entry. Whatever lies in it may be deleted at any time.

A kind is a line in KINDS; every kind is listed and pruned by `edgeloop cache`.
"""

from __future__ import annotations

import contextlib
import enum
import json
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeloop.atomic import NEW, discard

log = logging.getLogger(__name__)
FOLDER = "EDGELOOP_CACHE"
ABANDONED_S = 86_400.0  # an unfinished entry of this age has no writer any more


class CacheKind(enum.StrEnum):
    """The value is the folder's name."""

    CONVERSIONS = "conversions"
    PROGRAMS = "programs"
    SPEEDS = "speeds"


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheEntry:
    """One file or folder of the cache.

    Attributes:
        title: What it was made of, for people.
        used_s: Unix time of its last use.
    """

    kind: CacheKind
    path: Path
    title: str
    bytes: int
    used_s: float


def _model(entry: Path) -> str:
    return str(json.loads((entry / "record.json").read_bytes())["model"])


def _device(entry: Path) -> str:
    return str(json.loads(entry.read_bytes())["device"])


KINDS: dict[CacheKind, Callable[[Path], str]] = {  # how an entry's title is read; it may fail where one is damaged
    CacheKind.CONVERSIONS: _model,
    CacheKind.PROGRAMS: lambda entry: "program for devices",
    CacheKind.SPEEDS: _device,
}


def cache_root() -> Path:
    """$EDGELOOP_CACHE, else edgeloop/ in $XDG_CACHE_HOME or ~/.cache."""
    named = os.environ.get(FOLDER)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(named) if named else Path(base) / "edgeloop"


def cache_folder(kind: CacheKind) -> Path:
    """Where entries of that kind lie; it may not be there yet."""
    return cache_root() / kind.value


def mark_used(entry: Path) -> None:
    """Now; of an entry that another user owns the time stays."""
    log.info("found in the cache: %s", entry)
    with contextlib.suppress(OSError):
        os.utime(entry)


def log_miss(entry: Path) -> None:
    """An entry was looked for, and is not there or damaged: it is made anew."""
    log.info("not in the cache: %s", entry)


def entries(kinds: Collection[CacheKind] = tuple(CacheKind)) -> list[CacheEntry]:
    """All entries of these kinds, last used first. What another process is writing now is none."""
    found = [entry for kind in kinds for entry in _entries(kind)]
    return sorted(found, key=lambda entry: entry.used_s, reverse=True)


def prune(
    kinds: Collection[CacheKind] = tuple(CacheKind),
    *,
    limit_bytes: int | None = None,
    older_than_s: float | None = None,
    spare: Collection[Path] = (),
) -> list[CacheEntry]:
    """Remove entries not used for `older_than_s`, then those used longest ago until the rest has `limit_bytes`.

    What is in `spare` stays. Returns the removed entries; one that cannot be removed is not among them.
    """
    removed, total = [], 0
    for entry in entries(kinds):
        total += entry.bytes
        too_old = older_than_s is not None and time.time() - entry.used_s >= older_than_s
        if entry.path not in spare and (too_old or (limit_bytes is not None and total > limit_bytes)):
            with contextlib.suppress(OSError):  # somebody else's, on a disk that many share
                discard(entry.path)
                total -= entry.bytes
                removed.append(entry)
    return removed


def _entries(kind: CacheKind) -> Iterator[CacheEntry]:
    folder = cache_folder(kind)
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        with contextlib.suppress(OSError):  # it went away meanwhile
            used_s = path.stat().st_mtime
            if path.name.endswith(NEW) and time.time() - used_s < ABANDONED_S:
                continue
            title, size = _title(kind, path), _bytes(path)
            yield CacheEntry(kind=kind, path=path, title=title, bytes=size, used_s=used_s)


def _title(kind: CacheKind, path: Path) -> str:
    if path.name.endswith(NEW):
        return "unfinished"
    try:
        return KINDS[kind](path)
    except (OSError, ValueError, KeyError, TypeError):
        return "damaged"


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
