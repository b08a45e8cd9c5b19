"""How gradients update variables on parameter servers, and what cannot be done there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeloop.cloud.train.servers.partitioned import table_parts
from edgeloop.cloud.train.servers.staleness import Apply, ParameterServerConfig, Updates
from edgeloop.errors import OptionsError
from edgeloop.extras import need

NOT_HERE = ("clipnorm", "global_clipnorm", "clipvalue", "weight_decay", "use_ema", "inner_optimizer")


def plain_updates(model: Any, optimizer: Any, config: ParameterServerConfig) -> Apply:
    """A function that updates the variables by gradients, the learning rate being multiplied by a factor.

    It calls the optimizer's update of one variable at a time: the whole `apply_gradients` runs only within
    `strategy.run`, and in no branch of a condition (TensorFlow 2.21, Keras 3.15).

    Raises:
        OptionsError: The optimizer does more than that update.
    """
    tf = need("tensorflow", extra="cloud")
    more = [name for name in NOT_HERE if getattr(optimizer, name, None)]
    if more:
        raise OptionsError(
            f"the optimizer has {', '.join(more)}, which parameter servers do without",
            advice="Leave it out of [optimizer], use [memory] precision = 'float32', or choose another strategy.",
        )
    variables = model.trainable_variables
    parts = table_parts(model)

    def apply(gradients: Sequence[Any], factor: Any) -> Sequence[Any]:
        rate = tf.cast(optimizer.learning_rate, tf.float32) * config.rate_factor * factor
        for gradient, variable in zip(gradients, variables, strict=False):
            optimizer.update_step(gradient, variable, rate)
        optimizer.iterations.value.assign_add(1)
        for gradient, part in zip(gradients[len(variables) :], parts, strict=True):
            change = gradient.values * (config.table_rate * config.rate_factor * factor)
            part.scatter_sub(tf.IndexedSlices(change, gradient.indices))
        return [variable.read_value() for variable in (*(v.value for v in variables), *parts)]

    return apply


def check_rounds(config: ParameterServerConfig, workers: int, found: Sequence[Any]) -> None:
    """Refuse synchronous rounds that cannot be."""
    if config.updates == Updates.SYNCHRONOUS and found:
        raise OptionsError(
            "partitioned embeddings have no synchronous rounds, which add up whole gradients",
            advice="Use [parameter-server] updates = 'asynchronous'.",
        )
    if config.backup_workers >= workers:
        raise OptionsError(
            f"[parameter-server] backup-workers is {config.backup_workers}, and the cluster has {workers} workers",
            advice="Leave one worker or more whose gradient counts.",
        )
