"""What runs the steps of a training: one engine for each way to spread a step over devices."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from edgeloop.cloud.input.examples import Examples
from edgeloop.cloud.train.config.train_config import TrainConfig
from edgeloop.cloud.train.step.evaluation import Evaluation
from edgeloop.cloud.train.step.loop import StepFigures, Stopped, Told
from edgeloop.cloud.train.step.objective import Objective
from edgeloop.cloud.train.strategies.place import Place
from edgeloop.cloud.train.strategies.strategies import Strategy


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What every engine is made of.

    Attributes:
        strategy: Of tf.distribute, in whose scope `model` and `optimizer` were made.
        replicas: That share the batch of a step.
        batch: Examples of one step over all replicas.
        steps: Of one epoch.
    """

    config: TrainConfig
    name: Strategy
    strategy: Any
    place: Place
    model: Any
    optimizer: Any
    objective: Objective
    training: Examples
    validation: Examples
    replicas: int
    batch: int
    steps: int


class Engine(Protocol):
    """Runs steps, and knows where the values of the model lie meanwhile.

    Attributes:
        repeatable: Whether the same steps from the same values come to the same values, in this process.
        plan: What a user should know before the first step, a sentence each.
    """

    repeatable: bool
    plan: tuple[str, ...]

    def batches(self, begin: int, count: int) -> Any:
        """An iterator over `count` batches from step `begin` on, the same for the same seed."""
        ...

    def run(self, iterator: Any, count: int, epoch: int, told: Told, stop: Stopped) -> StepFigures:
        """`count` steps, or fewer where a loss is not finite or `stop` ends them."""
        ...

    def validation_batches(self) -> Iterable[Any]:
        """Every held-out example once, as `evaluate` takes them."""
        ...

    def evaluate(self, batches: Iterable[Any]) -> Evaluation:
        """What the model of now comes to."""
        ...

    def state(self) -> dict[str, Any]:
        """Names to variables of all that a checkpoint holds: weights, states of random layers, slots of the optimizer,
        tables, counters."""
        ...

    def collect(self) -> None:
        """Bring the variables of `state` to what the steps came to: before they are read."""
        ...

    def spread(self) -> None:
        """Let the next steps begin from the variables of `state`: after these were set."""
        ...

    def model_here(self) -> Any:
        """The model with its variables in this process: to save it, and to read and set its weights."""
        ...

    def notes(self) -> tuple[str, ...]:
        """What a user should know of the steps that were run, a sentence each."""
        ...
