"""What the journal of a server costs a round: hashes of its updates, or their contents.

Both get the same replies, one after another, as fresh bytes, judge them, fold them into the exact mean and write them
into a journal. They alternate. The disk is that of the temporary folder. The ratio is that of neighbours in time.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

PARAMETERS = 1_000_000


def journal(replies: Callable[[int], Iterable[Any]], updates: int, repeats: int) -> dict[str, Any]:
    """Medians over the repeats, of one round of so many updates."""
    import numpy as np

    from edgeloop.federated.rounds.journal.options import JournalOptions, Kept

    runs: dict[str, list[dict[str, float]]] = {kept.value: [] for kept in Kept}
    for _ in range(repeats):
        for kept in Kept:
            limit = JournalOptions(updates=kept, max_disk_mb=1e6).limit_bytes
            runs[kept.value].append(_round(replies(updates), limit))
    found: dict[str, Any] = {"updates": updates, "parameters": PARAMETERS, "repeats": repeats}
    for key in ("cpu_s", "wall_s", "disk_mb"):
        for name, each in runs.items():
            found[f"{name}_{key}_p50"] = float(np.median([run[key] for run in each]))
    for key in ("cpu_s", "wall_s"):
        pairs = zip(runs["contents"], runs["hashes"], strict=True)
        found[f"{key}_contents_over_hashes_p50"] = float(np.median([a[key] / b[key] for a, b in pairs]))
    return {"what": "a round of float32 updates on the server: its journal with their contents over hashes", **found}


def _round(replies: Iterable[Any], limit: int | None) -> dict[str, float]:
    import numpy as np

    from edgeloop.federated.rounds.aggregation.collect import StreamedMean
    from edgeloop.federated.rounds.compression_options import CompressionOptions
    from edgeloop.federated.rounds.guard.options import GuardOptions
    from edgeloop.federated.rounds.guard.sent_weights import base_of
    from edgeloop.federated.rounds.guard.update import Update, judge
    from edgeloop.federated.rounds.journal.contents import Contents
    from edgeloop.federated.rounds.journal.journal import Journal

    base, mean = base_of({"w000": np.zeros(PARAMETERS, np.float32)}), StreamedMean({"w000": (PARAMETERS,)})
    with tempfile.TemporaryDirectory() as folder:
        contents, written = Contents(Path(folder), limit), Journal(Path(folder))
        started, wall = time.process_time(), time.perf_counter()
        for reply in replies:
            update = judge(reply, base, GuardOptions(max_norm=1e9, max_norm_ratio=1e9), CompressionOptions())
            assert isinstance(update, Update)
            written.add_update(1, 1, update, contents=contents.add(1, 1, reply))
            mean.add(reply, update)
        mean.replies()
        found = {"cpu_s": time.process_time() - started, "wall_s": time.perf_counter() - wall}
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return {**found, "disk_mb": size / 1e6}
