"""What the engines share that divide a model over devices: its values as those of the whole model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from edgeloop.cloud.input.damage import named_damage
from edgeloop.cloud.train.config.tables import Precision
from edgeloop.cloud.train.data.batch_stream import BatchStream, stream_of
from edgeloop.cloud.train.data.training_data import validation_batches
from edgeloop.cloud.train.engine import Setup
from edgeloop.cloud.train.servers.partitioned import model_values
from edgeloop.cloud.train.step.evaluation import Evaluation
from edgeloop.cloud.train.step.optimizer import make_optimizer, slots
from edgeloop.errors import OptionsError


class WholeEngine(ABC):
    """The part of an `Engine` that knows the whole model, which lies in the host's memory; only checkpoints read it
    there. Who inherits it runs the steps, and fills `collect` and `spread`."""

    repeatable = True

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        _check_memory(setup)
        self._begin = stream_of(setup.strategy, setup.training, setup.config, setup.batch)
        self._stream = BatchStream(self._begin)
        self._evaluate: Callable[[Iterable[Any]], Evaluation]

    def batches(self, begin: int, count: int) -> Any:
        return self._stream.at(begin, count)

    def validation_batches(self) -> Iterable[Any]:
        return validation_batches(self.setup.validation, self.setup.config.pipeline)

    def evaluate(self, batches: Iterable[Any]) -> Evaluation:
        return self._evaluate(batches)

    def state(self) -> dict[str, Any]:
        return model_values(self.setup.model) | slots(self.setup.optimizer)

    @abstractmethod
    def collect(self) -> None:
        """See `Engine`."""

    def model_here(self) -> Any:
        self.collect()
        return self.setup.model

    def first_batch(self) -> tuple[list[Any], Any]:
        """Features in the order of the model's inputs, and labels."""
        with named_damage(self.setup.training):
            features, labels = next(self._begin(0))
        return self.in_order(features), labels

    def optimizer(self) -> Any:
        """Another one like that of the whole model."""
        config, setup = self.setup.config, self.setup
        return make_optimizer(
            config.optimizer, config.memory.precision, setup.replicas, setup.steps, config.loop.epochs
        )

    def in_order(self, features: Any) -> list[Any]:
        """The features as a list in the order of the model's inputs."""
        if not isinstance(features, dict):
            return [features]
        names: Sequence[str] = [tensor.name for tensor in self.setup.model.inputs]
        return [features[name] for name in names] if set(names) == set(features) else list(features.values())


def _check_memory(setup: Setup) -> None:
    memory, name = setup.config.memory, setup.name.value
    if memory.accumulate > 1:
        raise OptionsError(
            f"[memory] accumulate is {memory.accumulate}, which the strategy {name} does not do",
            advice="Leave it out; the strategy pipeline has [strategy] micro-batches.",
        )
    if memory.precision != Precision.FLOAT32:
        raise OptionsError(
            f"[memory] precision is {memory.precision.value}, and the strategy {name} computes in float32",
            advice="Leave precision out, or choose another strategy.",
        )
