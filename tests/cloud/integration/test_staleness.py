"""What becomes of a stale gradient, by hand: one weight, and other workers that update it in the middle of a step."""

import pytest

from edgeloop.cloud.train.servers.staleness import ParameterServerConfig, Stale, asynchronous_step, make_counters

tf = pytest.importorskip("tensorflow")
GRADIENT, RATE = 2.0, 0.5


def one_step(stale, others, limit=1):
    """(weight after one step from 10, counters): `others` updates come between reading the weight and its update."""
    counters, weight = make_counters(), tf.Variable(10.0)

    def gradients_of(batch):
        with tf.control_dependencies([counters.applied.assign_add(others)]):
            return tf.constant(0.25), [tf.constant(GRADIENT)]

    def apply(gradients, factor):
        weight.assign_sub(RATE * factor * gradients[0])
        return [weight.read_value()]

    config = ParameterServerConfig(stale=stale, stale_limit=limit)
    step = tf.function(asynchronous_step(gradients_of, apply, counters, config))
    assert float(step(None)) == 0.25
    return float(weight), counters


# a fresh gradient: 10 - 0.5 * 2 = 9; three updates old: scaled 10 - 0.5 / (1 + 3) * 2 = 9.75; dropped 10
@pytest.mark.parametrize(
    ("stale", "others", "limit", "weight"),
    [
        (Stale.KEEP, 0, 1, 9.0),
        (Stale.KEEP, 3, 1, 9.0),
        (Stale.SCALE, 0, 1, 9.0),
        (Stale.SCALE, 3, 1, 9.75),
        (Stale.DROP, 1, 1, 9.0),
        (Stale.DROP, 3, 1, 10.0),
        (Stale.DROP, 3, 3, 9.0),
    ],
)
def test_a_stale_gradient_is_kept_scaled_or_dropped(stale, others, limit, weight):
    found, counters = one_step(stale, others, limit)
    assert found == weight
    assert counters.histogram() == {others: 1}
    assert int(counters.taken) == 1
    assert int(counters.applied) == others + (weight != 10.0)  # a dropped one makes no other gradient older


def test_very_old_gradients_are_counted_with_the_oldest():
    assert one_step(Stale.KEEP, 1000)[1].histogram() == {63: 1}
