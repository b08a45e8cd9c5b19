"""Flower's ClientApp, for devices whose messages arrive through Flower's own SuperNode.

It starts a process for every message, so nothing is kept between rounds. The node's configuration names the data.
"""

from __future__ import annotations

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from edgeloop.federated.device.connection.stock import say_on_stderr
from edgeloop.federated.device.options import from_node_config
from edgeloop.federated.device.participant import Participant

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """One round on this device's data, or why it failed."""
    return _participant(context).answer(message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """The server's weights on this device's data."""
    return _participant(context).answer(message)


@app.query()
def query(message: Message, context: Context) -> Message:
    """What kind of device this is."""
    return _participant(context).answer(message)


def _participant(context: Context) -> Participant:
    return Participant(from_node_config(context.node_config), say_on_stderr)
