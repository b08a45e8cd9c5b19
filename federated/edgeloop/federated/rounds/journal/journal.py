"""What a run has done, one line an event, so that a killed run goes on after the last round that was committed.

`journal.jsonl` only grows. A line is {"crc": CRC-32 of the entry's canonical JSON, "entry": {...}}. It is in the file
before the call that wrote it returns, so it outlives a kill; the line of a round is on the disk (fsync), and with it
all lines before it, so they outlive a power cut. A killed process may leave a torn end: it is cut off, so what is read
is always a whole prefix. A damaged line before a whole one is refused. Entries, by `kind`:

    update   an update that was accepted: round, attempt, node, device, examples, norm, sha256 of its arrays or of its
             compressed update, `trained-from`, the hash of the weights that it began with; in buffered rounds also
             `base`, the round whose weights these were. `contents` is the hash of its file in `updates/`, where these
             are kept; where they are not, a round that was not committed is asked for again
    release  privacy that is spent, on the disk before what it pays for is written or asked for: round, attempt, event.
             It counts for good, also where the run went back
    void     an attempt that ended without its quorum: round, attempt
    round    a committed round: its record, the sha256 of its weights and of the strategy's moments, refusals by node
    back     the run went back to round `to`: all entries of later rounds before this one are void

A round exists when its `round` entry is whole and its files have those hashes. An update counts only by the `round`
entry of its round and attempt; those of an attempt that was not committed are void, unless a server goes on with it.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.atomic import sync, write_file
from edgeloop.canonical import canonical_json
from edgeloop.disk_errors import writing
from edgeloop.errors import IntegrityError
from edgeloop.federated.rounds.records import RoundRecord, npz_bytes, read_weights, round_from_json, weights_bytes
from edgeloop.hashes import digest_of

if TYPE_CHECKING:
    from edgeloop.federated.rounds.guard.update import Update

FILE, RUN_ID, UPDATES = "journal.jsonl", "run-id", "updates"


@dataclass(frozen=True)
class Seen:
    """An update that counted: its round, and the hash of the weights that it began with."""

    round: int
    base: str


@dataclass(frozen=True)
class Resumed:
    """Where a run goes on: after its last committed round.

    Attributes:
        records: Of all committed rounds.
        weights: Of the last one, by name; None before the first.
        moments: What the strategy kept.
        faults: Refused replies by node.
        seen: Each update that counted, by its hash.
    """

    records: tuple[RoundRecord, ...] = ()
    weights: Mapping[str, np.ndarray] | None = None
    moments: Mapping[str, np.ndarray] | None = None
    faults: Mapping[int, int] | None = None
    seen: Mapping[str, Seen] | None = None


class Journal:
    """The journal in `folder`, beside which `rounds/` holds the weights. One process writes at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / FILE
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self.entries = self._read()

    def run_id(self) -> str:
        """A name of this run that no other run has: 32 hexadecimal digits, the same after a resume."""
        path = self.folder / RUN_ID
        if not path.is_file():
            write_file(path, os.urandom(16).hex().encode())
        return path.read_text()

    def add_update(
        self, number: int, attempt: int, update: Update, base: int | None = None, contents: str | None = None
    ) -> None:
        self._append(
            {
                "kind": "update",
                "round": number,
                "attempt": attempt,
                "node": str(update.node),
                "device": update.device,
                "examples": update.examples,
                "norm": update.norm,
                "sha256": update.sha256,
                "trained-from": update.base,
                **({} if base is None else {"base": base}),
                **({} if contents is None else {"contents": contents}),
            }
        )

    def updates(self, number: int, attempt: int) -> list[dict[str, Any]]:
        """The entries of the updates of an attempt, in the order of their arrival."""
        return [
            entry
            for entry in self._valid()
            if entry["kind"] == "update" and (entry["round"], entry["attempt"]) == (number, attempt)
        ]

    def unfinished_attempt(self, number: int) -> int | None:
        """The last attempt at a round that is not committed, if it did not end: its server was killed."""
        found = [entry for entry in self._valid() if entry["kind"] in ("update", "void") and entry["round"] == number]
        return int(found[-1]["attempt"]) if found and found[-1]["kind"] == "update" else None

    def add_release(self, number: int, attempt: int, event: Mapping[str, Any]) -> None:
        """Charge a release. It counts for good, whatever becomes of the round: a killed server may have shown it."""
        self._append({"kind": "release", "round": number, "attempt": attempt, "event": dict(event)})
        self._sync()

    @property
    def releases(self) -> list[dict[str, Any]]:
        """Events of all releases, in order."""
        return [entry["event"] for entry in self.entries if entry["kind"] == "release"]

    def add_void(self, number: int, attempt: int) -> None:
        """End an attempt without its quorum."""
        self._append({"kind": "void", "round": number, "attempt": attempt})

    def void_attempts(self, number: int) -> int:
        """How many attempts at a round ended without its quorum; one that was killed is none of them."""
        return sum(entry["kind"] == "void" and entry["round"] == number for entry in self._valid())

    def next_attempt(self, number: int) -> int:
        """The number of an attempt at a round that no entry has yet."""
        found = [entry["attempt"] for entry in self.entries if entry.get("round") == number]
        return max(found, default=0) + 1

    def commit(
        self,
        record: RoundRecord,
        weights: Mapping[str, np.ndarray],
        moments: Mapping[str, np.ndarray],
        faults: Mapping[int, int],
    ) -> None:
        """Write the files of a round, then its entry: the round exists from then on."""
        packed, kept = weights_bytes(weights), npz_bytes(moments)
        write_file(self.folder.parent / record.file, packed)
        write_file(self._moments(record.round), kept)
        self._append(
            {
                "kind": "round",
                "record": record.to_json(),
                "weights": digest_of(packed),
                "moments": digest_of(kept),
                "faults": {str(node): count for node, count in faults.items()},
            }
        )
        self._sync()

    def resumed(self) -> Resumed:
        """The state after the last committed round.

        Raises:
            IntegrityError: Files of that round are missing or changed.
        """
        records, valid = self.records, self._valid()
        if not records:
            return Resumed()
        last = self.check_round(records[-1].round)
        files = self.files(records[-1].round)
        counted = {(record.round, record.attempt) for record in records}
        updates = [entry for entry in valid if entry["kind"] == "update"]
        seen = {
            entry["sha256"]: Seen(entry["round"], entry.get("trained-from", ""))
            for entry in updates
            if (entry["round"], entry["attempt"]) in counted
        }
        faults = {int(node): count for node, count in last["faults"].items()}
        return Resumed(records, read_weights(files[0]), read_weights(files[1]), faults, seen)

    @property
    def records(self) -> tuple[RoundRecord, ...]:
        """Of all committed rounds."""
        return tuple(round_from_json(entry["record"]) for entry in self._valid() if entry["kind"] == "round")

    def check_round(self, number: int) -> dict[str, Any]:
        """The entry of a committed round, whose files are those that it wrote.

        Raises:
            IntegrityError: They are missing or changed.
        """
        entry = next(e for e in self._valid() if e["kind"] == "round" and e["record"]["round"] == number)
        for path, expected in zip(self.files(number), (entry["weights"], entry["moments"]), strict=True):
            if not path.is_file() or digest_of(path.read_bytes()) != expected:
                raise IntegrityError(
                    f"{path} is not the file that round {number} wrote",
                    advice="Restore the file, or start a new run in another folder.",
                )
        return entry

    def files(self, number: int) -> tuple[Path, Path]:
        """The weights after a committed round, and the strategy's moments."""
        record = next(record for record in self.records if record.round == number)
        return self.folder.parent / record.file, self._moments(number)

    def has_later(self, number: int) -> bool:
        """Whether there are entries of rounds after this one that are not void."""
        return any(_round_of(entry) > number for entry in self._valid())

    def go_back(self, number: int) -> None:
        """Make all entries of rounds after this one void; the entry is on the disk when this returns."""
        self._append({"kind": "back", "to": number})
        self._sync()

    @property
    def branches(self) -> int:
        """How often the run went back."""
        return sum(entry["kind"] == "back" for entry in self.entries)

    @property
    def went_back_to(self) -> int | None:
        """The round that the run went back to last; None: it never did."""
        return next((int(entry["to"]) for entry in reversed(self.entries) if entry["kind"] == "back"), None)

    def _valid(self) -> list[dict[str, Any]]:
        """The entries but those of rounds that the run went back from."""
        found: list[dict[str, Any]] = []
        for entry in self.entries:
            if entry["kind"] == "back":
                found = [one for one in found if _round_of(one) <= entry["to"]]
            else:
                found.append(entry)
        return found

    def _moments(self, number: int) -> Path:
        return self.folder / f"moments-{number}.npz"

    def _append(self, entry: dict[str, Any]) -> None:
        line = canonical_json({"crc": zlib.crc32(canonical_json(entry)), "entry": entry}) + b"\n"
        with writing(self.path), self.path.open("ab") as file:
            file.write(line)
        self.entries.append(entry)

    def _sync(self) -> None:
        with writing(self.path):
            sync(self.path)

    def _read(self) -> list[dict[str, Any]]:
        entries, good = list[dict[str, Any]](), 0
        data = self.path.read_bytes() if self.path.is_file() else b""
        lines = data.split(b"\n")  # canonical JSON holds no line feed
        found = [_entry(line) for line in lines[:-1]]
        for number, entry in enumerate(found):
            if entry is None:
                if any(found[number:]):
                    raise IntegrityError(
                        f"{self.path}: line {number + 1} is damaged, and whole lines follow it",
                        advice="Restore the file, or start a new run in another folder.",
                    )
                break
            entries.append(entry)
            good += len(lines[number]) + 1
        if good < len(data):
            with writing(self.path):
                os.truncate(self.path, good)
                sync(self.path)
        return entries


def _round_of(entry: Mapping[str, Any]) -> int:
    return int(entry["record"]["round"] if entry["kind"] == "round" else entry["round"])


def _entry(line: bytes) -> dict[str, Any] | None:
    """What a line holds; None for a torn or damaged one."""
    try:
        document = json.loads(line)
        _, _, packed = line.partition(b'"entry":')  # as it was written: 1e18 is read as a whole number
        return dict(document["entry"]) if zlib.crc32(packed[:-1]) == document["crc"] else None
    except (ValueError, KeyError, TypeError):
        return None
