"""Checks that what lies in `staging` may become a release: its signature, hashes, name, version and requirements.

Python 3.9 syntax, the standard library.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from edgeloop.bundle import (
    MANIFEST,
    REFERENCE,
    SIGNATURE,
    VOCABULARY,
    Bundle,
    FileEntry,
    Manifest,
    Variant,
    read_bundle,
)
from edgeloop.edge.on_device.releases.lifecycle import ReleaseEvent, after, nothing_staged
from edgeloop.edge.on_device.releases.requirements import check_requirements
from edgeloop.edge.on_device.releases.store import Release, Slot, SlotState
from edgeloop.edge.on_device.releases.trust import enrolled, signers_file
from edgeloop.errors import IntegrityError, ModelError
from edgeloop.hashes import digest_of
from edgeloop.registry.signatures.verify import verify


@dataclass(frozen=True)
class CheckedBundle:
    """A checked bundle with one variant; `signer` None: no signers are enrolled, so no signature was verified."""

    bundle: Bundle
    variant: Variant
    signer: str | None


def check_staged(slot: Slot, state: SlotState, runtime: str) -> CheckedBundle:
    """Check the whole of `staging`. Nothing of it is run.

    Raises:
        OptionsError: Nothing is staged.
        IntegrityError: Unsigned or wrongly signed, changed, damaged, incomplete, not listed, of another slot, too old.
        TargetError: This device or runtime is not what the variant needs.
    """
    after(slot, state, ReleaseEvent.CHECK)
    if state.staged is None or not os.path.isdir(slot.staging):
        raise nothing_staged(slot)
    manifest = _manifest_bytes(slot.staging, state.staged.manifest_sha256)
    signer = verify(signers_file(slot.home), slot.staging, manifest) if enrolled(slot.home) else None
    bundle = read_exact_bundle(slot.staging, state.staged.manifest_sha256, state.staged.variant)
    check_name(slot, bundle.manifest)
    check_version(state, bundle.manifest, bundle.manifest_sha256)
    variant = bundle.variant(state.staged.variant)
    check_requirements(variant, runtime)
    return CheckedBundle(bundle, variant, signer)


def check_name(slot: Slot, manifest: Manifest) -> None:
    """A bundle goes to the slot of its own name, so that no signed bundle takes the place of another model.

    Raises:
        IntegrityError: It has another name.
    """
    if manifest.name != slot.name:
        raise IntegrityError(
            f"the manifest is of {manifest.name!r} and the slot of {slot.name!r}",
            advice="Deploy a bundle to the slot of its own name.",
        )


def check_version(state: SlotState, manifest: Manifest, manifest_sha256: str) -> None:
    """Above the floor, or exactly the current one: as a repair, or in another variant.

    Raises:
        IntegrityError: Neither.
    """
    if state.current is not None and state.current.manifest_sha256 == manifest_sha256:
        return
    if manifest.version <= state.floor:
        raise IntegrityError(
            f"release {manifest.version} is not above release {state.floor}, which this device has committed",
            advice=f"Convert with --release {state.floor + 1} or higher.",
        )


def device_files(manifest: Manifest, variant: Variant) -> dict[str, FileEntry]:
    """What a device holds of a bundle besides the manifest and its signature: one variant, the reference, and the words
    to look up before the model."""
    names = [*variant.files, *(name for name in manifest.files if name == REFERENCE or name.startswith(VOCABULARY))]
    return {name: manifest.files[name] for name in names}


def read_exact_bundle(folder: str, manifest_sha256: str, variant: str) -> Bundle:
    """A folder with exactly this manifest, all files of that variant, the reference, and nothing else.

    Raises:
        IntegrityError: Anything differs, is missing or is too much.
    """
    _manifest_bytes(folder, manifest_sha256)
    bundle = read_bundle(folder)
    if bundle.manifest_sha256 != manifest_sha256:  # what counts is what was parsed
        raise IntegrityError(f"{folder} changed while it was read", advice="Deploy the bundle again.")
    expected = {MANIFEST, *device_files(bundle.manifest, bundle.variant(variant))}
    present = {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()} - {SIGNATURE}
    if present != expected:
        odd = sorted(present ^ expected)[0]
        found = f"lacks {odd!r}" if odd in expected else f"holds {odd!r}, which is not of variant {variant!r}"
        raise IntegrityError(f"{folder} {found}", advice="Deploy the bundle again.")
    return bundle


def is_whole(slot: Slot, release: Release) -> bool:
    """Whether an installed release is what was installed, to the byte."""
    try:
        read_exact_bundle(slot.release(release), release.manifest_sha256, release.variant)
    except (IntegrityError, ModelError):
        return False
    return True


def _manifest_bytes(folder: str, sha256: str) -> bytes:
    path = os.path.join(folder, MANIFEST)
    if not os.path.isfile(path):
        raise IntegrityError(f"{folder} has no {MANIFEST}", advice="Deploy the bundle again.")
    with open(path, "rb") as file:
        data = file.read()
    if digest_of(data) != sha256:
        raise IntegrityError(f"{path} was changed after it was sent", advice="Deploy the bundle again.")
    return data
