"""The folder of one run of rounds: locked while the run lives, never overwritten by another run.

run.json          the resolved options, and hashes of the bundle, the shards and the first weights
rounds.json       what each round was made of, and the state of the run
rounds/           round-N.npz: the weights after each round
branches/N/       with --from-round: the rounds that the run went back from
journal/          every update that was accepted; what --resume continues
nodes.json        with [network], [selection] or [compression]: what each device said of its machine
evaluation.json   with --eval: how good each round is; best.npz: the weights of the best one
progress.html     the rounds for a browser, which loads them again by itself; tensorboard/ for TensorBoard
model.keras       with --keras: the Keras model with the same weights as bundle/
cloud.json        with [cloud]: which rounds became releases; cloud/: their Keras models and trainings
releases/         with [cloud]: the releases, as a registry that devices follow
devices/          what the devices keep between rounds, with scaffold or top-k
bundle/           the trainable variant with the weights of the best or the last round
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from edgeloop.atomic import discard, write_file
from edgeloop.disk_errors import writing
from edgeloop.errors import DataError, DeviceError, OptionsError, WriteError
from edgeloop.federated.rounds.records import BUDGET_SPENT, ROUNDS, read_rounds, read_state, rounds_bytes
from edgeloop.processes.file_lock import exclusive

FORMAT = "edgeloop-federation/1"
RUN, LOCK, JOURNAL, WEIGHTS, DEVICES = "run.json", ".lock", "journal", "rounds", "devices"
SERVER_LOCK, SERVER_WAIT_S = ".server-lock", 30.0
FREE_THEN = ("shards", "options.guard.")  # in a run that goes back
ASIDE = (
    "options.cloud.",
    "options.statistics.",
    "options.journal.",
    "options.selection.",
)  # no round needs the first three
MAY_CHANGE = {"rounds", "deadline-s", "timeout-s", "wait-s", "attempts", "max-memory-mb"}


@contextlib.contextmanager
def open_run(
    out: Path, document: Mapping[str, Any], *, resume: bool, goes_back: Callable[[], object] | None = None
) -> Iterator[None]:
    """Hold the folder of a run while the block runs, with `document` as its run.json.

    Args:
        document: {"options": {...}, ...}, JSON values.
        goes_back: Of a run that goes back to an earlier round: does so, before its run.json changes. It may go on
            with other shards and another guard.

    Raises:
        OptionsError: Without `resume` it holds a run that has committed a round, or rounds that no run of ours wrote;
            with it, the run was started with other options, or on other files.
        DataError: `resume`, and it holds no run, or a run.json that cannot be read.
        WriteError: Another process runs in it, or it cannot be written.
    """
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        with writing(out):
            try:
                stack.enter_context(exclusive(out / LOCK, 0))
            except TimeoutError as e:
                raise WriteError(
                    f"another process runs rounds in {out}",
                    advice="Wait until it ends, or choose a new folder with -o.",
                ) from e
        if resume:
            _check_same(out, document, () if goes_back is None else FREE_THEN)
            if goes_back is not None:
                goes_back()
            records = read_rounds(out)
            if read_state(out) == BUDGET_SPENT and len(records) < document["options"]["rounds"]:
                write_file(out / ROUNDS, rounds_bytes(records))  # whether it still is, the next server finds out
        else:
            _check_new(out)
            for name in (JOURNAL, ROUNDS, DEVICES):  # of a run without any committed round
                discard(out / name)
        write_file(out / RUN, json.dumps({"format": FORMAT, **document}, indent=1, allow_nan=False).encode() + b"\n")
        yield


@contextlib.contextmanager
def server_lock(out: Path) -> Iterator[None]:
    """Be the one server of the run in `out` while the block runs.

    Raises:
        DeviceError: Another one writes to it. One that outlives its parent for a moment is waited for.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive(out / SERVER_LOCK, SERVER_WAIT_S))
        except TimeoutError as e:
            raise DeviceError(
                f"another server still writes to {out}", advice="Wait until it ends, then continue with --resume."
            ) from e
        yield


def _check_new(out: Path) -> None:
    held = [path.name for path in [*sorted((out / WEIGHTS).glob("round-*.npz")), *sorted(out.glob("round-*.npz"))]]
    if held:
        raise OptionsError(
            f"{out} holds {len(held)} rounds of an earlier run, which are not overwritten",
            advice="Continue that run with --resume, or choose a new folder with -o.",
        )


def _check_same(out: Path, document: Mapping[str, Any], may_change: Collection[str]) -> None:
    try:
        earlier = json.loads((out / RUN).read_bytes())
    except FileNotFoundError as e:
        raise DataError(f"{out} holds no run to resume", advice="Leave --resume out to begin one.") from e
    except (OSError, ValueError) as e:
        raise DataError(f"{out / RUN} cannot be read ({e})", advice="Choose a new folder with -o.") from e
    if earlier.get("format") != FORMAT:
        raise DataError(
            f"{out / RUN} has the format {earlier.get('format')!r}, expected {FORMAT!r}",
            advice="Choose a new folder with -o.",
        )
    before, now = _flat(earlier), _flat(document)
    for key in sorted(before.keys() | now.keys()):
        free = key.rpartition(".")[2] in {*MAY_CHANGE, "format"} or key.startswith((*ASIDE, *may_change))
        if before.get(key) != now.get(key) and not free:
            raise OptionsError(
                f"{out} was started with {key} = {before.get(key)!r}, and this is {now.get(key)!r}",
                advice="Resume with the options of the run, or choose a new folder with -o.",
            )


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in document.items():
        found.update(_flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return found
