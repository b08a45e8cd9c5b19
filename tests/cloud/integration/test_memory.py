"""What makes a step smaller comes to the weights of the plain step, within the bounds beside each case."""

import numpy as np
import pytest

from edgeloop.cloud.train.config.tables import Loss, MemoryConfig, Precision
from edgeloop.cloud.train.step.memory import blocks_of

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")
BATCH, STEPS = 64, 12
X = np.random.default_rng(0).normal(size=(512, 8, 8, 3)).astype(np.float32)
Y = X.mean((1, 2)).argmax(1)


def net(normalized=False):
    """Convolutions with a skip; with `normalized`, batch normalization and dropout between them."""
    layers = keras.layers
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    first = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    second = layers.BatchNormalization()(first) if normalized else first
    second = layers.Conv2D(8, 3, padding="same", activation="relu")(second)
    added = layers.Add()([first, second])
    added = layers.Dropout(0.5, seed=3)(added) if normalized else added
    hidden = layers.Dense(16, activation="relu")(layers.GlobalAveragePooling2D()(added))
    return keras.Model(image, layers.Dense(3, activation="softmax")(hidden))


def trained(model, steps=STEPS, **memory):
    """(losses of the steps, weights after them)"""
    from edgeloop.cloud.train.step.objective import make_objective
    from edgeloop.cloud.train.step.step import gradient_step, traced_steps

    memory = MemoryConfig(**memory)
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    if memory.precision == Precision.FLOAT16:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    objective = make_objective(Loss.SPARSE_CATEGORICAL_CROSSENTROPY, from_logits=False)
    step = traced_steps(
        tf.distribute.OneDeviceStrategy("/cpu:0"), gradient_step(model, optimizer, objective, memory, BATCH)
    )
    batches = tf.data.Dataset.from_tensor_slices((X, Y)).batch(BATCH).repeat()
    losses, _ = step(iter(batches), tf.constant(steps))
    return losses.numpy(), model.get_weights()


@pytest.fixture(scope="module")
def plain():
    return trained(net())


@pytest.mark.parametrize(
    "memory", [{"accumulate": 4}, {"recompute": True}, {"accumulate": 2, "recompute": True}], ids=str
)
def test_parts_and_recomputation_change_no_more_than_the_order_of_sums(plain, memory):
    losses, weights = trained(net(), **memory)
    # four sums in another order: some float32 roundings (6e-8) a step; over 40 steps 1.3e-6 were measured
    np.testing.assert_allclose(losses, plain[0], rtol=0, atol=1e-6)
    for a, b in zip(weights, plain[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6)


def test_statistics_and_random_numbers_are_used_once_a_step_under_recomputation():
    one, other = trained(net(True)), trained(net(True), recompute=True)
    for a, b in zip(one[1], other[1], strict=True):  # moving statistics among them
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6)
    assert [again for *_, again in blocks_of(net(True))].count(False) == 2  # around the two layers that keep a state


def test_a_penalty_on_weights_counts_once_however_a_batch_is_divided(plain):
    def penalized():
        model = net()
        model.layers[-2].kernel.regularizer = keras.regularizers.L2(0.1)
        return model

    penalty = 0.1 * np.square(net().layers[-2].kernel.numpy()).sum()
    for memory in ({}, {"accumulate": 4}):
        losses, _ = trained(penalized(), steps=1, **memory)
        assert losses[0] - plain[0][0] == pytest.approx(penalty, rel=1e-5)


def test_recomputation_runs_layers_of_a_block_again_in_the_backward_pass():
    def convolutions(**memory):
        from edgeloop.cloud.train.step.objective import make_objective
        from edgeloop.cloud.train.step.step import gradients_of

        objective = make_objective(Loss.SPARSE_CATEGORICAL_CROSSENTROPY, from_logits=False)
        of = gradients_of(net(), None, objective, MemoryConfig(**memory), BATCH)
        graph = tf.function(of).get_concrete_function((tf.constant(X[:BATCH]), tf.constant(Y[:BATCH]))).graph
        return [op.type for op in graph.get_operations()].count("Conv2D")

    assert (convolutions(), convolutions(recompute=True)) == (2, 4)


@pytest.mark.parametrize(("precision", "bound"), [(Precision.BFLOAT16, 0.03), (Precision.FLOAT16, 0.01)])
def test_sixteen_bits_change_the_first_update_by_their_precision_and_leave_a_float32_model(precision, bound):
    """8 and 11 bits of mantissa: 4e-3 and 5e-4 each rounding; 2.4e-2 and 5.6e-3 of the update were measured."""
    begin, model = net().get_weights(), net()
    _, exact = trained(net(), steps=1)
    _, weights = trained(model, steps=1, precision=precision)
    updates = [
        np.concatenate([(b - a).ravel() for a, b in zip(begin, after, strict=True)]) for after in (exact, weights)
    ]
    away = np.linalg.norm(updates[1] - updates[0]) / np.linalg.norm(updates[0])
    assert 1e-5 < away < bound  # above 0: the layers did compute in 16 bits
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
