"""Conversions by what went into them: an unchanged one is copied, its hashes checked, in no time.

The key is the sha256 of the model, of the files it keeps weights in, of every data file, the options, and the
toolchain: the versions of the packages here and in the device environment, and edgeloop's own code. An entry is a
folder `KEY/` with `bundle/`, `record.json`, and `beside/` for the files that lie beside the bundle.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from edgeloop.atomic import make_folder, new_folder
from edgeloop.bundle import MANIFEST, PROOF, Bundle, is_bundle, read_bundle
from edgeloop.canonical import canonical_json
from edgeloop.convert.sources.identify import source_digest
from edgeloop.errors import EdgeloopError, WriteError
from edgeloop.hashes import digest_of
from edgeloop.user_cache import FOLDER, CacheKind, cache_folder, cache_root, log_miss, mark_used, prune

LIMIT_BYTES = 4 << 30  # beyond it, the entries used longest ago go
FREE_OF = ("cache", "limits")  # options that change nothing in a bundle
BESIDE = "beside"


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedBundle:
    """A bundle that came from the cache, and the files that lie beside it."""

    bundle: Bundle
    notes: tuple[str, ...]
    beside: Mapping[str, bytes]


def cache_key(
    model: Path,
    sha256: str,
    options: Any,
    packages: Sequence[str],
    environments: Sequence[Path] = (),
    beside: Sequence[Path] = (),
) -> str:
    """The key of converting `model` with these options (a dataclass), by these packages and those of the environments
    of other interpreters that prove. `beside` are the other files that a model has weights in."""
    asked = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    document = {
        "model": [model.name, sha256, *map(source_digest, beside)],
        "options": {name: json_value(value) for name, value in asked.items() if name not in FREE_OF},
        "toolchain": versions(packages),
        "environments": [sorted(_installed(python)) for python in environments],
        "code": _own_code(),
    }
    return digest_of(canonical_json(document))


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Installed versions by name; what is absent is left out."""
    found = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def find(key: str, out: Path) -> CachedBundle | None:
    """Put the kept bundle of `key` at `out`, every hash checked; None when there is none or it is damaged."""
    entry = cache_folder(CacheKind.CONVERSIONS) / key
    try:
        kept = read_bundle(entry / "bundle")
        record = json.loads((entry / "record.json").read_bytes())
        if not _same(kept, out):
            with new_folder(out) as folder:
                shutil.copytree(kept.path, folder, dirs_exist_ok=True)
        mark_used(entry)
        beside = {file.name: file.read_bytes() for file in (entry / BESIDE).iterdir()}
        return CachedBundle(bundle=read_bundle(out), notes=tuple(map(str, record["notes"])), beside=beside)
    except (EdgeloopError, OSError, ValueError, KeyError):
        log_miss(entry)
        return None  # a damaged entry is no entry: the conversion runs, and replaces it


def keep(key: str, bundle: Bundle, notes: Sequence[str], beside: Mapping[str, bytes]) -> None:
    """Copy a bundle into the cache; beyond LIMIT_BYTES the oldest others go.

    Raises:
        WriteError: The disk or the permissions refuse.
    """
    folder = cache_folder(CacheKind.CONVERSIONS)
    try:
        make_folder(str(folder))
        with new_folder(folder / key) as entry:
            shutil.copytree(bundle.path, entry / "bundle")
            record = {"model": bundle.manifest.source["file"], "notes": list(notes)}
            (entry / "record.json").write_bytes(canonical_json(record))
            (entry / BESIDE).mkdir()
            for name, content in beside.items():
                (entry / BESIDE / name).write_bytes(content)
    except OSError as e:
        raise WriteError(
            f"cannot write the cache {cache_root()} ({e.strerror or e})", advice=f"Name another in {FOLDER}."
        ) from e
    prune([CacheKind.CONVERSIONS], limit_bytes=LIMIT_BYTES)


def _same(kept: Bundle, out: Path) -> bool:
    """Whether `out` is this very bundle already, proof included, with nothing damaged."""
    if not is_bundle(out):
        return False
    try:
        read_bundle(out)
        return all((kept.path / name).read_bytes() == (out / name).read_bytes() for name in (MANIFEST, PROOF))
    except (EdgeloopError, OSError):
        return False


def json_value(value: Any) -> Any:
    """An option as JSON. A file that is named counts by its content."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Path):
        return source_digest(value) if value.exists() else str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: json_value(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (frozenset, set)):
        return sorted(map(json_value, value))
    if isinstance(value, (list, tuple)):
        return [json_value(part) for part in value]
    return value


def _installed(python: Path) -> set[str]:
    """`name==version` of every package in another environment, from its metadata alone."""
    folders = map(str, python.parent.parent.glob("lib/python*/site-packages"))
    return {f"{d.name}=={d.version}" for d in importlib.metadata.distributions(path=list(folders))}


@cache
def _own_code() -> str:
    """sha256 of edgeloop's own files: an editable installation changes without its version changing."""
    import edgeloop

    files = sorted(path for folder in edgeloop.__path__ for path in Path(folder).rglob("*.py"))
    whole = hashlib.sha256()
    for file in files:
        whole.update(file.read_bytes())
    return whole.hexdigest()
