"""What a device answers: train and evaluate on its own data, and say what kind of device it is. Never the data.

The messages are those of docs/federated-protocol.md. A model and the data stay loaded between two rounds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from edgeloop.bundle import INFERENCE, MANIFEST, SIGNATURE, Manifest, Signature
from edgeloop.errors import DataError, EdgeloopError, error_to_json, one_line
from edgeloop.federated.device.compression.codec import CODECS
from edgeloop.federated.device.compression.upload import COMPRESSION, Training, Upload
from edgeloop.federated.device.control_variate import ControlVariate
from edgeloop.federated.device.corrections import CONTROL, correction_of
from edgeloop.federated.device.data.samples import InputSpec
from edgeloop.federated.device.local_noise import CLIPPING, NOISE, with_local_noise
from edgeloop.federated.device.means import Means, ModelTraining
from edgeloop.federated.device.metrics import DEVICE, ERROR, EXAMPLES, LACKS, LOSS, SECONDS
from edgeloop.federated.device.models import MODEL, ModelStore
from edgeloop.federated.device.options import DeviceOptions
from edgeloop.federated.device.personal import PersonalLayers
from edgeloop.federated.device.statistics import (
    CORRECT_BY_CLASS,
    LABEL_MOMENTS,
    PERSONAL_CORRECT_BY_CLASS,
    STATISTICS,
    Tell,
    label_counts,
    tells,
)
from edgeloop.progress import Say
from edgeloop.runtime.agent.trainer import EvaluateRecord, Trainer

SENT = {MODEL: "model", MANIFEST: "manifest", SIGNATURE: "signature"}  # files of the store by key of `config`
WITHHELD = {
    "found": "it failed, and the device tells the reason to its owner alone",
    "advice": "Ask the owner of the device for its output.",
}


@dataclass
class _Loaded:
    """One model in a runtime, with this device's samples for it."""

    sha256: str
    trainer: ModelTraining
    manifest: Manifest | None
    kept: tuple[str, ...]
    samples: Any = None

    @property
    def name(self) -> str:
        return self.manifest.name if self.manifest else self.sha256


class Participant:
    """One device. Not thread-safe.

    Args:
        say: Tells the owner of the device what failed.
        means: What it trains with. None: LiteRT on the samples of `options.data`.
    """

    def __init__(self, options: DeviceOptions, say: Say, means: Means | None = None) -> None:
        self.options, self.say, self.means = options, say, means or Means()
        self.models = self.means.models or ModelStore(os.path.join(options.folder(), "models"), options.signers)
        self.personal = PersonalLayers(os.path.join(options.folder(), "personal"), options.keep_local)
        self.variate = ControlVariate(os.path.join(options.folder(), "control-variate.npz"))
        self.upload = Upload(os.path.join(options.folder(), "compression"), say)
        self._loaded: _Loaded | None = None
        self._said = ""

    def answer(self, message: Message) -> Message:
        """The reply: what was asked for, or the error. Its text may quote the data, so it is said here, and goes to the
        server only with `tell_details`."""
        asked = message.metadata.message_type.partition(".")[0]
        wanted = _wanted_model(message)
        try:
            answers = {"train": self._train, "evaluate": self._evaluate, "query": self._query}
            content = answers[asked](message.content)
            self._said = ""
        except Exception as e:  # whatever it is, the server has to know that it gets no update
            self._tell_owner(asked, e)
            content = RecordDict({ERROR: ConfigRecord(self._error(e, wanted))})
        return Message(content, reply_to=message)

    def _train(self, asked: RecordDict) -> RecordDict:
        config: dict[str, Any] = dict(asked.config_records["config"])
        loaded, given = self._model(config), _arrays(asked)
        try:
            counts = self._begin(loaded, given, config)
        except DataError as e:
            raise e.at(self.options.data) from e
        theirs = {name: given[name] for name in loaded.kept}
        names = [name for name in _trained(loaded) if name not in theirs]
        control = _arrays(asked, CONTROL) if CONTROL in asked.array_records else {}
        correction = correction_of(config, control, given, names, self.options.device, self.variate)
        base = given if COMPRESSION in config or NOISE in config else {}
        config.pop("model", None)
        del given, asked["arrays"], asked["config"]  # the training needs the memory
        number = config["server-round"]
        seed = (config["seed"], number, self.options.device)
        inputs, y = self._samples(loaded)
        try:
            done = loaded.trainer.train(
                inputs, y, epochs=config["epochs"], lr=config["lr"], seed=seed, correct=correction.step
            )
        except DataError as e:
            raise e.at(self.options.data) from e
        trained = loaded.trainer.get_weights()
        if loaded.kept:
            self.personal.write(loaded.name, {name: trained[name] for name in loaded.kept})
        # the server gets back its own values of what stays here: a mean is then unchanged by them
        sent = {**trained, **theirs}
        correction.finish(sent, done.steps)
        if NOISE in config:
            # what no step moves stays the server's: noise would make the variances of a batch norm negative
            moved = with_local_noise({name: base[name] for name in names}, sent, config[CLIPPING], config[NOISE])
            sent = {**base, **moved}
        metrics = MetricRecord(
            {EXAMPLES: done.examples, LOSS: done.loss[-1], SECONDS: done.seconds, DEVICE: self.options.device}
        )
        made = Training(base, sent, loaded.kept, config, self.options.device)
        told = {STATISTICS: MetricRecord(counts)} if counts else {}
        return RecordDict({**self.upload.records(made), "metrics": metrics, **told})

    def _begin(self, loaded: _Loaded, given: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> dict[str, Any]:
        """Set the weights that the training begins with; what the server is told of the data before it."""
        trainer, own = loaded.trainer, self._own(loaded, given)
        asked = {STATISTICS, LABEL_MOMENTS} & set(config)
        if self.options.no_statistics or not asked or not isinstance(trainer, Trainer):  # another program tells nothing
            trainer.set_weights(own)
            return {}
        inputs, y = self._samples(loaded)
        trainer.check(inputs, y)
        found = label_counts(y, trainer, config)
        if tells(config, trainer) is Tell.EVALUATION:
            trainer.set_weights(given)
            found[CORRECT_BY_CLASS] = trainer.correct_by_class(inputs, y).tolist()
        trainer.set_weights(own)
        if loaded.kept and CORRECT_BY_CLASS in found:
            found[PERSONAL_CORRECT_BY_CLASS] = trainer.correct_by_class(inputs, y).tolist()
        return found

    def _evaluate(self, asked: RecordDict) -> RecordDict:
        """The server's weights on this device's data; with personal layers also those of this device."""
        loaded, given = self._model(dict(asked.config_records["config"])), _arrays(asked)
        inputs, y = self._samples(loaded)
        loaded.trainer.set_weights(given)
        found = loaded.trainer.evaluate(inputs, y)
        metrics: dict[str, Any] = {EXAMPLES: found.examples, DEVICE: self.options.device, **_numbers(found)}
        if loaded.kept:
            loaded.trainer.set_weights(self._own(loaded, given))
            own = _numbers(loaded.trainer.evaluate(inputs, y))
            metrics.update({f"personal-{name}": value for name, value in own.items()})
        return RecordDict({"metrics": MetricRecord(metrics)})

    def _query(self, asked: RecordDict) -> RecordDict:
        described = {**self.means.describe(), "models": self.models.hashes(), "codecs": list(CODECS)}
        described[DEVICE] = str(self.options.device)
        return RecordDict({"device": ConfigRecord(described)})

    def _model(self, config: Mapping[str, Any]) -> _Loaded:
        sha256 = str(config["sha256"])
        if self._loaded is None or self._loaded.sha256 != sha256:
            self._loaded = None  # first: two models need twice the memory
            sent = {file: bytes(config[key]) for file, key in SENT.items() if key in config}
            model, manifest = self.models.take(sha256, sent)
            trainer = self.means.load(model, manifest)
            kept = self.personal.names(tuple(trainer.weights), manifest)
            self._loaded = _Loaded(sha256, trainer, manifest, kept)
        return self._loaded

    def _samples(self, loaded: _Loaded) -> Any:
        if loaded.samples is None:
            loaded.samples = self.means.read(self.options.data).for_model(_inputs(loaded), _labels(loaded))
        return loaded.samples

    def _own(self, loaded: _Loaded, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The server's weights with this device's own where some stay here."""
        own = self.personal.read(loaded.name) if loaded.kept else {}
        fits = {name: own[name] for name in loaded.kept if name in own and own[name].shape == given[name].shape}
        return {**given, **fits}

    def _tell_owner(self, asked: str, error: Exception) -> None:
        """Once, until it changes: a server asks in every round."""
        said = str(error) if isinstance(error, EdgeloopError) else one_line(f"{type(error).__name__}: {error}")
        if said != self._said:
            self.say(f"{one_line(asked, 40)} failed: {said}")
        self._said = said

    def _error(self, error: Exception, wanted: str) -> dict[str, Any]:
        document = error_to_json(error)
        if not self.options.tell_details:
            document = {**document, **WITHHELD}
        failed = {ERROR: json.dumps(document), DEVICE: str(self.options.device)}
        if isinstance(error, EdgeloopError) and wanted and wanted not in self.models.hashes():
            failed[LACKS] = wanted
        return failed


def _wanted_model(message: Message) -> str:
    """The hash of the model that a message is about; empty: of none."""
    asked = message.content.config_records.get("config") if message.has_content() else None
    return str(asked["sha256"]) if asked is not None and "sha256" in asked else ""


def _inputs(loaded: _Loaded) -> dict[str, InputSpec]:
    """The model's inputs with the ranges of its manifest, if it has one."""
    named = _inference(loaded)
    ranges = {spec.name: spec.range for spec in named.inputs} if named else {}
    trainer = loaded.trainer
    return {name: InputSpec(trainer.shapes[name], ranges.get(name), trainer.dtypes[name]) for name in trainer.inputs}


def _labels(loaded: _Loaded) -> tuple[str, ...]:
    """Names of the model's classes, from 0; empty where its manifest has none."""
    named = _inference(loaded)
    return named.outputs[0].labels if named and len(named.outputs) == 1 else ()


def _inference(loaded: _Loaded) -> Signature | None:
    signatures = loaded.manifest.signatures if loaded.manifest else {}
    return next((signatures[name] for name in INFERENCE if name in signatures), None)


def _trained(loaded: _Loaded) -> list[str]:
    """Names of the weights that steps move; batch-norm statistics are none. All, where a manifest does not say."""
    known = loaded.manifest.weights if loaded.manifest else ()
    return [weight.name for weight in known if weight.trainable] or list(loaded.trainer.weights)


def _arrays(asked: RecordDict, record: str = "arrays") -> dict[str, np.ndarray]:
    return {name: array.numpy() for name, array in asked.array_records[record].items()}


def _numbers(found: EvaluateRecord) -> dict[str, float]:
    known = {"loss": found.loss, "accuracy": found.accuracy, "mae": found.mae}
    return {name: value for name, value in known.items() if value is not None}
