"""Flower's ClientApp of every device of a simulation: the participant of a real device, with its share of the samples.

One process plays many devices, one after another. The model is stored once for all of them; what else a device keeps
has a folder for each.
"""

from __future__ import annotations

from pathlib import Path

from flwr.app import Message
from flwr.clientapp import ClientApp

from edgeloop.federated.device.means import Means
from edgeloop.federated.device.models import ModelStore
from edgeloop.federated.device.options import DeviceOptions
from edgeloop.federated.device.participant import SENT, Participant
from edgeloop.federated.simulation.population import read_device
from edgeloop.federated.simulation.process import SAMPLES
from edgeloop.federated.simulation.simulated_grid import DEVICE


def simulated_app(work: str, state: str) -> ClientApp:
    """The app for the simulation in the folder `work`; it travels to Ray's processes."""
    app = ClientApp()
    app.train()(lambda message, context: answer(work, state, message))
    app.evaluate()(lambda message, context: answer(work, state, message))
    app.query()(lambda message, context: answer(work, state, message))
    return app


def answer(work: str, state: str, message: Message) -> Message:
    """The reply of the device that the message is for. What devices remember lies in the folder `state`."""
    config = message.content.config_records["config"]
    device = int(str(config.pop(DEVICE)))
    models = ModelStore(f"{work}/models")
    if str(config.get("sha256")) in models.hashes():  # sent to every device, stored once
        for key in SENT.values():
            config.pop(key, None)
    options = DeviceOptions(f"device {device}", f"{state}/{device}", device, tell_details=True)
    read = lambda source: read_device(Path(work, SAMPLES), device)  # noqa: E731
    return Participant(options, lambda sentence: None, Means(models, read)).answer(message)
