"""The SQLite database of the history: where it is, its tables, and how it is opened for writing.

Sources
    write-ahead log   https://sqlite.org/wal.html
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from edgeloop.edge.deploy.history_rows import HistoryAction, HistoryRow
from edgeloop.edge.deploy.known_devices import known_devices_file
from edgeloop.errors import DataError
from edgeloop.processes.file_lock import exclusive

T = TypeVar("T")
BUSY_S = 10.0  # for another command's write, which takes milliseconds
COLUMNS = tuple(field.name for field in fields(HistoryRow))
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


def in_transaction(db: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    """The result of `work`, whose changes are kept together or not at all."""
    db.execute("BEGIN IMMEDIATE")
    try:
        result = work(db)
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # it has been rolled back by what failed
            db.execute("ROLLBACK")
        raise
    return result


def row_from(values: Sequence[Any]) -> HistoryRow:
    """What a query for COLUMNS found."""
    row = dict(zip(COLUMNS, values, strict=True))
    return HistoryRow(**{**row, "action": HistoryAction(row["action"])})
