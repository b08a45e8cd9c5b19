"""A run from the outside: its rounds as they are committed, and what ends it too early."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from edgeloop.atomic import discard
from edgeloop.errors import DeviceError, EdgeloopError, error_from_json
from edgeloop.federated.network.network import AGAIN, Network
from edgeloop.federated.rounds.journal.journal import FILE
from edgeloop.federated.rounds.journal.options import Kept
from edgeloop.federated.rounds.options import RoundsOptions
from edgeloop.federated.rounds.plan import needed_replies
from edgeloop.federated.rounds.records import (
    ALIVE,
    BUDGET_SPENT,
    FAILURE,
    RoundRecord,
    read_rounds,
    read_state,
    read_weights,
)
from edgeloop.federated.rounds.run_folder import JOURNAL
from edgeloop.processes.exit_status import exit_status
from edgeloop.processes.file_lock import exclusive
from edgeloop.progress import Say

LOOK_S = 0.1  # between two looks at the folder and the processes
QUIET_S = 10.0  # without a ServerApp, before Flower is asked what became of the run
RESTARTS = 3  # between two rounds: of a ServerApp that ended without a word, or of all processes when one was killed
DEVICE = "device-"  # begins the names of the SuperNodes
OnRound: TypeAlias = Callable[[RoundRecord, Mapping[str, np.ndarray]], None]
log = logging.getLogger(__name__)


class Watch:
    """Watches one run. `done`: the rounds that were committed and told of."""

    def __init__(
        self, options: RoundsOptions, flower: Network, on_round: OnRound, say: Say = lambda sentence: None
    ) -> None:
        self.options, self.flower, self.on_round, self.say = options, flower, on_round, say
        self.told = set[str]()
        self.again = Counter[str]()  # devices that were started again since the last round
        self.away = set[int]()  # processes of devices that are not
        self.done, self.restarts, self.asked = 0, 0, time.monotonic()
        self.deadline, self.written = time.monotonic() + options.timeout_s, 0

    def until_the_end(self) -> tuple[RoundRecord, ...]:
        """All records, once the last round is there, or no other fits into the privacy budget.

        Raises:
            DeviceError: A process or the time failed, or a round had no quorum.
            EdgeloopError: What the server says ended the run.
        """
        while True:
            try:
                records = self._look()
                if records is not None:
                    return records
            except EdgeloopError:  # of a process, or of what the end of a process has led to
                killed = self._killed()
                if not killed:
                    raise
                self._restart(killed, self.flower.restart)
            time.sleep(LOOK_S)

    def _look(self) -> tuple[RoundRecord, ...] | None:
        """Tell of new rounds; the records of all once the run has ended."""
        self.flower.submit()  # but once
        # both before the rounds are read: what was written before an end counts
        alive, ended = server_alive(self.flower.work), self._ended()
        spent = read_state(self.options.out) == BUDGET_SPENT
        records = read_rounds(self.options.out)
        for record in records[self.done :]:
            began = time.monotonic()
            self.on_round(record, read_weights(self.options.out / record.file))
            self.deadline += time.monotonic() - began  # devices may train meanwhile, but need not
            self.done, self.restarts = self.done + 1, 0
            self.again.clear()
        if spent or self.done >= self.options.rounds:
            return records
        self._check(alive, ended)
        self._tell_joined()
        return None

    @property
    def where(self) -> str:
        return f"round {self.done + 1} of {self.options.rounds}"

    def _check(self, alive: bool | None, ended: Sequence[str]) -> None:
        failure = self.flower.work / FAILURE
        if failure.is_file():
            raise error_from_json(json.loads(failure.read_bytes()), where=self.where, doing="the ServerApp")
        if self._needed(ended):
            self.flower.check()
        self._start_devices(ended)
        if self.flower.simulated:
            self._extend()
        if alive is False:
            self._restart(f"the ServerApp ended; {self.flower.last_log_line('serverapp')}")
        elif alive is None and time.monotonic() - self.asked > QUIET_S:
            status, self.asked = self.flower.status(), time.monotonic()
            if status.startswith("finished"):
                self._restart(f"Flower ended the run ({status}); {self.flower.last_log_line('serverapp')}")
        if time.monotonic() > self.deadline:
            late = "had no reply for" if self.flower.simulated else "was not finished within"
            raise DeviceError(
                f"{self.where} {late} {self.options.timeout_s:g} s",
                advice="Allow more time, or train for fewer rounds or epochs; --resume goes on after the last round.",
            )

    def _tell_joined(self) -> None:
        """How many devices of other machines are there, whenever that has changed, and which of their keys are none."""
        if self.options.network is None:
            return
        connected, wrong = self.flower.joined()
        counted = [] if connected is None else [f"{connected} of {self.options.device_count} devices are connected"]
        for sentence in [*counted, *wrong]:
            if sentence not in self.told:
                self.say(sentence)
        self.told = {*counted, *wrong}

    def _extend(self) -> None:
        """Begin the time limit again where the journal has grown: each good reply is written there."""
        path = self.options.out / JOURNAL / FILE
        size = path.stat().st_size if path.is_file() else 0
        if size != self.written:
            self.written, self.deadline = size, time.monotonic() + self.options.timeout_s

    def _ended(self) -> list[str]:
        """Names of the processes that have ended."""
        return [name for name, child in self.flower.children.items() if child.poll() is not None]

    def _needed(self, ended: Sequence[str]) -> bool:
        """Whether the run needs one of these: a device may end as long as enough are left for a quorum."""
        devices = self.options.device_count
        _, least = needed_replies(devices, self.options.replies_options())
        if self.options.buffered is not None:
            least, _ = self.options.buffered.sizes(devices)
        lost = sum(name.startswith(DEVICE) for name in ended)
        return len(ended) > lost or (lost > 0 and devices - lost < least)

    def _start_devices(self, ended: Sequence[str]) -> None:
        """Start devices again that a signal ended, and that the run can do without meanwhile; of others say so once.

        Such a device is a new node. In buffered rounds it would train once more from the version that it has trained,
        and a server that goes on amid a round with the contents of updates would ask it again.
        """
        alone = self.options.buffered is None and self.options.journal.updates is not Kept.CONTENTS
        for name in ended:
            child = self.flower.children[name]
            if child.pid in self.away:
                continue
            why = f"{self.where}: {name} ended ({exit_status(child).how}); {self.flower.last_log_line(name)}"
            if alone and child.returncode < 0 and self.again[name] < RESTARTS:
                self.again[name] += 1
                log.warning("%s. It is started again, for the %d. time.", why, self.again[name])
                self.flower.start_process(name)
            else:
                self.away.add(child.pid)
                log.warning("%s. The run goes on without it.", why)

    def _killed(self) -> str:
        """Says which processes a signal has ended; "": none, or none that the run needs."""
        ended = self._ended()
        killed = [name for name in ended if self.flower.children[name].returncode < 0]
        return f"a signal ended {' and '.join(killed)}" if killed and self._needed(ended) else ""

    def _restart(self, why: str, before: Callable[[], None] = lambda: None) -> None:
        """After `before` the next look submits the run again: its server goes on after the last committed round."""
        if self.restarts == RESTARTS:
            raise DeviceError(why, advice=AGAIN, where=self.where)
        self.restarts, self.asked = self.restarts + 1, time.monotonic()
        log.warning("%s: %s. The run is submitted again, for the %d. time.", self.where, why, self.restarts)
        before()
        for name in (ALIVE, FAILURE, "app"):
            discard(self.flower.work / name)
        self.flower.run_id = None


def ignore(record: RoundRecord, weights: Mapping[str, np.ndarray]) -> None:
    """The listener of a caller who waits for the end."""


def server_alive(work: Path) -> bool | None:
    """None before the ServerApp has started. It holds a lock while it lives; a zombie's pid would still look alive."""
    path = work / ALIVE
    if not path.is_file() or not path.read_bytes():
        return None
    try:
        with exclusive(path, timeout_s=0):
            return False
    except TimeoutError:
        return True
