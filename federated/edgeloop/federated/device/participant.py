"""What a device answers: train and evaluate on its own data, and say what kind of device it is. Never the data.

The protocol is docs/federated-protocol.md. A model and the data stay loaded between two rounds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from edgeloop.errors import DataError, IntegrityError, error_to_json
from edgeloop.federated.device.data.npz import read_shard
from edgeloop.federated.device.metrics import DEVICE, ERROR, EXAMPLES, LOSS, SECONDS
from edgeloop.hashes import digest_of
from edgeloop.runtime.agent.trainer import Trainer


@dataclass
class Participant:
    """One device. Not thread-safe.

    Attributes:
        data: Its data set.
        device: Its label in replies and messages; loopback devices are numbered from 0.
    """

    data: str
    device: int = 0
    _trainer: Trainer | None = field(default=None, repr=False)
    _loaded: str = ""
    _samples: Any = field(default=None, repr=False)

    def answer(self, message: Message) -> Message:
        """The reply: what was asked for, or the error, as `errors.error_to_json` writes it."""
        try:
            content = self._trained(message.content)
        except Exception as e:  # whatever it is, the server has to know why it gets no update
            failed = ConfigRecord({ERROR: json.dumps(error_to_json(e)), DEVICE: str(self.device)})
            content = RecordDict({ERROR: failed})
        return Message(content, reply_to=message)

    def _trained(self, asked: RecordDict) -> RecordDict:
        config: dict[str, Any] = dict(asked.config_records["config"])
        trainer = self._model(config["model"], config["sha256"])
        trainer.set_weights({name: array.numpy() for name, array in asked.array_records["arrays"].items()})
        number = config["server-round"]
        lr = config["lr"] * config.get("lr_decay", 1.0) ** (number - 1)
        seed = (config["seed"], number, self.device)
        try:
            inputs, y = self._shard(trainer)
            done = trainer.train(inputs, y, epochs=config["epochs"], lr=lr, seed=seed)
        except DataError as e:
            raise e if e.where or self.data in e.found else e.at(self.data) from e
        arrays = ArrayRecord({name: Array(array) for name, array in trainer.get_weights().items()})
        metrics = MetricRecord(
            {EXAMPLES: done.examples, LOSS: done.loss[-1], SECONDS: done.seconds, DEVICE: self.device}
        )
        return RecordDict({"arrays": arrays, "metrics": metrics})

    def _model(self, model: bytes, sha256: str) -> Trainer:
        if self._trainer is None or self._loaded != sha256:
            self._trainer = None  # first: two models need twice the memory
            self._trainer = Trainer(checked_model(model, sha256))
            self._loaded, self._samples = sha256, None
        return self._trainer

    def _shard(self, trainer: Trainer) -> Any:
        if self._samples is None:
            self._samples = read_shard(self.data, trainer.inputs)
        return self._samples


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
