"""Rounds without waiting for slow devices: FedBuff on the journal of the synchronous rounds.

Each device that is free gets the newest weights; whenever `size` updates have come, whatever version they started
from, they make the next version, which is committed as a round. A slow device's update counts when it comes, with less
weight the older its version. Updates of a buffer that was not full when the server was killed are void, as those of
a synchronous attempt are: nothing counts twice.

Source: Nguyen et al. 2022, "Federated Learning with Buffered Asynchronous Aggregation", algorithm 1.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid

from edgeloop.errors import DeviceError, EdgeloopError, OptionsError
from edgeloop.federated.rounds.buffered.buffer import Buffer
from edgeloop.federated.rounds.buffered.buffered_grid import BufferedGrid, Taken
from edgeloop.federated.rounds.buffered.options import BufferedOptions
from edgeloop.federated.rounds.collect_round import AT_ONCE, LASTING, POLL_S
from edgeloop.federated.rounds.guard.update import Update
from edgeloop.federated.rounds.records import ClientRecord, RefusedReply, RoundRecord
from edgeloop.federated.rounds.round_loop import LoopOptions, RoundLoop
from edgeloop.federated.rounds.statistics.summary import Summary

COPIES = 2  # of a version: arrays that updates are compared with, and the record that its messages share


class BufferedLoop(RoundLoop):
    """One server of a run in buffered mode. Arguments as for `RoundLoop`, with `options.buffered`."""

    grid: BufferedGrid

    def __init__(self, grid: Grid, options: LoopOptions, out: Path, initial: Mapping[str, np.ndarray]) -> None:
        self.buffered = options.buffered or BufferedOptions()
        self.size, self.concurrency = self.buffered.sizes(options.devices)
        super().__init__(grid, options, out, initial)
        self._check_memory()
        self._taken: deque[Taken] = deque()
        self._newest = ArrayRecord()

    def _check_memory(self) -> None:
        """A version stays in memory for as long as a device trains from it, or its update waits for a buffer."""
        versions = min(self.buffered.max_staleness, 2 * self.options.devices) + 1
        one = sum(array.nbytes for array in self.weights.values())
        if COPIES * versions * one > self.options.max_memory_bytes:
            raise OptionsError(
                f"up to {versions} versions of {one / 1e6:.1f} MB stay in memory, each in {COPIES} copies, and "
                f"max-memory-mb allows {self.options.max_memory_bytes / 1e6:.0f}",
                advice="Lower max-staleness in [buffered], or allow more memory.",
            )

    def _guarded(self, grid: Grid) -> BufferedGrid:
        options, negotiated = self.options, self._negotiated(grid)
        return BufferedGrid(negotiated, options.guard, options.compression, self.buffered.max_staleness)

    def _round(self, number: int) -> RoundRecord:
        self.grid.open_version(number - 1, self.weights)
        self._newest = self._packed()
        self._taken = deque(taken for taken in self._taken if self.grid.is_recent(taken.update.node, taken.version))
        self._gather()
        attempt = self.journal.next_attempt(number)
        buffer, clients = Buffer(self.weights, self.buffered.server_learning_rate), list[ClientRecord]()
        self._told = Summary(self.options.labels, self.options.statistics)
        asked, tries, progress = 0, 1, time.monotonic()
        while len(buffer) < self.size:
            sent = self._ask(number, asked)
            came = self._take(number, attempt, buffer, clients)
            asked += sent
            if sent or came:
                progress = time.monotonic()
            elif self._idle():
                late = time.monotonic() - progress > self.options.quorum.deadline_s
                if late or len(list(self.grid.inner.get_node_ids())) >= self.options.devices:
                    self._raise_what_lasts()
                if late:
                    if tries == self.options.quorum.attempts:
                        raise DeviceError(self._stuck(number, len(buffer)), advice=self._advice())
                    tries, progress = tries + 1, time.monotonic()
                    self.grid.tried = {int(client.node) for client in clients if not client.staleness}
            if not came:
                time.sleep(POLL_S)
        self._step(number, buffer.replies())
        clients.sort(key=lambda client: (client.device, client.node))
        refused = tuple(RefusedReply(str(node), why.reason.value, why.detail) for node, why in self.grid.refused)
        told = self._told.record()
        return RoundRecord(number, f"rounds/round-{number}.npz", tuple(clients), refused, asked, attempt, None, told)

    def _step(self, number: int, replies: list[Message]) -> None:
        if hasattr(self.strategy, "current_arrays"):  # fed-adam and fed-yogi set it when they send, not in each version
            self.strategy.current_arrays = dict(self.weights)
        super()._step(number, replies)

    def _gather(self) -> None:
        """Before the first round of a server, wait for the devices of one buffer, for a limited time."""
        deadline = time.monotonic() + self.options.quorum.wait_s
        while not self._gathered and time.monotonic() <= deadline:
            self._gathered = len(set(self.grid.inner.get_node_ids()) - self.grid.benched) >= self.size
            if not self._gathered:
                time.sleep(POLL_S)
        self._gathered = True

    def _ask(self, number: int, asked: int) -> int:
        """Send the newest weights to devices that are free; how many."""
        quorum = self.options.quorum
        busy, training = self.grid.busy(quorum.deadline_s), self.grid.training(quorum.attempts * quorum.deadline_s)
        room = self.concurrency - len(busy)
        if room <= 0:
            return 0
        free = sorted(set(self.grid.inner.get_node_ids()) - self.grid.benched - training - self.grid.tried)
        order = random.Random(f"{self.options.seed}/{number}/{asked}")
        self.grid.chosen = tuple(order.sample(free, min(room, len(free))))
        return len(list(self.grid.push_messages(self._messages(number, self._newest)))) if self.grid.chosen else 0

    def _take(self, number: int, attempt: int, buffer: Buffer, clients: list[ClientRecord]) -> int:
        """Some replies that came, unless the buffer is full; how many counted. Those after it wait for the next round.

        Only the first messages with replies are pulled: their devices are asked anew before others are looked for.
        """
        before, waiting, replies = len(buffer), list(self.grid.sent), list[Message]()
        for start in range(0, len(waiting) if len(self._taken) + before < self.size else 0, AT_ONCE):
            replies = list(self.grid.pull_messages(waiting[start : start + AT_ONCE]))
            if replies:
                break
        self._taken.extend(taken for taken in map(self.grid.take, replies) if taken is not None)
        while self._taken and len(buffer) < self.size:
            taken = self._taken.popleft()
            self.journal.add_update(number, attempt, taken.update, base=taken.version)
            self._told.add(taken.reply, taken.update)
            clients.append(_client(taken.update, buffer.add_stale(taken, number - 1)))
        return len(buffer) - before

    def _idle(self) -> bool:
        """Whether no device trains, as far as is known."""
        return not self.grid.busy(self.options.quorum.deadline_s)

    def _raise_what_lasts(self) -> None:
        errors: list[EdgeloopError] = [why.error for _, why in self.grid.refused if why.error is not None]
        lasting = [error for error in errors if isinstance(error, LASTING)]
        if lasting:
            raise lasting[0]

    def _stuck(self, number: int, came: int) -> str:
        return (
            f"round {number} has {came} of the {self.size} updates of its buffer, and no device has answered for "
            f"{self.options.quorum.attempts} times {self.options.quorum.deadline_s:g} s"
        )


def _client(update: Update, staleness: int) -> ClientRecord:
    counted = update.device, update.examples, update.train_loss, update.seconds
    sent = update.codec.value, update.upload_bytes
    return ClientRecord(*counted, update.norm, str(update.node), *sent, staleness)
