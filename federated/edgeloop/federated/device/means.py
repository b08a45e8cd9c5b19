"""What a participant trains with: LiteRT on data of its own, or another program that it speaks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from edgeloop.bundle import Manifest
from edgeloop.federated.device.data.readers import read_samples
from edgeloop.federated.device.data.samples import InputSpec
from edgeloop.federated.device.device_class import device_class
from edgeloop.federated.device.models import Models
from edgeloop.runtime.agent.trainer import Correct, EvaluateRecord, Trainer, TrainRecord


class ModelTraining(Protocol):
    """One model that trains: a `Trainer` here, or one of another program that this device speaks for."""

    @property
    def inputs(self) -> tuple[str, ...]: ...
    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...
    @property
    def dtypes(self) -> Mapping[str, str]: ...
    @property
    def weights(self) -> Mapping[str, tuple[int, ...]]: ...
    def get_weights(self) -> dict[str, np.ndarray]: ...
    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None: ...
    def train(
        self,
        inputs: Mapping[str, np.ndarray],
        y: np.ndarray,
        *,
        epochs: int,
        lr: float,
        seed: int | Sequence[int],
        correct: Correct | None,
    ) -> TrainRecord: ...
    def evaluate(self, inputs: Mapping[str, np.ndarray], y: np.ndarray) -> EvaluateRecord: ...


class LocalData(Protocol):
    """What `Samples` does for a participant."""

    def for_model(
        self, inputs: Mapping[str, InputSpec], labels: Sequence[str] = ()
    ) -> tuple[dict[str, np.ndarray], np.ndarray]: ...


@dataclass(frozen=True)
class Means:
    """What a participant trains with; the defaults are those of a device that does it itself.

    Attributes:
        models: The models that it has. None: those in its own folder.
        read: The samples of `DeviceOptions.data`.
        load: What trains a model, by its bytes and its manifest.
        describe: Says which class of machine it is.
    """

    models: Models | None = None
    read: Callable[[str], LocalData] = read_samples
    load: Callable[[bytes, Manifest | None], ModelTraining] = lambda model, manifest: Trainer(model)
    describe: Callable[[], dict[str, Any]] = device_class
