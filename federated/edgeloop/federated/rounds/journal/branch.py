"""Back to an earlier round: the rounds after it are kept in `branches/`, and the run goes on from its weights.

What a device with bad data did to the weights is undone so. Nothing is lost: the files of the later rounds are copied
first, then the journal says in one entry that they are void, then they are removed from their places. Who is killed in
between goes back again, or has gone back.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgeloop.atomic import discard, write_file
from edgeloop.errors import OptionsError
from edgeloop.federated.rounds.journal.journal import Journal
from edgeloop.federated.rounds.run_folder import JOURNAL, server_lock

BRANCHES = "branches"  # N/: what lay in the folder of the run before it went back for the N-th time
SUMMARIES = ("run.json", "rounds.json", "evaluation.json", "best.npz", "cloud.json")


def go_back(out: Path, number: int) -> Path | None:
    """Let the run in `out` go on after round `number`.

    Returns:
        The folder that holds what was after it; None: it was the last round already.

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
    if number == last:
        return None
    branch = out / BRANCHES / str(journal.branches + 1)
    discard(branch)  # of a run that was killed as it went back
    later = [file for n in range(number + 1, last + 1) for file in journal.files(n)]
    for file in (*later, *_summaries(out)):
        write_file(branch / file.relative_to(out), file.read_bytes())
    journal.go_back(number)
    for file in later:
        discard(file)
    return branch


def _summaries(out: Path) -> Iterator[Path]:
    return (out / name for name in SUMMARIES if (out / name).is_file())
