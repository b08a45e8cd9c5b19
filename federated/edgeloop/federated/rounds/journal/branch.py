"""Back to an earlier round: the rounds after it are kept in `branches/`, and the run goes on from its weights.

What a device with bad data did to the weights is undone so. Nothing is lost: the files of the later rounds are copied
first, then the journal says in one entry that they are void, then they are removed from their places. Who is killed
before that entry goes back again, or resumes the run as it was; it releases those rounds again. Who is killed after it
has gone back: `settle` does the rest whenever the run is resumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgeloop.atomic import discard, write_file
from edgeloop.errors import OptionsError
from edgeloop.federated.fold_back.records import forget_from
from edgeloop.federated.rounds.journal.journal import RUN_ID, UPDATES, Journal
from edgeloop.federated.rounds.records import ROUNDS, read_rounds, rounds_bytes
from edgeloop.federated.rounds.run_folder import JOURNAL, WEIGHTS, server_lock

BRANCHES = "branches"  # N/: what lay in the folder of the run before it went back for the N-th time
SUMMARIES = ("run.json", ROUNDS, "evaluation.json", "best.npz", "cloud.json")


def go_back(out: Path, number: int) -> Path | None:
    """Let the run in `out` go on after round `number`.

    Returns:
        The folder that holds what was after it; None: it was the last round already; a round that was
        open then begins anew.

    Raises:
        OptionsError: There is no such round.
        IntegrityError: The files of that round are missing or changed.
        DeviceError: A server of the run still writes.
        WriteError: The disk refuses.
    """
    with server_lock(out):
        return _go_back(out, number)


def _go_back(out: Path, number: int) -> Path | None:
    journal = Journal(out / JOURNAL)
    last = len(journal.records)
    if not 1 <= number <= last:
        raise OptionsError(
            f"--from-round is {number}, and {out} has the rounds 1 to {last}",
            advice="Name one of them, or begin a new run in another folder.",
        )
    journal.check_round(number)
    branch = _kept(out, journal, number) if number < last else None
    forget_from(out, number)
    discard(journal.folder / RUN_ID)  # to devices it is another run from here on
    if journal.has_later(number):  # rounds, or an open one: its updates may be of data that was replaced
        journal.go_back(number)
    for folder in (journal.folder / UPDATES).glob("round-*"):  # void; they would be asked for again
        if int(folder.name.split("-")[1]) > number:
            discard(folder)
    _settle(out, journal)
    return branch


def settle(out: Path) -> int | None:
    """Let the files of the run in `out` say what its journal says, whenever it is resumed.

    Returns:
        The round that the run went back to last; None: it never did.

    Raises:
        DeviceError: A server of the run still writes.
        WriteError: The disk refuses.
    """
    with server_lock(out):
        journal = Journal(out / JOURNAL)
        _settle(out, journal)
        return journal.went_back_to


def _settle(out: Path, journal: Journal) -> None:
    records = journal.records
    if read_rounds(out) != records:
        write_file(out / ROUNDS, rounds_bytes(records))  # the server starts later, and others read it
    for file in _later(out, journal, len(records)):
        discard(file)


def _kept(out: Path, journal: Journal, number: int) -> Path:
    """Copy what is after that round."""
    branch = out / BRANCHES / str(journal.branches + 1)
    discard(branch)  # of a run that was killed as it went back
    for file in (*_later(out, journal, number), *_summaries(out)):
        write_file(branch / file.relative_to(out), file.read_bytes())
    return branch


def _later(out: Path, journal: Journal, number: int) -> list[Path]:
    """The files of all rounds after that one, committed or not."""
    found = [*(out / WEIGHTS).glob("round-*.npz"), *journal.folder.glob("moments-*.npz")]
    return [file for file in found if int(file.stem.rpartition("-")[2]) > number]


def _summaries(out: Path) -> Iterator[Path]:
    return (out / name for name in SUMMARIES if (out / name).is_file())
