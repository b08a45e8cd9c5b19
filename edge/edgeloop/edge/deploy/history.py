"""The history: what was done to devices and what they answered, in a SQLite database on this machine.

A row is written when its action begins and when it ends, so a kill loses none; several commands may write at once.
Where it cannot be written the command goes on: what was done to a device is done.

Sources
    write-ahead log   https://sqlite.org/wal.html
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from edgeloop.edge.deploy.history_rows import HistoryAction, HistoryRow, now
from edgeloop.edge.deploy.known_devices import add_devices, known_devices_file
from edgeloop.errors import DataError, EdgeloopError
from edgeloop.processes.file_lock import exclusive
from edgeloop.progress import Say
from edgeloop.runtime.device import Device

log = logging.getLogger(__name__)
T = TypeVar("T")
BUSY_S = 10.0  # for another command's write, which takes milliseconds
COLUMNS = tuple(field.name for field in fields(HistoryRow))
SAME_ANSWER = tuple(name for name in COLUMNS if name not in ("at", "until", "duration_s"))
# one script for each version of the schema; a database of version N has run the first N
SCHEMA = (
    """
    CREATE TABLE rollouts (
        number INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, slot TEXT NOT NULL, version INTEGER NOT NULL,
        manifest_sha256 TEXT NOT NULL, waves TEXT NOT NULL, devices INTEGER NOT NULL, ended_at TEXT, result TEXT
    );
    CREATE TABLE actions (
        id INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, until TEXT, action TEXT NOT NULL, device TEXT NOT NULL,
        name TEXT NOT NULL, result TEXT NOT NULL, slot TEXT, version INTEGER, before INTEGER, variant TEXT,
        runtime TEXT, manifest_sha256 TEXT, rollout INTEGER REFERENCES rollouts, wave INTEGER, options TEXT, step TEXT,
        duration_s REAL, runs INTEGER, p50_ms REAL, p90_ms REAL, sent_bytes INTEGER, exit_code INTEGER, reason TEXT
    );
    CREATE INDEX actions_of_a_slot ON actions (device, slot, id);
    CREATE INDEX actions_of_a_time ON actions (at);
    """,
)


def history_file() -> Path:
    """Beside the list of known devices, under its name: history is kept of a fleet."""
    return known_devices_file().with_suffix(".db")


def open_database(file: Path) -> sqlite3.Connection:
    """Open a history for writing, and make what is missing of it.

    Raises:
        DataError: A newer edgeloop made it.
        sqlite3.Error, OSError: It is damaged, or may not be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(file, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        if _version(db, file) < len(SCHEMA):
            with exclusive(file.with_name(file.name + ".lock"), BUSY_S):  # SQLite does not wait for a change of mode
                db.execute("PRAGMA journal_mode = WAL")
                for script in SCHEMA[_version(db, file) :]:
                    version = _version(db, file) + 1
                    db.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {version}; COMMIT;")
        db.execute("PRAGMA synchronous = NORMAL")  # a kill loses nothing; a power cut at most the last rows
    except BaseException:
        db.close()
        raise
    return db


def _version(db: sqlite3.Connection, file: Path) -> int:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > len(SCHEMA):
        raise DataError(
            f"{file} has version {version} of the history, and this edgeloop writes {len(SCHEMA)}",
            advice="Update edgeloop.",
        )
    return int(version)


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
                return _in_transaction(self._db, work)
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


def row_from(values: Sequence[Any]) -> HistoryRow:
    """What a query for COLUMNS found."""
    row = dict(zip(COLUMNS, values, strict=True))
    return HistoryRow(**{**row, "action": HistoryAction(row["action"])})


def _reason(file: Path, e: Exception) -> str:
    if isinstance(e, DataError):
        return str(e)
    why = e.strerror if isinstance(e, OSError) and e.strerror else e
    return f"{file}: {why}. Make it writable, or move it away and a new one begins."


def _in_transaction(db: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    db.execute("BEGIN IMMEDIATE")
    try:
        result = work(db)
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # it has been rolled back by what failed
            db.execute("ROLLBACK")
        raise
    return result


def _insert(db: sqlite3.Connection, row: HistoryRow) -> int | None:
    values = ", ".join(f":{name}" for name in COLUMNS)
    return db.execute(f"INSERT INTO actions ({', '.join(COLUMNS)}) VALUES ({values})", asdict(row)).lastrowid


def _add(db: sqlite3.Connection, row: HistoryRow) -> None:
    if row.action is HistoryAction.STATUS:
        last = db.execute(
            f"SELECT id, {', '.join(SAME_ANSWER)} FROM actions WHERE device = ? AND slot IS ? ORDER BY id DESC LIMIT 1",
            (row.device, row.slot),
        ).fetchone()
        if last is not None and last[1:] == tuple(getattr(row, name) for name in SAME_ANSWER):
            db.execute("UPDATE actions SET until = ? WHERE id = ?", (row.at, last[0]))
            return
    _insert(db, row)
