"""Flower's Grid with our rule for a round: every device answers, and every answer is checked before it is averaged.

A Grid sees every message, so the rule holds under each of Flower's strategies, unchanged.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from edgeloop.errors import DeviceError, EdgeloopError, error_from_json, one_line
from edgeloop.federated.device.metrics import DEVICE, ERROR
from edgeloop.federated.rounds.records import ClientRecord, check_reply

POLL_S = 0.2  # Flower's own send_and_receive looks every 3 s


class CheckedGrid(Grid):
    """Wraps a Grid. `clients` are the checked replies of the last round, by device.

    Attributes:
        shapes: What every reply's arrays must look like.
        devices: How many replies a round needs.
    """

    def __init__(self, inner: Grid, shapes: Mapping[str, tuple[int, ...]], devices: int) -> None:
        self.inner, self.shapes, self.devices = inner, shapes, devices
        self.clients: tuple[ClientRecord, ...] = ()

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """The replies in the order of the devices, so that the average does not depend on who was first.

        Raises:
            DeviceError: A device ended, did not answer within `timeout` seconds, or sent what cannot be averaged.
            EdgeloopError: The training failed there; of the class that it had there.
        """
        waiting = set(self.inner.push_messages(messages))
        if not waiting:  # Flower also "sends" the evaluation round that is switched off
            return []
        replies, deadline = [], time.monotonic() + (timeout or 3600.0)
        while waiting:
            for reply in self.inner.pull_messages(waiting):
                waiting.discard(reply.metadata.reply_to_message_id)
                replies.append((self._checked(reply), reply))
            if waiting and time.monotonic() > deadline:
                raise DeviceError(
                    f"{len(replies)} of {self.devices} devices answered within {timeout:g} s, and a round needs all "
                    "of them",
                    advice="Allow more time, or train for fewer epochs.",
                )
            time.sleep(POLL_S if waiting else 0)
        replies.sort(key=lambda pair: pair[0].device)
        self.clients = tuple(client for client, _ in replies)
        if [client.device for client in self.clients] != list(range(self.devices)):
            named = [client.device for client in self.clients]
            raise DeviceError(
                f"the replies come from the devices {named}, expected each of 0 to {self.devices - 1} once",
                advice="Run the same edgeloop on every device.",
            )
        return [reply for _, reply in replies]

    def _checked(self, reply: Message) -> ClientRecord:
        if reply.has_error():  # Flower's own: no ClientApp of ours answered
            raise DeviceError(
                f"a device failed: {one_line(reply.error.reason or f'Flower error {reply.error.code}')}",
                advice="Check its environment: edgeloop setup device.",
            )
        content = reply.content
        if list(content) == [ERROR]:
            raise _error_of(content)
        if list(content.array_records) != ["arrays"] or list(content.metric_records) != ["metrics"]:
            raise DeviceError(
                f"a reply holds {sorted(content)}, expected arrays and metrics",
                advice="Run the same edgeloop on every device.",
            )
        arrays = {name: array.numpy() for name, array in content.array_records["arrays"].items()}
        metrics: dict[str, Any] = dict(content.metric_records["metrics"])
        return check_reply(arrays, metrics, self.shapes, self.devices)

    @property
    def run(self) -> Any:
        return self.inner.run

    def set_run(self, run: Any) -> None:
        self.inner.set_run(run)

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        return self.inner.create_message(*args, **kwargs)

    def get_node_ids(self) -> Iterable[int]:
        return self.inner.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self.inner.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self.inner.pull_messages(message_ids)


def _error_of(content: RecordDict) -> EdgeloopError:
    """What failed on the device, as the class it was there."""
    record: dict[str, Any] = dict(content.config_records.get(ERROR) or {})
    try:
        document = json.loads(record.get(ERROR, ""))
    except (ValueError, TypeError, RecursionError):
        document = {"type": "a reply that is not JSON"}
    return error_from_json(document, where=f"device {one_line(record.get(DEVICE, ''), 20)}", doing="the training")
