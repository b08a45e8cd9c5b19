"""What a device remembers of its source: slots/NAME/pull.json, whose loss costs no more than a poll.

Python 3.9 syntax, the standard library.
"""

from __future__ import annotations

import enum
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from edgeloop.atomic import replace_file
from edgeloop.edge.on_device.releases.store import Slot

FILE = "pull.json"
TRIES = 3  # of a release of which nothing is known but that its trial did not end: the device may have died of it
KEPT = 16  # releases that failed


class PollResult(str, enum.Enum):
    """How a poll ended."""

    INSTALLED = "installed"
    NOTHING_NEW = "nothing new"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True)
class FailedRelease:
    """A release that was run here. `reason` empty: its trial began `times` times and never ended."""

    version: int
    times: int = 1
    reason: str = ""

    @property
    def final(self) -> bool:
        """It is not tried again."""
        return bool(self.reason) or self.times >= TRIES


@dataclass(frozen=True)
class PullRecord:
    """The last poll, and what came of earlier ones.

    Attributes:
        polled_s: When, in seconds since 1970 by the device's clock; 0: never.
        failures: Polls in a row that failed.
        poll_s: Time between polls.
        installed: manifest_sha256 of the last release that came from the source; None: none did.
        failed: By manifest_sha256.
        demands: What they were held to (`PullOptions.demands`).
    """

    source: str = ""
    polled_s: float = 0.0
    result: str = ""
    reason: str = ""
    failures: int = 0
    poll_s: float = 0.0
    installed: str | None = None
    failed: Mapping[str, FailedRelease] = field(default_factory=dict)
    demands: str = ""

    def with_failed(self, manifest_sha256: str, failed: FailedRelease | None) -> PullRecord:
        """The same with that entry, the newest; without it, where it is None."""
        others = {key: each for key, each in self.failed.items() if key != manifest_sha256}
        entries = [*others.items(), *([(manifest_sha256, failed)] if failed else [])]
        return replace(self, failed=dict(entries[-KEPT:]))


def read_record(slot: Slot) -> PullRecord | None:
    """None: the slot follows no source, or its record is damaged, as after a power cut on some disks."""
    try:
        with open(_path(slot), "rb") as file:
            raw = json.loads(file.read())
        failed = {key: FailedRelease(**each) for key, each in raw.pop("failed").items()}
        return PullRecord(failed=failed, **raw)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_record(slot: Slot, record: PullRecord) -> None:
    """Raises OSError: the disk refuses."""
    replace_file(_path(slot), json.dumps(asdict(record), sort_keys=False).encode())


def _path(slot: Slot) -> str:
    return os.path.join(slot.path, FILE)
