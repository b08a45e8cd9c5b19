"""Keras's optimizers by name, and the learning rate of several replicas.

Source of the linear rule and its warm-up: Goyal et al. 2017, arXiv 1706.02677, section 2.1 and 2.2
"""

from __future__ import annotations

from typing import Any

from edgeloop.cloud.train.config.tables import OptimizerConfig, Precision, Scaling, Schedule
from edgeloop.errors import OptionsError, one_line
from edgeloop.extras import need
from edgeloop.settings import suggestion

NOT_ALONE = {"Optimizer", "LossScaleOptimizer", "MultiOptimizer"}  # the base class, and what wraps others


def make_optimizer(
    config: OptimizerConfig, precision: Precision, replicas: int, steps_per_epoch: int, epochs: int
) -> Any:
    """Keras's optimizer with its learning rate; under float16 wrapped in one that scales the loss.

    Raises:
        OptionsError: No such optimizer (the nearest is named), or options that it does not take.
    """
    keras = need("keras", extra="cloud")
    known = {
        name.lower(): value
        for name, value in vars(keras.optimizers).items()
        if isinstance(value, type) and issubclass(value, keras.optimizers.Optimizer) and name not in NOT_ALONE
    }
    kind = known.get(config.name.lower())
    if kind is None:
        raise OptionsError(f"the optimizer {config.name} is not known", advice=suggestion(config.name.lower(), known))
    rate = learning_rate(config, replicas, steps_per_epoch, epochs)
    try:
        made = kind(learning_rate=rate, **config.options)
    except (TypeError, ValueError) as e:
        raise OptionsError(
            f"the optimizer {config.name} refuses its options ({one_line(e)})",
            advice=f"Use the arguments of keras.optimizers.{kind.__name__} in [optimizer.options].",
        ) from e
    return keras.optimizers.LossScaleOptimizer(made) if precision == Precision.FLOAT16 else made


def learning_rate(config: OptimizerConfig, replicas: int, steps_per_epoch: int, epochs: int) -> Any:
    """A number, or a schedule of Keras where the rate changes."""
    scaled = config.learning_rate * replica_factor(config, replicas)
    warmup = round(config.warmup_epochs * steps_per_epoch) if scaled != config.learning_rate else 0
    if config.schedule == Schedule.CONSTANT and not warmup:
        return scaled
    # of a cosine that ends where it began (alpha 1) only the warm-up is left
    return need("keras", extra="cloud").optimizers.schedules.CosineDecay(
        initial_learning_rate=config.learning_rate if warmup else scaled,
        decay_steps=max(1, steps_per_epoch * epochs - warmup),
        alpha=1.0 if config.schedule == Schedule.CONSTANT else 0.0,
        warmup_target=scaled if warmup else None,
        warmup_steps=warmup,
    )


def current_rate(optimizer: Any) -> float:
    """The learning rate of the next step, also of an optimizer whose variables lie on several devices."""
    rate = optimizer.learning_rate
    return float(need("tensorflow", extra="cloud").convert_to_tensor(getattr(rate, "value", rate)))


def replica_factor(config: OptimizerConfig, replicas: int) -> int:
    """What the learning rate is multiplied by."""
    return replicas if config.scaling == Scaling.LINEAR else 1


def rate_rule(config: OptimizerConfig, replicas: int) -> str:
    """One sentence on what the learning rate does, for a person; empty where nothing happens to it."""
    if replicas == 1:
        return ""
    if config.scaling == Scaling.NONE:
        return f"The learning rate stays {config.learning_rate:g}, though {replicas} replicas share a step."
    scaled = f"{config.learning_rate * replicas:g}"
    why = f'as the batch is {replicas} times as large (linear rule; scaling = "none" turns it off).'
    if not config.warmup_epochs:
        return f"The learning rate is {scaled} instead of {config.learning_rate:g}, {why}"
    epochs = f"{config.warmup_epochs:g} epochs"
    return f"The learning rate grows from {config.learning_rate:g} to {scaled} within {epochs}, {why}"


def slots(optimizer: Any) -> dict[str, Any]:
    """Names to variables of what a built optimizer keeps, for a checkpoint."""
    return {f"optimizer/{k:04d}": variable.value for k, variable in enumerate(optimizer.variables)}
