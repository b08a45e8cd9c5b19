"""A document of `edgeloop bench`, read back and checked: it may come from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from edgeloop.canonical import read_json
from edgeloop.errors import DataError, ModelError

LIMIT_BYTES = 1 << 28  # raw samples: 60 bytes a run
TEXTS = ("variant", "runtime", "device")
FLAGS = ("valid", "functional_only")
TIMES = ("wall_ms", "cpu_ms")

Record: TypeAlias = Mapping[str, Any]


def read_bench(path: str | Path) -> Mapping[str, Any]:
    """A document that `edgeloop bench --json` or `-o` wrote.

    Raises:
        DataError: It is not one.
    """
    path = Path(path)
    try:
        document = read_json(path.read_bytes(), str(path), LIMIT_BYTES)
    except OSError as e:
        raise DataError(
            f"{path} cannot be read: {e.strerror or e}", advice="Name a file that edgeloop bench -o wrote."
        ) from e
    except ModelError as e:
        raise DataError(e.sentence, advice="Name a file that edgeloop bench -o wrote.") from e
    wrong = _wrong(document.get("bench"))
    if wrong:
        raise DataError(
            f"{path} is not a document of edgeloop bench: {wrong}", advice="Name a file that edgeloop bench -o wrote."
        )
    return document


def _wrong(records: Any) -> str:
    if not isinstance(records, list):
        return "it has no list `bench`"
    found = (f"row {k} has no valid field {lack}" for k, record in enumerate(records) if (lack := _lacks(record)))
    return next(found, "") if records else "it has no row"


def _lacks(record: Any) -> str:
    """What of a record is missing or of another kind; empty where it is whole."""
    if not isinstance(record, dict):
        return "names"
    missing = [name for name in TEXTS if not isinstance(record.get(name), str)]
    missing += [name for name in FLAGS if not isinstance(record.get(name), bool)]
    times = [record.get(name) for name in TIMES]
    missing += [name for name, values in zip(TIMES, times, strict=True) if not _are_times(values)]
    if not missing and times[1] and len(times[1]) != len(times[0]):  # type: ignore[arg-type]
        missing.append("cpu_ms, one a run or none")
    if record.get("contended") not in (True, False, "unknown"):
        missing.append("contended")
    if not isinstance(record.get("block"), int) or record["block"] < 1:
        missing.append("block")
    start = record["steady"].get("from") if isinstance(record.get("steady"), dict) else "none"
    if start is not None and (not isinstance(start, int) or start < 0):
        missing.append("steady")
    if not isinstance(record.get("delegate"), str | None):
        missing.append("delegate")
    return missing[0] if missing else ""


def _are_times(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(v, int | float) and 0 <= v < math.inf for v in values)
