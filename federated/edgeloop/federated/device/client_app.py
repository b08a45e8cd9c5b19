"""Flower's ClientApp, for devices whose messages arrive through Flower's own SuperNode.

It starts a process for every message, so nothing is kept between rounds. The node's configuration names the data.
"""

from __future__ import annotations

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from edgeloop.federated.device.participant import Participant

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """One round on this device's data, or why it failed."""
    config = context.node_config
    return Participant(str(config["data"]), int(config["device"])).answer(message)
