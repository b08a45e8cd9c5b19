"""One training step under `strategy.run`, for every synchronous strategy.

The step is our own because `fit` of Keras 3 fails under MultiWorkerMirrored and ParameterServer (TensorFlow 2.21).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgeloop.cloud.train.config.tables import MemoryConfig
from edgeloop.cloud.train.step.memory import forward_pass
from edgeloop.cloud.train.step.objective import Objective
from edgeloop.extras import need

Step = Callable[[Any, Any], tuple[Any, Any]]


def gradients_of(
    model: Any, optimizer: Any, objective: Objective, memory: MemoryConfig, batch: int, tables: Sequence[Any] = ()
) -> Callable[[Any], tuple[Any, list[Any]]]:
    """A function of one replica's (features, labels) to its part of the loss and the gradients of the trainable
    variables, then of `tables`, variables that Keras does not know of.

    Args:
        batch: Examples of one step over all replicas: gradients of the replicas are added up.
    """
    tf = need("tensorflow", extra="cloud")
    variables = [*(variable.value for variable in model.trainable_variables), *tables]
    scale = getattr(optimizer, "scale_loss", lambda loss: loss)
    forward, parts = forward_pass(model, memory), memory.accumulate

    def part(features: Any, labels: Any) -> tuple[Any, list[Any]]:
        with tf.GradientTape() as tape:
            outputs = forward(features)
            loss = tf.nn.compute_average_loss(objective.losses(labels, outputs), global_batch_size=batch)
            if model.losses:  # regularization, once for all replicas and parts
                loss += tf.nn.scale_regularization_loss(tf.add_n(model.losses)) / parts
            scaled = scale(loss)
        return loss, tape.gradient(scaled, variables)

    def added(item: tuple[Any, Any]) -> tuple[Any, list[Any]]:
        """The sums over all parts, one part after the other in the graph."""
        split = tf.nest.map_structure(lambda t: tf.reshape(t, [parts, -1, *t.shape[1:]]), item)
        loss, gradients = tf.constant(0.0), [tf.zeros_like(variable) for variable in variables]
        for k in tf.range(parts):
            one, more = part(*tf.nest.map_structure(lambda t, k=k: t[k], split))
            loss += one
            gradients = [a if b is None else a + b for a, b in zip(gradients, more, strict=True)]
        return loss, gradients

    return (lambda item: part(*item)) if parts == 1 else added


def gradient_step(
    model: Any, optimizer: Any, objective: Objective, memory: MemoryConfig, batch: int
) -> Callable[[Any], Any]:
    """A function for `strategy.run`: one replica's (features, labels) to its part of the loss; updates the weights.

    Args:
        batch: As of `gradients_of`.
    """
    of = gradients_of(model, optimizer, objective, memory, batch)

    def replica(item: tuple[Any, Any]) -> Any:
        loss, gradients = of(item)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    return replica


def traced_steps(
    strategy: Any, replica: Callable[[Any], Any], per_call: int = 0, clock: Callable[[], Any] | None = None
) -> Step:
    """(iterator, n) to the losses of n steps [n] and the seconds that they waited for their batches.

    All n are one call of one traced function, so that Python is asked once for all of them.

    Args:
        per_call: 1: n is always 1, and no loop is traced, which takes 0.07 of a small step. Else n may be any number.
        clock: Seconds, as a tensor. None: TensorFlow's, which refuses where its operations must be deterministic.
    """
    tf = need("tensorflow", extra="cloud")
    clock = tf.timestamp if clock is None else clock

    def one(iterator: Any) -> tuple[Any, Any]:
        asked = clock()
        with tf.control_dependencies([asked]):
            item = next(iterator)
        with tf.control_dependencies(tf.nest.flatten(item, expand_composites=True)):
            waited = clock() - asked
        return strategy.reduce("SUM", strategy.run(replica, args=(item,)), axis=None), waited

    @tf.function
    def single(iterator: Any, count: Any) -> tuple[Any, Any]:
        loss, waited = one(iterator)
        return loss[None], waited

    @tf.function
    def several(iterator: Any, count: Any) -> tuple[Any, Any]:
        losses, waited = tf.TensorArray(tf.float32, size=count), tf.constant(0.0, tf.float64)
        for k in tf.range(count):
            tf.autograph.experimental.set_loop_options(parallel_iterations=1)
            loss, more = one(iterator)
            losses, waited = losses.write(k, loss), waited + more
        return losses.stack(), waited

    return single if per_call == 1 else several
