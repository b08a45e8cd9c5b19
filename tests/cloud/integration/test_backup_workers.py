"""Synchronous rounds by hand: one weight, whose gradient is the batch itself."""

import pytest

from edgeloop.cloud.train.servers.backup_workers import (
    make_accumulator,
    mean_update,
    offered_gradient,
    wait_for_gradients,
)
from edgeloop.cloud.train.servers.server_updates import plain_updates
from edgeloop.cloud.train.servers.staleness import ParameterServerConfig, make_counters
from edgeloop.errors import DeviceError, OptionsError

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")


@pytest.fixture
def rounds():
    """(offer(gradient, round), update(required), weight, accumulator, counters)"""
    weight, counters = tf.Variable([10.0]), make_counters()
    accumulator = make_accumulator([weight], 0)

    def apply(gradients, factor):
        weight.assign_sub(factor * gradients[0])
        return [weight.read_value()]

    replica = tf.function(offered_gradient(lambda batch: (batch[0], [batch]), accumulator, counters))

    def offer(gradient, number):
        return float(replica(tf.constant([gradient]), tf.constant(number, tf.int64)))

    update = mean_update([weight], apply, accumulator)
    return offer, lambda required: update(tf.constant(required)), weight, accumulator, counters


def test_a_round_takes_the_mean_of_the_first_gradients_and_drops_those_that_come_late(rounds):
    offer, update, weight, accumulator, counters = rounds
    assert (offer(1.0, 0), offer(3.0, 0)) == (1.0, 3.0)
    wait_for_gradients(accumulator, 2, lambda: None, timeout_s=5)
    update(2)
    assert (float(weight[0]), int(accumulator.round)) == (8.0, 1)  # 10 - (1 + 3) / 2
    late = offer(100.0, 0)  # of the round that is over: not even computed
    assert late != late and (accumulator.count(), int(counters.late)) == (0, 1)
    offer(5.0, 1)
    update(1)
    assert float(weight[0]) == 3.0  # 8 - 5


def test_gradients_that_do_not_come_end_the_wait(rounds):
    offer, _, _, accumulator, _ = rounds
    offer(1.0, 0)
    with pytest.raises(DeviceError, match=r"1 of 2 gradients of a round came within 0\.01 s"):
        wait_for_gradients(accumulator, 2, lambda: None, timeout_s=0.01)


def one_weight(**options):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    optimizer = keras.optimizers.SGD(0.5, **options)
    optimizer.build(model.trainable_variables)
    return model, optimizer


@pytest.mark.parametrize(("rate_factor", "factor", "weight"), [(1.0, 1.0, 0.0), (0.5, 1.0, 0.5), (0.5, 0.25, 0.875)])
def test_the_rate_is_multiplied_by_the_option_and_by_the_factor_of_a_stale_gradient(rate_factor, factor, weight):
    model, optimizer = one_weight()
    apply = plain_updates(model, optimizer, ParameterServerConfig(rate_factor=rate_factor))
    tf.function(apply)([tf.constant([[2.0]])], tf.constant(factor))  # 1 - 0.5 * rate_factor * factor * 2
    assert float(model.trainable_variables[0][0, 0]) == weight
    assert int(optimizer.iterations) == 1


def test_an_optimizer_that_does_more_than_one_update_is_refused():
    model, optimizer = one_weight(clipnorm=1.0)
    with pytest.raises(OptionsError, match="the optimizer has clipnorm, which parameter servers do without"):
        plain_updates(model, optimizer, ParameterServerConfig())
