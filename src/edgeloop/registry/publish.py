"""A bundle in; a new version of its model in a registry out, which any web server can serve as plain files.

The version's folder stands whole under its name before the index names it, and the index is replaced in one step: who
reads at any moment, or after a kill, sees the versions of before or of after.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeloop.atomic import new_folder, write_file
from edgeloop.bundle import MANIFEST, PROOF, SIGNATURE, Bundle, check_proof, parse_manifest, read_bundle
from edgeloop.errors import IntegrityError, ModelError, OptionsError, WriteError
from edgeloop.processes.file_lock import exclusive
from edgeloop.registry.versions.version_index import (
    INDEX,
    LATEST,
    LIMIT_BYTES,
    PLAIN,
    VersionIndex,
    parse_index,
    version_folder,
)

LOCK, LOCK_S = ".lock", 60.0  # another publisher copies a bundle meanwhile


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishResult:
    """What the registry offers now.

    Attributes:
        folder: Of the version. `unchanged`: it was published before.
        signed: Whether it carries a signature; devices take none without.
        aliases: Those that name this version now.
    """

    name: str
    version: int
    folder: Path
    unchanged: bool
    signed: bool
    aliases: tuple[str, ...]


def publish(path: str | Path, registry: str | Path, aliases: Sequence[str] = ()) -> PublishResult:
    """Add the bundle at `path` to the folder `registry`, under its name and release number.

    Args:
        aliases: Names that point to this version from now on; `latest` always points to the highest.

    Raises:
        OptionsError: The bundle's name or an alias cannot be a part of a URL.
        ModelError, IntegrityError: The bundle is none, or damaged; or that version is published with other content.
        DataError: The registry's index is damaged.
        WriteError: The registry may not be written, another publisher holds it for LOCK_S, its index is full, or
            something else lies where the version belongs.

    Example:
        >>> publish("digits-cnn", "/srv/models", aliases=["canary"])
    """
    bundle, registry = read_bundle(path), Path(registry)
    for what, name in (("the bundle's name", bundle.manifest.name), *(("--alias", alias) for alias in aliases)):
        if not PLAIN.fullmatch(name) or name == LATEST:
            raise OptionsError(
                f"{what} is {name!r}",
                advice=f"Use letters, digits, dots, dashes and underscores, and not {LATEST!r}.",
            )
    folder = registry / bundle.manifest.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive(folder / LOCK, LOCK_S):
            return _publish(bundle, folder, aliases)
    except TimeoutError as e:
        raise WriteError(f"{e}, by another publisher", advice="Try again when it has ended.") from e
    except OSError as e:
        raise WriteError(f"cannot write {folder} ({e.strerror})", advice="Choose a folder you may write to.") from e


def read_index(folder: Path, name: str) -> VersionIndex:
    """The index in a model's folder; an empty one where nothing was published yet. Raises DataError: damaged."""
    file = folder / INDEX
    return parse_index(file.read_bytes()) if file.is_file() else VersionIndex(name)


def _publish(bundle: Bundle, folder: Path, aliases: Sequence[str]) -> PublishResult:
    manifest, index = bundle.manifest, read_index(folder, bundle.manifest.name)
    target, known = folder / version_folder(manifest.version), index.versions.get(manifest.version)
    if known not in (None, bundle.manifest_sha256):
        raise IntegrityError(
            f"version {manifest.version} of {manifest.name} is published with other content",
            advice=f"Convert with --release {max(index.versions) + 1} or higher: devices keep what they have checked.",
        )
    if known is None and os.path.lexists(target) and not _is_of(target, manifest.name):
        raise WriteError(
            f"cannot write {target}: what is there is no version of {manifest.name}",
            advice="Move it away, or choose another registry.",
        )
    new = VersionIndex(
        index.name,
        {**index.versions, manifest.version: bundle.manifest_sha256},
        {**index.aliases, **dict.fromkeys(aliases, manifest.version)},
    )
    size = len(new.to_bytes())
    if size > LIMIT_BYTES:
        raise WriteError(
            f"{folder / INDEX} would have {size} bytes, and devices read at most {LIMIT_BYTES}",
            advice="Publish to a new registry, and let the devices follow that one.",
        )
    there = _there(target, bundle)
    unchanged = known is not None and there is not None and _holds(there, bundle)
    if not unchanged:
        _copy(bundle, target, _kept(target, there, bundle) if known is not None else ())
    if new != index:
        write_file(folder / INDEX, new.to_bytes())
    latest = [LATEST] if manifest.version == max(new.versions) else []
    return PublishResult(
        name=manifest.name,
        version=manifest.version,
        folder=target,
        unchanged=unchanged and new == index,
        signed=(target / SIGNATURE).is_file(),
        aliases=(*latest, *(alias for alias, version in new.aliases.items() if version == manifest.version)),
    )


def _is_of(target: Path, name: str) -> bool:
    """Whether a version of that model lies there, as a publisher leaves it who is killed before the index names it."""
    try:
        return parse_manifest((target / MANIFEST).read_bytes()).name == name
    except (OSError, ModelError, IntegrityError):
        return False


def _there(target: Path, bundle: Bundle) -> Bundle | None:
    """The same version, whole, as it lies in the registry; None: it does not."""
    try:
        there = read_bundle(target)
    except (ModelError, IntegrityError):
        return None
    return there if there.manifest_sha256 == bundle.manifest_sha256 else None


def _holds(there: Bundle, bundle: Bundle) -> bool:
    """Whether nothing of the bundle is missing there, and its signature and proof are those."""
    listed = all(there.file(name).is_file() for name in bundle.manifest.files if bundle.file(name).is_file())
    beside = [name for name in (SIGNATURE, PROOF) if bundle.file(name).is_file()]
    return listed and all(_content(there.file(name)) == _content(bundle.file(name)) for name in beside)


def _content(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


def _kept(target: Path, there: Bundle | None, bundle: Bundle) -> Sequence[str]:
    """What stays of the version that lies there, where the bundle does not have it: who publishes a partial or unsigned
    copy takes nothing away. Of a damaged one no more than its signature, and its proof where that is whole."""
    if there is not None:
        return (*there.manifest.files, SIGNATURE, PROOF)
    try:
        check_proof(target / PROOF, bundle.manifest)
    except IntegrityError:
        return (SIGNATURE,)
    return SIGNATURE, PROOF


def _copy(bundle: Bundle, target: Path, kept: Sequence[str]) -> None:
    """The bundle's own files, and those of `kept` that it lacks, checked again as they were copied."""
    with new_folder(target) as made:
        for name in (MANIFEST, *bundle.manifest.files, SIGNATURE, PROOF):
            source = bundle.file(name)
            if not source.is_file() and name in kept:
                source = target / name
            if not source.is_file():
                continue  # of a variant that is not here, as on a device
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, made / name)
        read_bundle(made)
