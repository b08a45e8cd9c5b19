"""The history read: rows of some devices from some time on, and the rollouts of that time."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

from edgeloop.edge.deploy.history_database import BUSY_S, COLUMNS, SCHEMA, history_file, row_from
from edgeloop.edge.deploy.history_rows import HistoryRow
from edgeloop.edge.deploy.known_devices import absolute_name
from edgeloop.edge.deploy.resume import Rollout
from edgeloop.errors import DataError, OptionsError
from edgeloop.runtime.device import Device

AGE = re.compile(r"(\d{1,6})([mhdw])", re.ASCII)
UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
EXPECTED = "Write an age as 30m, 12h, 7d or 2w, or a date in UTC as 2026-11-30 or 2026-11-30T12:00."
ADVICE = "Move it away or delete it; a new one begins with the next command."


@dataclass(frozen=True, slots=True)
class ReadHistory:
    """Rows in the order in which they were begun, and the rollouts that they belong to."""

    rows: Sequence[HistoryRow]
    rollouts: Sequence[Rollout]


def since_when(text: str, now: datetime) -> str:
    """`7d` or a date as the time that rows carry.

    Raises:
        OptionsError: It is neither, or before the year 1.
    """
    age = AGE.fullmatch(text.strip())
    try:
        if age:
            when = now - timedelta(**{UNITS[age[2]]: int(age[1])})
        else:
            given = datetime.fromisoformat(text.strip())
            when = given if given.tzinfo else given.replace(tzinfo=UTC)
        return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError) as e:
        raise OptionsError(f"--since is {text!r}", advice=EXPECTED) from e


def read_history(devices: Sequence[Device] = (), since: str = "", file: Path | None = None) -> ReadHistory:
    """What was kept of these devices, of all where none is named; empty where nothing was kept yet.

    Args:
        since: A time in UTC, as rows have it; what a device still answered then belongs to it, too.

    Raises:
        DataError: The history is damaged, may not be read, or was made by a newer edgeloop.

    Example:
        >>> [row.result for row in read_history(since="2026-11-30T12:00:00.000Z").rows]
    """
    file = file or history_file()
    if not file.exists():
        return ReadHistory((), ())
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_S)) as db:
            return _read(db, file, [absolute_name(device) for device in devices], since)
    except sqlite3.Error as e:
        raise DataError(f"{file} cannot be read as a history: {e}", advice=ADVICE) from e


def _read(db: sqlite3.Connection, file: Path, names: Sequence[str], since: str) -> ReadHistory:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > len(SCHEMA):
        raise DataError(f"{file} was made by a newer edgeloop", advice="Update edgeloop.")
    if version == 0:  # its making was killed, or the disk was full
        return ReadHistory((), ())
    marks = f"AND device IN ({', '.join('?' * len(names))})" if names else ""
    found = db.execute(
        f"SELECT {', '.join(COLUMNS)} FROM actions WHERE (at >= ? OR until >= ?) {marks} ORDER BY at, id",
        (since, since, *names),
    )
    rows = [row_from(values) for values in found]
    numbers = {row.rollout for row in rows}
    columns = ", ".join(field.name for field in fields(Rollout))
    rollouts = [Rollout(*row) for row in db.execute(f"SELECT {columns} FROM rollouts ORDER BY number")]
    return ReadHistory(rows, [rollout for rollout in rollouts if rollout.number in numbers])
