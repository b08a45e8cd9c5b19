"""What layers count beside their weights (BatchNormalization's moving statistics), the same on every replica."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from edgeloop.extras import need

FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})


@contextlib.contextmanager
def scope_of(strategy: Any) -> Iterator[None]:
    """The strategy's scope, in which CentralStorage too lets replicas change what layers count beside their weights."""
    tf = need("tensorflow", extra="cloud")

    def create(create_variable: Callable[..., Any], **given: Any) -> Any:
        if not given.get("trainable", True) and given.get("aggregation") == tf.VariableAggregation.NONE:
            kinds = tf.VariableAggregation
            given["aggregation"] = kinds.MEAN if given["dtype"] in FLOATS else kinds.ONLY_FIRST_REPLICA
        return create_variable(**given)

    central = isinstance(strategy, tf.distribute.experimental.CentralStorageStrategy)
    with strategy.scope(), tf.variable_creator_scope(create) if central else contextlib.nullcontext():
        yield


def shared_statistics(strategy: Any, model: Any) -> Callable[[], None]:
    """A function that replaces every replica's statistics by their mean.

    Each replica counts the examples it sees. Before a model is evaluated or saved all must mean the same, and a
    training that resumes from a checkpoint must come to what an unbroken one comes to.
    """
    tf = need("tensorflow", extra="cloud")
    counted = [v.value for layer in model._flatten_layers() for v in layer._non_trainable_variables]
    counted = [variable for variable in counted if variable.dtype.is_floating]
    if strategy.num_replicas_in_sync == 1 or not counted:
        return lambda: None

    @tf.function
    def means() -> list[Any]:
        values = strategy.run(lambda: [tf.identity(variable) for variable in counted])
        return [strategy.reduce("MEAN", value, axis=None) for value in values]

    def share() -> None:
        for variable, value in zip(counted, means(), strict=True):
            variable.assign(value)

    return share
