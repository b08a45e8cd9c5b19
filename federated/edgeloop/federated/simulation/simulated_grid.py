"""Flower's Grid in simulated time: replies come in the order in which the devices would have sent them.

How long a device takes and whether it drops out is known when it is asked (population.py). One that drops out, or is
not done by the deadline, is never trained: its reply is Flower's error of a node that cannot be reached. The others
are trained by Flower's simulation engine, a limited number at a time, and their replies wait until it is their turn.
The clock goes from reply to reply. So equal seeds give equal runs, however busy the machine is, and hours of slow
devices take the time of their training alone. A device answers its messages one after another. It says what
it is in no time: whoever asks waits until the engine has the answers.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from edgeloop.errors import DeviceError
from edgeloop.federated.device.metrics import SECONDS
from edgeloop.federated.rounds.grid_decorator import GridDecorator
from edgeloop.federated.simulation.population import Population

DEVICE = "simulated-device"  # of `config` of a message: which device the node that gets it is to be
AHEAD = 8  # messages for each process that trains: enough to keep it busy, few enough for the memory
QUERY = 0  # instead of a round: a message that asks what a device is
LOOK_S = 0.02  # between two looks for replies
ANSWER_S = 600.0  # of this machine's time, between two answers of the engine to queries; Ray's first one is slow


@dataclass(frozen=True)
class _Asked:
    """A message that was sent.

    Attributes:
        due: When its reply comes, in simulated seconds since the round began.
        seconds: How long its device trains.
        error: What comes instead of a reply.
    """

    id: str
    message: Message
    due: float
    seconds: float = 0.0
    error: str | None = None

    @property
    def query(self) -> bool:
        """Whether it asks what a device is."""
        return _round(self.message) == QUERY

    @property
    def rank(self) -> tuple[float, bool, int]:
        """Of its reply: whoever asks what a device is waits for the answer, so that comes first."""
        return self.due, not self.query, self.message.metadata.dst_node_id


class SimulatedGrid(GridDecorator):
    """Wraps the Grid of a simulation. Its nodes are 1, 2, ...: the devices 0, 1, ... of the population.

    Args:
        deadline_s: Of a round, in simulated time. None: a device may take as long as it does, as in buffered rounds.
        workers: Processes that train.
    """

    def __init__(self, inner: Grid, population: Population, deadline_s: float | None, workers: int) -> None:
        super().__init__(inner)
        self.population, self.deadline_s = population, deadline_s
        self.ahead = AHEAD * workers
        self._nodes: list[int] = []
        self._queue: list[_Asked] = []  # in the order of the replies
        self._queries: list[_Asked] = []  # these wait for no turn
        self._to_send: list[_Asked] = []
        self._sent: dict[str, str] = {}  # ours by the id of the engine's message
        self._came: dict[str, Message] = {}
        self._void: set[str] = set()
        self._free: dict[int, float] = {}  # when the node has answered all its messages
        self._began = self._since = 0.0
        self._count, self._looked = 0, 0.0

    @property
    def now(self) -> float:
        """Simulated seconds since the beginning."""
        return self._began + self._since

    def get_node_ids(self) -> Iterable[int]:
        """All devices, once the engine has as many nodes."""
        if not self._nodes:
            nodes = sorted(self.inner.get_node_ids())
            if len(nodes) < self.population.options.nodes:
                return []
            self._nodes = nodes
        return range(1, self.population.options.nodes + 1)

    def abandon(self) -> None:
        """Devices stop what they do. Seconds count from here, so a round is the same in a resumed run."""
        self._void.update(self._sent)
        self._sent, self._came, self._queue, self._to_send, self._free = {}, {}, [], [], {}
        self._queries = []
        self._began, self._since = self.now, 0.0

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        asked = [self._asked(message) for message in messages]
        self._queries += [one for one in asked if one.query]
        self._queue = sorted([*self._queue, *(one for one in asked if not one.query)], key=lambda one: one.rank)
        self._to_send = sorted([*self._to_send, *(one for one in asked if one.error is None)], key=lambda one: one.rank)
        return [one.id for one in asked]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The next reply, in simulated time, if it is asked for and there. One at a time: so what the server does
        between two of them follows from the seed, and the clock does not pass the reply that ends a round.

        Answers to queries come together, before any other reply, and this waits for them.

        Raises:
            DeviceError: The engine answers no query for ten minutes.
        """
        ids = set(message_ids)
        queries = [one for one in self._queries if one.id in ids]
        if queries:
            return self._answers(queries)
        if not self._queue or self._queue[0].id not in ids:
            return []
        self._look()
        reply = self._reply(self._queue[0])
        if reply is None:
            return []
        self._since = self._queue.pop(0).due
        return [reply]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """As Flower's; `timeout` is of this machine's time."""
        waiting, found = set(self.push_messages(messages)), list[Message]()
        deadline = None if timeout is None else time.monotonic() + timeout
        while waiting and (deadline is None or time.monotonic() < deadline):
            came = list(self.pull_messages(waiting))
            found += came
            waiting -= {reply.metadata.reply_to_message_id for reply in came}
            time.sleep(0 if came else LOOK_S)
        self._queue = [one for one in self._queue if one.id not in waiting]  # nobody will ask for these
        return found

    def _answers(self, queries: Sequence[_Asked]) -> list[Message]:
        """All of them: which devices had answered by some time of this machine would be no matter of the seed."""
        left, since = len(queries), time.monotonic()
        while left:
            self._look()
            before, left = left, sum(one.id not in self._came for one in queries)
            if left < before:
                since = time.monotonic()
            elif time.monotonic() - since > ANSWER_S:
                raise DeviceError(
                    f"{left} of {len(queries)} simulated devices did not say what they are within {ANSWER_S:g} s",
                    advice="Simulate fewer devices at a time, or use a machine that is less busy.",
                )
            else:
                time.sleep(LOOK_S)
        answered = {one.id for one in queries}
        self._queries = [one for one in self._queries if one.id not in answered]
        return [reply for reply in map(self._reply, queries) if reply is not None]

    def _asked(self, message: Message) -> _Asked:
        self._count += 1
        id, node, number = f"simulated-{self._count}", message.metadata.dst_node_id, _round(message)
        message.metadata.__dict__["_message_id"] = id
        if number == QUERY:
            return _Asked(id, message, self._since)
        config = _config(message)
        fate = self.population.fate(node - 1, number, int(config.get("attempt", 1)), int(config.get("epochs", 1)))
        if fate.drops_out:
            return _Asked(id, message, self._since, error="it dropped out")
        due = max(self._since, self._free.get(node, 0.0)) + fate.seconds
        if self.deadline_s is not None and due > self.deadline_s:
            late = f"it was not done at the deadline, after {self.deadline_s:g} of {due:g} simulated seconds"
            return _Asked(id, message, self.deadline_s, error=late)
        self._free[node] = due
        return _Asked(id, message, due, fate.seconds)

    def _look(self) -> None:
        """Keep the engine busy, and take what it has done."""
        room = self.ahead - len(self._sent)
        sending, self._to_send = self._to_send[:room], self._to_send[room:]
        for one in sending:
            (id,) = self.inner.push_messages([self._for_engine(one)])
            self._sent[id] = one.id
        early = not sending and time.monotonic() - self._looked < LOOK_S
        if early or not (self._sent or self._void):
            return
        self._looked = time.monotonic()
        for reply in self.inner.pull_messages([*self._sent, *self._void]):
            id = reply.metadata.reply_to_message_id
            self._void.discard(id)
            if id in self._sent:
                self._came[self._sent.pop(id)] = reply

    def _for_engine(self, one: _Asked) -> Message:
        metadata = one.message.metadata
        config = ConfigRecord({**_config(one.message), DEVICE: metadata.dst_node_id - 1})
        records = RecordDict({**one.message.content, "config": config})
        return Message(records, dst_node_id=self._nodes[metadata.dst_node_id - 1], message_type=metadata.message_type)

    def _reply(self, one: _Asked) -> Message | None:
        """The reply to a message, from its device; None: it is not there yet."""
        if one.error is not None:
            return Message(Error(ErrorCode.NODE_UNAVAILABLE, one.error), reply_to=one.message)
        reply = self._came.pop(one.id, None)
        if reply is None:
            return None
        reply.metadata.__dict__["_reply_to_message_id"] = one.id
        reply.metadata.__dict__["_src_node_id"] = one.message.metadata.dst_node_id
        if reply.has_content() and "metrics" in reply.content.metric_records:
            reply.content.metric_records["metrics"][SECONDS] = one.seconds
        return reply


def _config(message: Message) -> dict[str, Any]:
    return dict(message.content.config_records.get("config") or {})


def _round(message: Message) -> int:
    return int(_config(message).get("server-round", QUERY))
