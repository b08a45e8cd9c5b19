"""A version that a source offers, its manifest fetched and checked; and which variant of it this device gets.

Nothing of it is believed before the signature over its manifest was verified: every size and hash that follows is from
there. Python 3.9 syntax, the standard library.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeloop.bundle import MANIFEST, PROOF, SIGNATURE, Bundle, check_proof, parse_manifest
from edgeloop.canonical import LIMIT_BYTES
from edgeloop.edge.on_device.pull.release_source import ReleaseSource
from edgeloop.edge.on_device.releases.requirements import machine
from edgeloop.edge.on_device.releases.staged_bundle import check_name, check_version, device_files
from edgeloop.edge.on_device.releases.store import Release, Slot, read_state
from edgeloop.edge.on_device.releases.trust import enrolled, signers_file
from edgeloop.edge.on_device.variants.variant_choice import DeployConstraints, VariantFit, fitting_variants
from edgeloop.errors import EdgeloopError, IntegrityError, TargetError
from edgeloop.hashes import digest_of
from edgeloop.leftovers import temporary_folder
from edgeloop.registry.signatures.verify import LIMIT_BYTES as SIGNATURE_LIMIT_BYTES
from edgeloop.registry.signatures.verify import verify
from edgeloop.registry.versions.version_index import IndexedVersion
from edgeloop.runtime.agent.runtimes import is_installed
from edgeloop.runtime_table import RUNTIMES


@dataclass(frozen=True)
class OfferedRelease:
    """Its manifest, signature and proof, on the disk in `bundle.path`; nothing else of it is there yet."""

    version: IndexedVersion
    bundle: Bundle
    manifest: bytes


def check_enrolled(home: str) -> None:
    """Raises IntegrityError where no signers are enrolled: nothing else would tell who made a release."""
    if not enrolled(home):
        raise IntegrityError(
            "no signers are enrolled on this device, and --follow installs only signed releases",
            advice="Run: edgeloop enroll DEVICE --signers FILE",
        )


@contextlib.contextmanager
def offered_release(source: ReleaseSource, slot: Slot, version: IndexedVersion) -> Iterator[OfferedRelease]:
    """Fetched into a temporary folder, which ends with the block.

    Raises:
        DeviceError: The source does not have it.
        IntegrityError: Unsigned, or not by an enrolled signer; not what the index says; of another slot; too old.
        ModelError: Its manifest breaks the format.
    """
    check_enrolled(slot.home)
    with temporary_folder() as folder:
        try:
            yield _fetched(source, slot, version, folder)
        except EdgeloopError as e:
            if folder not in e.found:
                raise
            named = f"{slot.name} {version.version}"  # the folder has another name each time, and is gone at once
            raise type(e)(e.sentence.replace(folder, named), advice=e.advice) from e


def _fetched(source: ReleaseSource, slot: Slot, version: IndexedVersion, folder: str) -> OfferedRelease:
    manifest = _fetch(source, version, folder, MANIFEST, LIMIT_BYTES)
    if digest_of(manifest) != version.manifest_sha256:
        raise IntegrityError(
            f"{MANIFEST} of version {version.version} is another than the index says",
            advice="Publish the bundle again.",
        )
    _fetch(source, version, folder, SIGNATURE, SIGNATURE_LIMIT_BYTES)
    verify(signers_file(slot.home), folder, manifest)
    bundle = Bundle(Path(folder), parse_manifest(manifest), version.manifest_sha256)
    check_name(slot, bundle.manifest)
    if bundle.manifest.version != version.version:
        raise IntegrityError(
            f"the index offers version {version.version}, and the manifest there is of {bundle.manifest.version}",
            advice="Publish the bundle again.",
        )
    check_version(read_state(slot), bundle.manifest, version.manifest_sha256)
    if bundle.manifest.proof_sha256 is not None:
        _fetch(source, version, folder, PROOF, LIMIT_BYTES)
        check_proof(bundle.file(PROOF), bundle.manifest)
    return OfferedRelease(version, bundle, manifest)


def choose_variant(bundle: Bundle, held: Release | None, constraints: DeployConstraints) -> VariantFit:
    """That of the release before, where it fits; else the smallest of those that do, on a runtime that is installed.

    Raises:
        OptionsError, BudgetError, TargetError, ModelError: As `fitting_variants`.
        TargetError: None of the runtimes is installed.
    """
    fitting = fitting_variants(bundle, machine(), constraints, bundle.manifest.variants)
    able = [fit for fit in fitting if is_installed(RUNTIMES[fit.runtime])]
    if not able:
        raise TargetError(
            f"none of the runtimes {', '.join(dict.fromkeys(fit.runtime for fit in fitting))} is installed here",
            advice="Install one for the device's Python, e.g. with: pip install ai-edge-litert",
        )
    for fit in able:
        if held is not None and (fit.variant.id, fit.runtime) == (held.variant, held.runtime):
            return fit
    return min(able, key=lambda fit: sum(entry.bytes for entry in device_files(bundle.manifest, fit.variant).values()))


def _fetch(source: ReleaseSource, version: IndexedVersion, folder: str, name: str, limit_bytes: int) -> bytes:
    data = source.small_file(f"{version.folder}/{name}", limit_bytes)
    with open(os.path.join(folder, name), "xb") as file:
        file.write(data)
    return data
