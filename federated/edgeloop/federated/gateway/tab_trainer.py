"""A model that trains in a tab, as a participant sees it: the samples stay in the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeloop.bundle import Manifest
from edgeloop.errors import DataError, DeviceError, ModelError, OptionsError
from edgeloop.federated.device.data.samples import InputSpec
from edgeloop.federated.gateway.desk import Answer, Desk, Work
from edgeloop.hashes import digest_of
from edgeloop.runtime.agent.trainer import Correct, EvaluateRecord, TrainRecord

FLOAT32 = np.dtype("<f4")


class TabTrainer:
    """Asks the tab behind `desk`. `weights`: the shape of each by name, in `get_weights` order."""

    inputs: tuple[str, ...] = ()
    shapes: Mapping[str, tuple[int, ...]] = {}
    dtypes: Mapping[str, str] = {}

    def __init__(self, desk: Desk, weights: Mapping[str, tuple[int, ...]]) -> None:
        self.desk, self.weights = desk, weights
        self._row = np.zeros(0, FLOAT32)

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """What the next call begins with.

        Raises:
            DataError: A name is missing or unknown, a shape differs.
        """
        if {name: array.shape for name, array in weights.items()} != dict(self.weights):
            raise DataError(
                "the weights are not those of the bundle that the page shows",
                advice="Start edgeloop browse with the bundle that the rounds train.",
            )
        self._row = np.concatenate([np.asarray(weights[name], FLOAT32).reshape(-1) for name in self.weights])

    def get_weights(self) -> dict[str, np.ndarray]:
        """Those that were set, or what the tab made of them."""
        sizes = [math.prod(shape) for shape in self.weights.values()]
        parts = np.split(self._row, np.cumsum(sizes)[:-1])
        return {name: part.reshape(shape) for (name, shape), part in zip(self.weights.items(), parts, strict=True)}

    def train(
        self,
        inputs: Mapping[str, np.ndarray],
        y: np.ndarray,
        *,
        epochs: int,
        lr: float,
        seed: int | Sequence[int],
        correct: Correct | None,
    ) -> TrainRecord:
        """Train in the tab; `inputs` and `y` are empty, for the samples are there.

        Raises:
            OptionsError: The server's strategy corrects each step.
            DeviceError: The tab left, failed, or answered with something else.
        """
        if correct is not None:
            raise OptionsError(
                "the strategy of the server corrects each step, which a tab cannot do",
                advice="Choose another strategy than fed-prox and scaffold.",
            )
        seeds = [seed] if isinstance(seed, int) else list(seed)
        answer = self._ask("train", {"epochs": epochs, "lr": lr, "seed": seeds, "round": seeds[1] if seeds[1:] else 0})
        if len(answer.row) != self._row.nbytes:
            raise DeviceError(
                f"the tab sent {len(answer.row)} bytes of weights; the model has {self._row.nbytes}",
                advice="Load the page again.",
            )
        self._row = np.frombuffer(answer.row, FLOAT32)
        loss, steps, examples, seconds = (answer.numbers[name] for name in ("loss", "steps", "examples", "seconds"))
        return TrainRecord((loss,), int(steps), int(examples), seconds)

    def evaluate(self, inputs: Mapping[str, np.ndarray], y: np.ndarray) -> EvaluateRecord:
        """Measure the weights in the tab. Raises as `train`."""
        numbers = self._ask("evaluate", {}).numbers
        return EvaluateRecord(numbers["loss"], int(numbers["examples"]), numbers["accuracy"], None)

    def _ask(self, kind: str, config: Mapping[str, Any]) -> Answer:
        row = self._row.tobytes()
        return self.desk.ask(Work(kind, config, digest_of(row), row))


class InThePage:
    """The samples of a tab: nothing of them is here."""

    def for_model(
        self, inputs: Mapping[str, InputSpec], labels: Sequence[str] = ()
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        return {}, np.zeros(0, np.int32)


@dataclass(frozen=True)
class ShownModel:
    """The one model that tabs train: the trainable variant of the bundle that the page shows. A server cannot make
    them load another."""

    sha256: str
    manifest: Manifest

    def hashes(self) -> list[str]:
        return [self.sha256]

    def take(self, sha256: str, sent: Mapping[str, bytes]) -> tuple[bytes, Manifest | None]:
        """Nothing but the manifest: the page has the file.

        Raises:
            ModelError: The server trains another model.
        """
        if sha256 != self.sha256:
            raise ModelError(
                f"the server trains the model {sha256[:12]}…, and the page shows {self.sha256[:12]}…",
                advice="Start edgeloop browse with the bundle that the rounds train.",
            )
        return b"", self.manifest
