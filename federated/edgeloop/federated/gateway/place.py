"""One tab's place in a federation: a Flower node, with the connection, the messages and the answers of a device."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from edgeloop.atomic import make_folder
from edgeloop.errors import DeviceError, EdgeloopError
from edgeloop.federated.device.connection.link import Link
from edgeloop.federated.device.connection.supervise import Connection, Waits, serve
from edgeloop.federated.device.join import held_state
from edgeloop.federated.device.means import Means
from edgeloop.federated.device.options import DeviceOptions
from edgeloop.federated.gateway.desk import Desk
from edgeloop.federated.gateway.tab_trainer import InThePage, ShownModel, TabTrainer
from edgeloop.hashes import digest_of
from edgeloop.leftovers import temporary_folder
from edgeloop.runtime.agent.paths import resolved

STATE = "federated-tabs"  # the folder below EDGELOOP_HOME: which node each key was
POLL_S = 0.5  # between two questions of a node whether there is work


@contextlib.contextmanager
def fleet(link: Link) -> Iterator[Connection]:
    """The connection of a node; one with a key takes its place again after this process was killed.

    Raises:
        OptionsError: Another process uses the key.
    """
    from edgeloop.federated.device.connection.fleet import Fleet

    with contextlib.ExitStack() as stack:
        if link.key is None:
            folder = stack.enter_context(temporary_folder())
        else:
            folder = resolved(f"{STATE}/{digest_of(link.key.encode())[:16]}")
            make_folder(folder)
            stack.enter_context(held_state(folder))
        yield Fleet(link, f"{folder}/node.json")


@dataclass
class Place:
    """The node of one tab, in a thread of its own.

    Attributes:
        number: Of the key, from 0: the label of the device in replies.
        client: Who the tab belongs to: a random name that all tabs of one browser share.
        cores: CPUs that the browser names.
        connect: Makes the connection to the SuperLink.
        said: What happened last, for the user of the tab.
        ended: The node has left the federation.
    """

    number: int
    link: Link
    model: ShownModel
    client: str
    cores: int
    connect: Callable[[Link], AbstractContextManager[Connection]] = fleet
    desk: Desk = field(default_factory=Desk)
    said: str = "connecting"
    connected: bool = False
    refused: bool = False
    ended: threading.Event = field(default_factory=threading.Event)

    def start(self, whenever_ended: Callable[[], None]) -> None:
        """Take part until the tab leaves; then call `whenever_ended`."""

        def run() -> None:
            try:
                self._take_part()
            finally:
                self.connected = False
                self.desk.leave(self.said)
                self.ended.set()
                whenever_ended()

        threading.Thread(target=run, name=f"tab-{self.number}", daemon=True).start()

    def _take_part(self) -> None:
        from edgeloop.federated.device.connection.refusals import reason, refusal
        from edgeloop.federated.device.participant import Participant

        try:
            with self.connect(self.link) as connection, temporary_folder() as remembered:
                options = DeviceOptions("the tab's own images", remembered, self.number)
                participant = Participant(options, self._say, self._means())
                final: Any = lambda error, joined: refusal(error, self.link, joined=joined)  # noqa: E731
                serve(connection, participant.answer, final, reason, self._say, Waits(poll=POLL_S), self._sleep)
        except EdgeloopError as e:  # the tab's user reads it; the page is served on
            self.said, self.refused = str(e), not self.desk.left

    def _means(self) -> Means:
        shapes = {weight.name: weight.shape for weight in self.model.manifest.weights}
        return Means(
            models=self.model,
            read=lambda source: InThePage(),
            load=lambda model, manifest: TabTrainer(self.desk, shapes),
            describe=lambda: {"machine": "browser", "cores": self.cores, "runtime": "litertjs"},
        )

    def _say(self, sentence: str) -> None:
        self.said = sentence
        if sentence.startswith("connected as node"):
            self.connected = True
        elif sentence.startswith("the server cannot be reached"):
            self.connected = False

    def _sleep(self, seconds: float) -> None:
        """Wait, and end the node where the tab has left."""
        deadline = time.monotonic() + seconds
        while not self.desk.left and time.monotonic() < deadline:
            time.sleep(min(0.2, seconds))
        if self.desk.left:
            raise DeviceError(self.desk.left, advice="Open the page again to take part.")
