"""What a decorator of Flower's Grid has in common: all that it does not change goes to the Grid that it wraps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid


class GridDecorator(Grid):
    """Wraps a Grid, `inner`."""

    def __init__(self, inner: Grid) -> None:
        self.inner = inner

    def get_node_ids(self) -> Iterable[int]:
        return self.inner.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self.inner.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self.inner.pull_messages(message_ids)

    def abandon(self) -> None:
        """Replies to earlier messages are wanted no more. Flower's own Grid need not know."""
        if isinstance(self.inner, GridDecorator):
            self.inner.abandon()

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return self.inner.send_and_receive(messages, timeout=timeout)

    @property
    def run(self) -> Any:
        return self.inner.run

    def set_run(self, run: Any) -> None:
        self.inner.set_run(run)

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        return self.inner.create_message(*args, **kwargs)
