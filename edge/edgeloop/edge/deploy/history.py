"""The history: what was done to devices and what they answered, in a SQLite database on this machine.

A row is written when its action begins and when it ends, so a kill loses none; several commands may write at once.
Where it cannot be written the command goes on: what was done to a device is done.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from edgeloop.edge.deploy.history_database import COLUMNS, history_file, in_transaction, open_database
from edgeloop.edge.deploy.history_rows import EMPTY, HistoryAction, HistoryRow, now
from edgeloop.edge.deploy.known_devices import add_devices
from edgeloop.errors import DataError, EdgeloopError
from edgeloop.progress import Say
from edgeloop.runtime.device import Device

log = logging.getLogger(__name__)
T = TypeVar("T")
SAME_ANSWER = tuple(name for name in COLUMNS if name not in ("at", "until", "duration_s"))


class History:
    """The history, open while one command runs; its methods may be called from several threads.

    Attributes:
        not_kept: Why nothing was written from some point on; one sentence each. Empty: all was kept.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file or history_file()
        self.not_kept: list[str] = []
        self._db: sqlite3.Connection | None = None
        self._failed = False
        self._lock = threading.Lock()

    def begin(self, row: HistoryRow) -> int | None:
        """Write down an action that begins; what `end` takes."""
        return self._write(lambda db: _insert(db, row))

    def end(self, id: int | None, known: Mapping[str, Any]) -> None:
        """What is known of an action at its end, by field of its row."""
        names = ", ".join(f"{name} = :{name}" for name in known)
        self._write(lambda db: db.execute(f"UPDATE actions SET {names} WHERE id = :id", {**known, "id": id}))

    def add(self, rows: Iterable[HistoryRow]) -> None:
        """Write down what has happened. A device's answer that is the same as the last one moves that one's `until`."""

        def add(db: sqlite3.Connection) -> None:
            for row in rows:
                _add(db, row)

        self._write(add)

    def add_answer(self, rows: Sequence[HistoryRow]) -> None:
        """Write down what a device answered of all its slots; a slot that it held before and no longer names is empty
        now."""

        def add(db: sqlite3.Connection) -> None:
            named = {row.slot for row in rows}
            slots = db.execute("SELECT DISTINCT slot FROM actions WHERE device = ?", (rows[0].device,)).fetchall()
            gone = sorted({slot for (slot,) in slots if slot} - named) if named != {None} else []
            for row in [*rows, *(_emptied(rows[0], slot) for slot in gone)]:
                _add(db, row)

        self._write(add)

    def begin_rollout(self, slot: str, version: int, manifest_sha256: str, waves: str, devices: int) -> int | None:
        """Its number."""
        values = (now(), slot, version, manifest_sha256, waves, devices)
        sql = "INSERT INTO rollouts (at, slot, version, manifest_sha256, waves, devices) VALUES (?, ?, ?, ?, ?, ?)"
        return self._write(lambda db: db.execute(sql, values).lastrowid)

    def end_rollout(self, number: int | None, result: str) -> None:
        sql = "UPDATE rollouts SET ended_at = ?, result = ? WHERE number = ?"
        self._write(lambda db: db.execute(sql, (now(), result, number)))

    def read(self, reading: Callable[[sqlite3.Connection], T]) -> T | None:
        """What `reading` finds; None: the history cannot be read, and `not_kept` says why."""
        return self._write(reading)

    def remember(self, device: Device) -> None:
        """Add the device to the list of known ones, so that `edgeloop devices` asks it."""
        try:
            add_devices([device])
        except EdgeloopError as e:
            line = f"The list of known devices was not kept: {e}"
            with self._lock:
                self.not_kept += [] if line in self.not_kept else [line]

    def close(self) -> None:
        if self._db is not None:
            self._db.close()

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        with self._lock:
            if self._failed:
                return None
            try:
                self._db = self._db or open_database(self.file)
                return in_transaction(self._db, work)
            except (sqlite3.Error, OSError, DataError) as e:
                self._failed = True
                self.not_kept.append(f"No history was kept: {_reason(self.file, e)}")
                return None


@contextlib.contextmanager
def kept_history(say: Say | None) -> Iterator[History]:
    """The history while the block runs; at its end `say` is told in a line each what was not kept."""
    history = History()
    try:
        yield history
    finally:
        history.close()
        for line in history.not_kept:
            (say or log.warning)(line)


def _reason(file: Path, e: Exception) -> str:
    if isinstance(e, DataError):
        return str(e)
    why = e.strerror if isinstance(e, OSError) and e.strerror else e
    return f"{file}: {why}. Make it writable, or move it away and a new one begins."


def _emptied(row: HistoryRow, slot: str) -> HistoryRow:
    """That the device which gave the answer `row` holds nothing in `slot`."""
    return HistoryRow(
        at=row.at,
        action=row.action,
        device=row.device,
        name=row.name,
        duration_s=row.duration_s,
        slot=slot,
        result=EMPTY,
    )


def _insert(db: sqlite3.Connection, row: HistoryRow) -> int | None:
    values = ", ".join(f":{name}" for name in COLUMNS)
    return db.execute(f"INSERT INTO actions ({', '.join(COLUMNS)}) VALUES ({values})", asdict(row)).lastrowid


def _add(db: sqlite3.Connection, row: HistoryRow) -> None:
    if row.action is HistoryAction.STATUS:  # an answer without a slot is of all slots
        last = db.execute(
            f"SELECT id, {', '.join(SAME_ANSWER)} FROM actions WHERE device = ? AND "
            "(slot = ? OR ? IS NULL OR (slot IS NULL AND result = ?)) ORDER BY id DESC LIMIT 1",
            (row.device, row.slot, row.slot, EMPTY),
        ).fetchone()
        if last is not None and last[1:] == tuple(getattr(row, name) for name in SAME_ANSWER):
            db.execute("UPDATE actions SET until = ? WHERE id = ?", (row.at, last[0]))
            return
    _insert(db, row)
