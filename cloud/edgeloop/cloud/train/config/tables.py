"""The tables of `train.toml` that say what to train and how; the others stand beside what they are for."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeloop.errors import OptionsError
from edgeloop.quantities import above_zero, at_least


class Loss(enum.StrEnum):
    """What a step lowers; AUTO takes the first that fits the labels and the model's outputs."""

    AUTO = "auto"
    SPARSE_CATEGORICAL_CROSSENTROPY = "sparse-categorical-crossentropy"
    BINARY_CROSSENTROPY = "binary-crossentropy"
    MEAN_SQUARED_ERROR = "mean-squared-error"
    MEAN_ABSOLUTE_ERROR = "mean-absolute-error"
    HUBER = "huber"


class Schedule(enum.StrEnum):
    """How the learning rate goes on after its warm-up."""

    CONSTANT = "constant"
    COSINE = "cosine"  # to 0 at the last step


class Scaling(enum.StrEnum):
    """What several replicas do to the learning rate."""

    LINEAR = "linear"  # times the number of replicas, reached by a warm-up: Goyal et al. 2017, arXiv 1706.02677
    NONE = "none"


class Precision(enum.StrEnum):
    """What layers compute in; weights, the last layer and the saved model stay float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"  # with dynamic loss scaling


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Which model.

    Attributes:
        name: A built-in one, a class of keras.applications, a .keras file, or package.module:function.
        weights: Weights to load into it: .weights.h5, .h5 or .keras.
        options: Given to what builds the model.
        warm_start: A bundle, a run folder, a .keras file, or federated weights (.npz) to start from.
    """

    name: str = "small-cnn"
    weights: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    warm_start: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """How weights change.

    Attributes:
        name: As Keras calls it, e.g. `adam`, `sgd`, `adamw`.
        learning_rate: For one replica.
        scaling: What several replicas do to it.
        warmup_epochs: Over which a scaled rate is reached, in equal steps. 5 as in Goyal et al.
        options: Given to Keras's class, e.g. `momentum = 0.9`.
    """

    name: str = "adam"
    learning_rate: float = 1e-3
    schedule: Schedule = Schedule.CONSTANT
    scaling: Scaling = Scaling.LINEAR
    warmup_epochs: float = 5.0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        above_zero(self.learning_rate, "[optimizer] learning-rate")
        if not self.warmup_epochs >= 0:
            raise OptionsError(f"[optimizer] warmup-epochs is {self.warmup_epochs:g}", advice="It must be 0 or more.")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopConfig:
    """How long, and by what measure.

    Attributes:
        epochs: Passes over the training data, at most.
        from_logits: Whether the model's outputs are logits. None: unless its last layer is a softmax or sigmoid.
        patience: Epochs without a lower validation loss after which training stops; 0: never.
        seed: Of the initial weights, of every shuffle and of every random layer.
        steps_per_call: Steps of one call of the traced function; 8 take 0.7 to 0.8 of the time of single ones.
        deterministic: Whether TensorFlow may use no operation whose result differs from run to run.
    """

    epochs: int = 20
    loss: Loss = Loss.AUTO
    from_logits: bool | None = None
    patience: int = 5
    seed: int = 0
    steps_per_call: int = 8
    deterministic: bool = True

    def __post_init__(self) -> None:
        at_least(self.epochs, 1, "[loop] epochs")
        at_least(self.patience, 0, "[loop] patience")
        at_least(self.seed, 0, "[loop] seed")
        at_least(self.steps_per_call, 1, "[loop] steps-per-call")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryConfig:
    """What makes a step smaller, for the same result.

    Attributes:
        accumulate: Parts that a replica's batch is computed in, one after the other; their gradients are added.
        recompute: Whether the backward pass computes activations again instead of keeping them.
    """

    accumulate: int = 1
    precision: Precision = Precision.FLOAT32
    recompute: bool = False

    def __post_init__(self) -> None:
        at_least(self.accumulate, 1, "[memory] accumulate")


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbacksConfig:
    """Functions of the user, each `package.module:function`.

    Attributes:
        epoch: Called after every epoch with its record and the model.
    """

    epoch: tuple[str, ...] = ()
