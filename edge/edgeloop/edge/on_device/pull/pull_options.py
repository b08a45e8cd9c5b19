"""What a device that fetches its releases itself was told to do. Python 3.9 syntax, the standard library."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict, dataclass, field

from edgeloop.canonical import canonical_json
from edgeloop.edge.on_device.pull.release_source import ReleaseSource, SourceAddress
from edgeloop.edge.on_device.releases.protocol import Probation
from edgeloop.edge.on_device.variants.variant_choice import DeployConstraints
from edgeloop.errors import OptionsError
from edgeloop.hashes import digest_of

POLL_S = 300.0
STEP_S = 300.0  # for one step of an installation, as of a deploy


@dataclass(frozen=True)
class PullOptions:
    """Where releases come from, how often to ask, and which are taken.

    Attributes:
        threads: Of the runtime; 0: as the release before, or 1.
        root_certificate: A file of certificates on the device; empty: those that its system trusts.

    Raises:
        OptionsError: A time that is none, or more than `Probation` and `DeployConstraints` take.
    """

    address: SourceAddress
    poll_s: float = POLL_S
    root_certificate: str = ""
    threads: int = 0
    constraints: DeployConstraints = field(default_factory=DeployConstraints)
    probation: Probation = field(default_factory=Probation)

    def __post_init__(self) -> None:
        if not 0 < self.poll_s < math.inf:
            raise OptionsError(f"--poll-s is {self.poll_s:g}", advice="It must be a number above 0.")
        if self.root_certificate and not self.address.base.lower().startswith("https://"):
            raise OptionsError("--root-certificate applies to an https URL", advice="Leave it out, or use https.")

    def source(self) -> ReleaseSource:
        """The source, which is not asked yet. Raises DataError: `root_certificate` holds none."""
        from edgeloop.edge.on_device.pull.folder_source import FolderSource
        from edgeloop.edge.on_device.pull.http_source import HttpSource  # with TLS: who follows nobody needs none

        if self.address.is_url:
            return HttpSource(self.address.base, self.root_certificate)
        return FolderSource(self.address.base)

    @property
    def demands(self) -> str:
        """A hash of what a release must do here: one that failed may pass where that changes."""
        return digest_of(canonical_json([asdict(self.constraints), asdict(self.probation), self.threads]))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of the device's program that only a device with --follow reads, by their names in `arguments_of`."""
    for name in ("--follow", "--root-certificate"):
        parser.add_argument(name, default="")
    for name in ("--min-accuracy", "--max-rmse", "--p90-budget-ms"):
        parser.add_argument(name, type=float)
    parser.add_argument("--poll-s", type=float, default=POLL_S)
    parser.add_argument("--max-ram-bytes", type=int)
    parser.add_argument("--probation", type=int, default=Probation().runs)


def read_arguments(read: argparse.Namespace) -> PullOptions | None:
    """None: no --follow. Raises OptionsError as `PullOptions`."""
    if not read.follow:
        return None
    return PullOptions(
        address=SourceAddress(read.follow),
        poll_s=read.poll_s,
        root_certificate=read.root_certificate,
        threads=read.threads,
        constraints=DeployConstraints(
            variant=read.variant or None,
            runtime=read.runtime or None,
            min_accuracy=read.min_accuracy,
            max_rmse=read.max_rmse,
            max_ram_bytes=read.max_ram_bytes,
        ),
        probation=Probation(read.probation, read.p90_budget_ms),
    )


def arguments_of(options: PullOptions) -> list[str]:
    """The other way: what the host passes to the device's program, but for --variant, --runtime and --threads."""
    named = {
        "--follow": options.address.text,
        "--root-certificate": options.root_certificate,
        "--poll-s": options.poll_s if options.poll_s != POLL_S else None,
        "--min-accuracy": options.constraints.min_accuracy,
        "--max-rmse": options.constraints.max_rmse,
        "--max-ram-bytes": options.constraints.max_ram_bytes,
        "--probation": options.probation.runs if options.probation.runs != Probation().runs else None,
        "--p90-budget-ms": options.probation.p90_budget_ms,
    }
    return [f"{name}={value}" for name, value in named.items() if value not in (None, "")]
