"""A bundle's files brought to the device: only what is not there yet, and only what its manifest lists.

Python 3.9 syntax, the standard library.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping

from edgeloop.atomic import discard, make_folder, replace_file
from edgeloop.bundle import MANIFEST, SIGNATURE, FileEntry, Manifest, Variant, parse_manifest
from edgeloop.edge.on_device.releases.lifecycle import ReleaseEvent, advance, after, nothing_staged
from edgeloop.edge.on_device.releases.protocol import BeginReply, StagePushRequest
from edgeloop.edge.on_device.releases.staged_bundle import check_version, device_files, is_whole
from edgeloop.edge.on_device.releases.store import Slot, StagedRelease, read_state
from edgeloop.edge.on_device.releases.trust import enrolled
from edgeloop.errors import IntegrityError, WriteError
from edgeloop.hashes import digest, digest_of
from edgeloop.registry.signatures.verify import LIMIT_BYTES
from edgeloop.runtime.agent.push import PushReply
from edgeloop.runtime.agent.receive import part_name, receive
from edgeloop.runtime.agent.runtimes import is_installed
from edgeloop.runtime_table import RUNTIMES


def begin(
    slot: Slot,
    data: bytes,
    manifest: Manifest,
    variant: Variant,
    runtime: str | None = None,
    threads: int | None = None,
) -> BeginReply:
    """Make `staging` ready for these bytes of a manifest and one variant, or go on where an upload of it broke off.

    Files that the current or the previous release has are taken over. `runtime` and `threads` are those it shall run
    with; None: any.

    Raises:
        IntegrityError: Its version is too old.
    """
    state, sha256 = read_state(slot), digest_of(data)
    check_version(state, manifest, sha256)
    if runs_already(slot, data, variant, runtime, threads):
        return BeginReply([], unchanged=True)
    staged = StagedRelease(sha256, variant.id)
    if state.staged and (state.staged.manifest_sha256, state.staged.variant) != (sha256, variant.id):
        discard(slot.staging)
    advance(slot, state, ReleaseEvent.BEGIN, staged=staged)
    make_folder(slot.staging)
    files = device_files(manifest, variant)
    missing = _tidy(slot.staging, files)
    _check_space(slot, {name: files[name] for name in missing})
    for release in filter(None, (state.current, state.previous)):
        missing = [name for name in missing if not _take_over(slot, slot.release(release), name, files[name])]
    replace_file(os.path.join(slot.staging, MANIFEST), data)
    return BeginReply(missing, unchanged=False)


def runs_already(slot: Slot, data: bytes, variant: Variant, runtime: str | None, threads: int | None) -> bool:
    """Whether exactly this was committed, is whole, and can be run by this Python. Nothing is written, so it holds on a
    disk that is full or read-only too."""
    state, sha256 = read_state(slot), digest_of(data)
    current = state.current
    if current is None or state.probation is not None:
        return False
    if (current.manifest_sha256, current.variant) != (sha256, variant.id):
        return False
    if runtime not in (None, current.runtime) or threads not in (None, current.threads):
        return False
    if not is_installed(RUNTIMES[current.runtime]):  # another Python than the one that installed it
        return False
    if enrolled(slot.home) and current.signer is None:
        return False  # installed before anybody was enrolled
    return is_whole(slot, current)  # what is damaged this deploy repairs


def push(slot: Slot, asked: StagePushRequest, piece: bytes) -> PushReply:
    """One piece of one file of the set that `begin` named, or of the signature.

    Raises:
        OptionsError: Nothing was begun.
        IntegrityError: The manifest does not list it so, or it arrived damaged.
    """
    path, size = asked.path, asked.size
    if path == SIGNATURE:
        if size > LIMIT_BYTES:
            raise IntegrityError(
                f"{SIGNATURE} has {size} bytes, more than {LIMIT_BYTES}",
                advice="Expected what ssh-keygen -Y sign writes.",
            )
    else:
        listed = _files_begun(slot).get(path)
        if listed != FileEntry(size, asked.sha256):
            raise IntegrityError(
                f"{path!r} is not in the manifest with {size} bytes and this hash", advice="Deploy the bundle again."
            )
    return receive(slot.staging, asked, piece)


def _files_begun(slot: Slot) -> dict[str, FileEntry]:
    state, path = read_state(slot), os.path.join(slot.staging, MANIFEST)
    after(slot, state, ReleaseEvent.PUSH)
    if state.staged is None or not os.path.isfile(path):
        raise nothing_staged(slot)
    with open(path, "rb") as file:
        manifest = parse_manifest(file.read())
    return device_files(manifest, manifest.variant(state.staged.variant))


def _tidy(staging: str, files: Mapping[str, FileEntry]) -> list[str]:
    """Remove what is not of this upload, signatures of earlier attempts too; the files that are still to come."""
    parts = {part_name(name, entry.sha256) for name, entry in files.items()}
    missing = set(files)
    for root, folders, names in os.walk(staging):
        for name in [*names, *(folder for folder in folders if os.path.islink(os.path.join(root, folder)))]:
            path = os.path.join(root, name)
            listed = os.path.relpath(path, staging)
            if listed in missing and _is(path, files[listed]):
                missing.discard(listed)
            elif listed not in parts:
                os.unlink(path)
    return sorted(missing)


def _check_space(slot: Slot, files: Mapping[str, FileEntry]) -> None:
    """Refuse what would fill the disk before hours of an upload do.

    Raises:
        WriteError: The files that are still to come, less their parts that are here, have no room.
    """
    parts = [os.path.join(slot.staging, part_name(name, entry.sha256)) for name, entry in files.items()]
    here = sum(os.path.getsize(part) for part in parts if os.path.isfile(part))
    needed, free = sum(entry.bytes for entry in files.values()) - here, free_bytes(slot.staging)
    if needed > free:
        raise WriteError(
            f"cannot write below {slot.home}: the release takes {needed} more bytes, and {free} bytes are free",
            advice="The old release still runs. Free some space there and try again.",
        )


def free_bytes(folder: str) -> int:
    """Of the disk, for this user."""
    return shutil.disk_usage(folder).free


def _take_over(slot: Slot, release: str, name: str, entry: FileEntry) -> bool:
    source, target = os.path.join(release, name), os.path.join(slot.staging, name)
    if not _is(source, entry):
        return False
    make_folder(os.path.dirname(target))
    shutil.copyfile(source, target)  # no hard link: what damages one release must not damage the other
    return True


def _is(path: str, entry: FileEntry) -> bool:
    if os.path.islink(path) or not os.path.isfile(path) or os.path.getsize(path) != entry.bytes:
        return False
    return digest(path) == entry.sha256
