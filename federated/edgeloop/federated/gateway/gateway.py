"""Tabs of the page take part in a federation: each that is admitted is one node of the SuperLink.

A tab speaks with its own origin alone (tab_requests.py), and the node here speaks Flower's protocol for it, so that the
server's guard, quorum and journal treat it as any other device. A tab that leaves ends its node; the round goes on
without it.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from edgeloop.bundle import TRAINABLE, Bundle
from edgeloop.errors import MissingExtra, ModelError
from edgeloop.federated.device.connection.link import Link
from edgeloop.federated.device.connection.supervise import Connection
from edgeloop.federated.device.join import TESTED, flower_version, quiet_flower
from edgeloop.federated.gateway.options import GatewayOptions
from edgeloop.federated.gateway.place import Place, fleet
from edgeloop.federated.gateway.tab_trainer import ShownModel

FREED_S = 3.0  # for a tab that is loaded again to take the place that it has just left
CLOSE_S = 2.0  # for the nodes to leave the federation


class NotAdmitted(Exception):
    """Why a tab gets no place; `code` is a word for the page."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Gateway:
    """The places of one federation. Thread-safe.

    Args:
        links: A way to the SuperLink for each place.
        model: What the tabs train.
        connect: Makes the connection of a node.
    """

    def __init__(
        self,
        links: tuple[Link, ...],
        model: ShownModel,
        connect: Callable[[Link], AbstractContextManager[Connection]] = fleet,
    ) -> None:
        self.links, self.model, self._connect = links, model, connect
        self._places: dict[str, Place] = {}  # by the tab's secret
        self._changed = threading.Condition()

    def join(self, client: str, cores: int) -> str:
        """Admit a tab; returns the secret that names it from now on.

        Raises:
            NotAdmitted: Another tab of the same browser takes part (`twice`), or all places are taken (`full`).
        """
        with self._changed:
            deadline = time.monotonic() + FREED_S
            while (refused := self._refusal(client)) is not None:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise refused
                self._changed.wait(min(left_s, 0.2))
            taken = {place.number for place in self._places.values() if not place.ended.is_set()}
            number = next(n for n in range(len(self.links)) if n not in taken)
            # what ended longest ago goes: a tab that slept is told why it has left
            ended = [tab for tab, place in self._places.items() if place.ended.is_set()]
            for tab in ended[: -len(self.links)]:
                del self._places[tab]
            tab = secrets.token_urlsafe(16)
            self._places[tab] = place = Place(number, self.links[number], self.model, client, cores, self._connect)
        place.start(self._notify)
        return tab

    def place(self, tab: str) -> Place | None:
        """The place of an admitted tab; None: it is not known."""
        with self._changed:
            return self._places.get(tab)

    def close(self) -> None:
        """End every node; those that do not end in time end with the process."""
        deadline = time.monotonic() + CLOSE_S
        with self._changed:
            places = list(self._places.values())
        for place in places:
            place.desk.leave("edgeloop browse was ended")
        for place in places:
            place.ended.wait(max(0.0, deadline - time.monotonic()))

    def _refusal(self, client: str) -> NotAdmitted | None:
        there = [place for place in self._places.values() if not place.ended.is_set()]
        if any(place.client == client and not place.desk.left for place in there):
            return NotAdmitted("twice", "Another tab of this browser takes part already; one browser has one vote.")
        if len(there) >= len(self.links):
            return NotAdmitted("full", f"All {len(self.links)} places of this page are taken.")
        return None

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()


@contextlib.contextmanager
def gateway(bundle: Bundle, options: GatewayOptions) -> Iterator[Gateway]:
    """The gateway of a page that shows `bundle`; its nodes leave the federation when the block ends.

    Raises:
        ModelError: The bundle has no trainable variant.
        OptionsError, DataError: As `GatewayOptions.links`.
        MissingExtra: Flower is not installed, or of a version that the connection was not tried with.
    """
    if TRAINABLE not in [variant.id for variant in bundle.variants]:
        raise ModelError(
            f"{bundle.path} has no {TRAINABLE} variant, which tabs train",
            advice=f"Run: edgeloop convert MODEL --trainable -o {bundle.path}",
        )
    if not bundle.manifest.weights:
        raise ModelError(f"the manifest of {bundle.path} lists no weights", advice="Convert the model again.")
    found = flower_version()
    if found not in TESTED:
        raise MissingExtra(
            f"Flower {found} is installed, and tabs take part through {' or '.join(TESTED)}",
            advice="Run: pip install 'edgeloop[federated]'",
        )
    quiet_flower()
    entry = bundle.manifest.files[bundle.variant(TRAINABLE).entry]
    opened = Gateway(options.links(), ShownModel(entry.sha256, bundle.manifest))
    try:
        yield opened
    finally:
        opened.close()
