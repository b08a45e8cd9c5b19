"""What a device does in a round: Flower's ClientApp over the agent's trainer. The base layer only, never TensorFlow.

Flower starts a new process for every message, so nothing is kept here between rounds. The node's configuration names
the shard; the model and how to train it arrive with the message.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from edgeloop.errors import DataError, EdgeloopError, IntegrityError, error_to_json, one_line
from edgeloop.federated.device.metrics import DEVICE, ERROR, EXAMPLES, LOSS, SECONDS
from edgeloop.hashes import digest_of
from edgeloop.runtime.agent.trainer import Trainer

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """One round on this device's shard, or why it failed, as `errors.error_to_json` writes it."""
    try:
        content = _trained(message, context)
    except EdgeloopError as e:
        device = str(context.node_config.get("device", ""))
        content = RecordDict({ERROR: ConfigRecord({ERROR: json.dumps(error_to_json(e)), DEVICE: device})})
    return Message(content, reply_to=message)


def _trained(message: Message, context: Context) -> RecordDict:
    device, shard = int(context.node_config["device"]), Path(str(context.node_config["shard"]))
    config: dict[str, Any] = dict(message.content.config_records["config"])
    trainer = Trainer(checked_model(config["model"], config["sha256"]))
    trainer.set_weights({name: array.numpy() for name, array in message.content.array_records["arrays"].items()})
    inputs, y = read_shard(shard, trainer.inputs)
    seed = config["seed"], config["server-round"], device
    lr = config["lr"] * config["lr_decay"] ** (config["server-round"] - 1)
    try:
        done = trainer.train(inputs, y, epochs=config["epochs"], lr=lr, seed=seed)
    except EdgeloopError as e:
        raise e.at(str(shard)) from e
    arrays = ArrayRecord({name: Array(array) for name, array in trainer.get_weights().items()})
    metrics = MetricRecord({EXAMPLES: done.examples, LOSS: done.loss[-1], SECONDS: done.seconds, DEVICE: device})
    return RecordDict({"arrays": arrays, "metrics": metrics})


def checked_model(model: bytes, sha256: str) -> bytes:
    """The model, whose bytes are those the server hashed.

    Raises:
        IntegrityError: They are not.
    """
    found = digest_of(model)
    if found != sha256:
        raise IntegrityError(
            f"the model arrived with sha256 {found[:12]}…, and the server sent {sha256[:12]}…",
            advice="Run the round again.",
        )
    return model


def read_shard(path: Path, names: Sequence[str]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The inputs `names` and the labels `y` of a shard (.npz). Arrays are named as the inputs, or `in/NAME`; one input
    may be called `x`.

    Raises:
        DataError: No such file, no .npz, pickled objects in it, or no `y`.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise ValueError("one bare array")
        with loaded:
            shard = {name.removeprefix("in/"): loaded[name] for name in loaded.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as e:
        reason = one_line(e, 200)
        raise DataError(f"{path} is not a shard ({reason})", advice="Pass an .npz file with the inputs and y.") from e
    if "y" not in shard:
        raise DataError(f"{path} holds {sorted(shard)} and no labels", advice="Add an array named y.")
    y = shard.pop("y")
    if len(names) == 1 and list(shard) == ["x"]:
        return {names[0]: shard["x"]}, y
    return shard, y
