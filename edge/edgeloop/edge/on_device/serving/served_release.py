"""A slot, or a bundle's folder, in; what is served out: one variant of one release on one runtime. Python 3.9 syntax.

slots/NAME/current is a link to the installed release, which holds one variant's files; a deploy replaces the link in
one step. Nothing else is served: what the link names must be, to the byte, what the slot's state says was checked. A
bundle's folder is read in place and may hold many variants.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from edgeloop.bundle import INFERENCE, Bundle, Manifest, Variant, read_bundle
from edgeloop.edge.on_device.releases.staged_bundle import read_exact_bundle
from edgeloop.edge.on_device.releases.store import Release, Slot, read_state, slots
from edgeloop.errors import IntegrityError, MissingExtra, ModelError, OptionsError
from edgeloop.runtime.agent.runtimes import is_installed
from edgeloop.runtime_table import DEVICE_RUNTIMES, those_of


@dataclass(frozen=True)
class ServeRequest:
    """What to serve and how. Empty fields, and 0 threads: as it was deployed; of a folder: the first fit, 1 thread."""

    slot: Slot | None = None
    folder: str = ""
    variant: str = ""
    runtime: str = ""
    threads: int = 0

    @property
    def path(self) -> str:
        """What names the release: the slot's link, or the bundle's folder."""
        return self.slot.current if self.slot else self.folder


@dataclass(frozen=True)
class ServedRelease:
    """`folder` has no links left in it, so that it names the same release for good."""

    folder: str
    manifest: Manifest
    variant: Variant
    runtime: str
    threads: int

    @property
    def signature(self) -> str:
        own = self.variant.signatures
        return next((name for name in INFERENCE if name in own), own[0])


def find_slot(home: str, name: str) -> Slot:
    """The slot of that name; the only one there is, where `name` is empty.

    Raises:
        OptionsError: No such slot, none at all, or several and no name.
    """
    have = [slot for slot in slots(home) if os.path.islink(slot.current)]
    names = ", ".join(slot.name for slot in have)
    if not have:
        raise OptionsError("no bundle is deployed on this device", advice="Run: edgeloop deploy BUNDLE --to DEVICE")
    if not name and len(have) > 1:
        raise OptionsError(f"this device has the slots {names}", advice="Choose one with --slot.")
    for slot in have:
        if slot.name == (name or have[0].name):
            return slot
    raise OptionsError(f"this device has no slot {name!r}", advice=f"Choose one of: {names}.")


def release_key(path: str) -> tuple[str, int]:
    """What `path` names now: another release, or the same one installed anew, has another key. Two system calls.

    Raises:
        OSError: It leads nowhere.
    """
    return (os.readlink(path) if os.path.islink(path) else ""), os.stat(path).st_ino


def select_release(request: ServeRequest) -> ServedRelease:
    """The release that is there now, every file checked against its manifest.

    Raises:
        ModelError: No bundle there, or not that variant.
        IntegrityError: A file is damaged, missing or not listed, or the link leads to what no deploy installed.
        MissingExtra: Nothing on this device runs it.
    """
    folder = os.path.realpath(request.path)
    installed = _installed(request.slot, folder) if request.slot else None
    bundle = (
        read_exact_bundle(folder, installed.manifest_sha256, installed.variant) if installed else read_bundle(folder)
    )
    asked = request.variant or (installed.variant if installed else "")
    runtime = request.runtime or (installed.runtime if installed else "")
    threads = request.threads or (installed.threads if installed else 1)
    fitting = _variants(bundle, asked)
    for variant in fitting:
        found = _runtime(variant, runtime)
        if found:
            return ServedRelease(folder, bundle.manifest, variant, found, threads)
    forms = {variant.format for variant in fitting}
    names = (
        runtime
        or " or ".join(name for name, known in DEVICE_RUNTIMES.items() if known.formats & forms)
        or "a runtime for it"
    )
    raise MissingExtra(
        f"{bundle.manifest.name} is here as {', '.join(v.id for v in fitting)}, and {names} is not "
        "installed for this device's Python",
        advice="Install it there, or deploy another variant.",
    )


def _installed(slot: Slot, folder: str) -> Release:
    """The release in that folder, as the slot's state has it."""
    state = read_state(slot)
    for one in (state.current, state.probation, state.previous):
        if one and os.path.realpath(slot.release(one)) == folder:
            return one
    raise IntegrityError(
        f"{slot.current} links to {folder}, which edgeloop did not install", advice="Deploy the bundle again."
    )


def _variants(bundle: Bundle, asked: str) -> tuple[Variant, ...]:
    here = bundle.variants
    found = tuple(variant for variant in here if asked in ("", variant.id))
    if not found:
        have = ", ".join(variant.id for variant in here)
        raise ModelError(
            f"{bundle.manifest.name} {bundle.manifest.version} has no variant {asked!r} on this device",
            advice=f"Choose one of: {have}.",
        )
    return found


def _runtime(variant: Variant, asked: str) -> str:
    """An installed runtime: the one asked for, or the best of those the variant was verified on; empty: none."""
    fitting = [runtime for runtime in those_of(variant.format) if asked in ("", runtime.name)]
    installed = [runtime.name for runtime in fitting if is_installed(runtime)]
    return next((name for name in installed if name in (asked, *variant.requires.runtimes)), "")
