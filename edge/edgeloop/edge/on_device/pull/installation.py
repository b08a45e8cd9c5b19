"""An offered release in, installed on this device as a deploy installs it: the same requests, in the same order.

Python 3.9 syntax, the standard library.
"""

from __future__ import annotations

from edgeloop.bundle import SIGNATURE
from edgeloop.edge.on_device.pull.offered_release import OfferedRelease
from edgeloop.edge.on_device.pull.release_source import ReleaseSource
from edgeloop.edge.on_device.releases.protocol import Probation
from edgeloop.edge.on_device.releases.release_client import ReleaseClient
from edgeloop.edge.on_device.releases.staged_bundle import device_files
from edgeloop.edge.on_device.variants.variant_choice import VariantFit
from edgeloop.errors import EdgeloopError, TargetError, error_from_json


def stage(client: ReleaseClient, source: ReleaseSource, offered: OfferedRelease, fit: VariantFit, threads: int) -> bool:
    """Bring its files here, but for those that are here, and check them all; False: exactly this runs here so already.

    Raises:
        EdgeloopError: As the source and the client raise.
    """
    bundle = offered.bundle
    name = bundle.manifest.name
    missing = client.begin(name, fit.variant.id, fit.runtime, threads, offered.manifest)
    if missing is None:
        return False
    entries = device_files(bundle.manifest, fit.variant)
    for path in missing:
        with source.open(f"{offered.version.folder}/{path}", entries[path].bytes) as file:
            client.push_from(name, file.read, path, entries[path])
    client.push(name, bundle.file(SIGNATURE), SIGNATURE)
    client.check(name, fit.runtime)
    return True


def try_staged(
    client: ReleaseClient, offered: OfferedRelease, fit: VariantFit, threads: int, terms: Probation
) -> EdgeloopError | None:
    """The trial and the probation; what it was rolled back for, or None: it is committed. Raises as the client does."""
    name = offered.bundle.manifest.name
    client.trial(name, fit.runtime, threads)
    failure = client.activate(name, terms.runs, terms.p90_budget_ms).failure
    return None if failure is None else error_from_json(failure, TargetError, doing="the probation")
