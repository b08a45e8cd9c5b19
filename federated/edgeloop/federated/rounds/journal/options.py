"""What the journal of a run keeps of each accepted update."""

from __future__ import annotations

import enum
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeloop.errors import OptionsError, WriteError
from edgeloop.quantities import byte_count

AROUND = 1024  # bytes around one array and its names, at most, as Flower packs it


class Kept(enum.StrEnum):
    """What is kept of an update."""

    HASHES = "hashes"  # who sent it, and a hash: a round that was not committed is asked for again
    CONTENTS = "contents"  # the update as it came: a resumed run goes on amid a round


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalOptions:
    """`[journal]`.

    Attributes:
        updates: What is kept of each accepted update.
        max_disk_mb: Of the contents of updates together. Those of the oldest rounds go first; one round has to fit.
    """

    updates: Kept = Kept.HASHES
    max_disk_mb: float = 10_000.0

    def __post_init__(self) -> None:
        byte_count(self.max_disk_mb, "[journal] max-disk-mb")

    @property
    def limit_bytes(self) -> int | None:
        """None: no contents are kept."""
        return byte_count(self.max_disk_mb, "[journal] max-disk-mb") if self.updates is Kept.CONTENTS else None

    def check_disk(self, weights: Mapping[str, np.ndarray], replies: int, out: Path) -> None:
        """See that the updates of a round fit; each is taken as weights without compression.

        Raises:
            OptionsError: They are more than max-disk-mb.
            WriteError: The disk of `out` has no room for them.
        """
        limit = self.limit_bytes
        if limit is None:
            return
        needed = replies * sum(array.nbytes + AROUND for array in weights.values())
        if needed > limit:
            raise OptionsError(
                f"[journal] keeps {replies} updates of a round, {needed / 1e6:.1f} MB, and max-disk-mb is "
                f"{self.max_disk_mb:g}",
                advice='Raise max-disk-mb, select fewer devices, or keep updates = "hashes".',
            )
        here = next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())
        free = shutil.disk_usage(here).free
        if needed > free:
            raise WriteError(
                f"[journal] keeps {needed / 1e6:.1f} MB of updates a round, and {here} has {free / 1e6:.1f} MB free",
                advice='Make room, choose another folder with -o, or keep updates = "hashes".',
            )
