"""Synchronous rounds on parameter servers that do not wait for the slowest workers.

Each round schedules one gradient per worker. An accumulator on a parameter server takes those of this round; as soon as
it has enough of them, the coordinator updates the variables by their mean and begins the next round. The accumulator
drops a gradient of an earlier round, which comes too late.

Source: Chen et al. 2016, Revisiting Distributed Synchronous SGD, https://arxiv.org/abs/1604.00981, algorithms 3 and 4
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgeloop.cloud.train.servers.staleness import Apply, Counters
from edgeloop.errors import DeviceError
from edgeloop.extras import need

LOOK_S = 0.001


@dataclass(frozen=True, slots=True)
class Accumulator:
    """A mean of gradients on a parameter server, which takes a gradient whole or not at all.

    Attributes:
        handle: TensorFlow's resource.
        size: Numbers of one gradient, all variables one after the other.
        round: The round whose gradients are taken, an int64 variable.
    """

    handle: Any
    size: int
    round: Any

    def count(self) -> int:
        """Gradients of this round that have come."""
        return int(need("tensorflow", extra="cloud").raw_ops.ResourceAccumulatorNumAccumulated(handle=self.handle))


def make_accumulator(variables: Sequence[Any], begin: int) -> Accumulator:
    """A new one, within the strategy's scope; the first round is `begin`."""
    tf = need("tensorflow", extra="cloud")
    size = sum(variable.shape.num_elements() for variable in variables)
    number = tf.Variable(begin, dtype=tf.int64, trainable=False)
    with tf.device(number.device):
        handle = tf.raw_ops.ResourceConditionalAccumulator(
            dtype=tf.float32, shape=[size], container="", shared_name="", reduction_type="MEAN"
        )
        tf.raw_ops.ResourceAccumulatorSetGlobalStep(handle=handle, new_global_step=tf.constant(begin, tf.int64))
    return Accumulator(handle, size, number)


def offered_gradient(
    gradients_of: Callable[[Any], tuple[Any, Sequence[Any]]], accumulator: Accumulator, counters: Counters
) -> Callable[[Any, Any], Any]:
    """A function for `strategy.run` on one worker: a batch and the number of its round to the batch's loss; NaN where
    the round was over before it began."""
    tf = need("tensorflow", extra="cloud")

    def replica(batch: Any, number: Any) -> Any:
        def offer() -> Any:
            loss, gradients = gradients_of(batch)
            flat = tf.concat([tf.reshape(tf.convert_to_tensor(one), [-1]) for one in gradients], 0)
            with tf.control_dependencies([flat]):
                too_late = tf.cast(accumulator.round.read_value() > number, tf.int64)
            counters.late.assign_add(too_late)
            tf.raw_ops.ResourceAccumulatorApplyGradient(
                handle=accumulator.handle, local_step=number, gradient=tf.cast(flat, tf.float32)
            )
            counters.loss.assign(tf.cast(loss, tf.float32))
            return tf.cast(loss, tf.float32)

        def skip() -> Any:
            counters.late.assign_add(1)
            return tf.constant(float("nan"))

        return tf.cond(accumulator.round.read_value() > number, skip, offer)

    return replica


def mean_update(variables: Sequence[Any], apply: Apply, accumulator: Accumulator) -> Callable[[Any], None]:
    """A traced function of the coordinator: takes the mean of `required` gradients or more, updates the variables by
    it, and ends the round."""
    tf = need("tensorflow", extra="cloud")

    @tf.function
    def update(required: Any) -> None:
        flat = tf.raw_ops.ResourceAccumulatorTakeGradient(
            handle=accumulator.handle, num_required=required, dtype=tf.float32
        )
        flat = tf.ensure_shape(flat, [accumulator.size])
        sizes = [variable.shape.num_elements() for variable in variables]
        parts = zip(tf.split(flat, sizes), variables, strict=True)
        changed = apply([tf.reshape(part, variable.shape) for part, variable in parts], tf.constant(1.0))
        with tf.control_dependencies(changed):
            accumulator.round.assign_add(1)

    return update


def wait_for_gradients(accumulator: Accumulator, required: int, failed: Callable[[], None], timeout_s: float) -> None:
    """Until this round has `required` gradients. `failed` raises where the cluster lost what it cannot do without.

    Raises:
        DeviceError: They did not come within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while accumulator.count() < required:
        failed()
        if time.monotonic() > deadline:
            raise DeviceError(
                f"{accumulator.count()} of {required} gradients of a round came within {timeout_s:g} s",
                advice="Check the logs of the workers, or allow more time.",
            )
        time.sleep(LOOK_S)
