"""What a device's training step is made of: fewer multiplications, and operators in an order that spares the cache."""

import numpy as np
import pytest

from edgeloop.convert.training.toom_cook import matrices, transform, weighted_sum
from edgeloop.convert.training.update_order import update_order
from edgeloop.files.flatbuffer import Operator


@pytest.mark.parametrize(("m", "r"), [(3, 2), (2, 3), (2, 4), (2, 5)])
def test_m_outputs_of_r_taps_take_m_plus_r_minus_1_products(m, r):
    rng = np.random.default_rng(0)
    x, w = rng.random(m + r - 1), rng.random(r)
    at, g, bt = matrices(m, r)
    assert at.shape == (m, m + r - 1)
    want = [sum(w[i] * x[t + i] for i in range(r)) for t in range(m)]
    np.testing.assert_allclose(at @ ((g @ w) * (bt @ x)), want, atol=1e-12)  # in float64: 1e3 roundings of 1e-16


def test_two_outputs_of_three_taps_have_the_matrices_of_the_paper():
    # F(2,3) of arXiv:1509.09308 up to the signs and scales of its points; BT's rows by hand from 0, 1, -1, infinity
    at, _, bt = matrices(2, 3)
    np.testing.assert_array_equal(at, [[1, 1, 1, 0], [0, 1, -1, 1]])
    np.testing.assert_array_equal(abs(bt), [[1, 0, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 0, 1]])


@pytest.mark.parametrize("transposed", [False, True])
def test_sums_by_a_matrix_equal_its_product(transposed):
    for matrix in (*matrices(2, 5), *matrices(2, 4), np.array([[0.0, -2.0, -2.0], [-1.0, 3.0, 0.0]])):
        matrix = matrix.T if transposed else matrix
        parts = list(np.random.default_rng(1).random((matrix.shape[1], 4)))
        np.testing.assert_allclose(transform(matrix, parts), matrix @ np.stack(parts), atol=1e-12)


class Counted:
    """A number that counts the operations made of it."""

    made = 0

    def operation(self, other=None):
        Counted.made += 1
        return Counted()

    __add__ = __sub__ = __mul__ = __neg__ = operation


@pytest.mark.parametrize(
    ("row", "operations"),
    [([1, 1, -1], 2), ([2, -2, 2], 3), ([-1, 0, 0], 1), ([-1, 2, 0], 2), ([4, 4, 1, 0], 3)],  # a product for each size
)
def test_a_sum_takes_one_multiplication_for_each_size(row, operations):
    Counted.made = 0
    weighted_sum(np.array(row, float), [Counted()] * len(row))
    assert Counted.made == operations


def op(name, inputs, *outputs):
    return Operator(name=name, inputs=tuple(inputs), outputs=outputs)


# two layers, x -> h -> z, as the converter orders them: variables are read first and updated last. The tensors 10 and
# 20 are the variables' handles, 11 and 21 their values, 1 x, 3 h, 4 z, 6 the loss, 5 the gradient of h
STEP = [
    op("VAR_HANDLE", [], 10),
    op("READ_VARIABLE", [10], 11),
    op("VAR_HANDLE", [], 20),
    op("READ_VARIABLE", [20], 21),
    op("MUL", [1, 11], 3),  # forward
    op("MUL", [3, 21], 4),
    op("SUB", [4, 2], 6),  # loss
    op("MUL", [6, 21], 5),  # backward: of h
    op("MUL", [6, 3], 22),  # of the second variable
    op("MUL", [5, 1], 12),  # of the first
    op("SUB", [11, 12], 13),
    op("ASSIGN_VARIABLE", [10, 13]),
    op("SUB", [21, 22], 23),
    op("ASSIGN_VARIABLE", [20, 23]),
]


def test_a_variable_is_read_just_before_its_use_and_updated_once_nobody_needs_its_old_value():
    assert update_order(STEP, {6}) == [0, 1, 4, 2, 3, 5, 6, 8, 12, 13, 7, 9, 10, 11]


def valid(operators, order):
    """Whether every operator runs once, after what makes its inputs."""
    place = {i: n for n, i in enumerate(order)}
    made = {t: i for i, o in enumerate(operators) for t in o.outputs}
    return sorted(order) == list(range(len(operators))) and all(
        place[made[t]] < place[i] for i, o in enumerate(operators) for t in o.inputs if t in made
    )


def test_a_variable_that_is_read_again_after_its_update_still_has_the_new_value():
    # a batch normalization that is called twice in one model: the second call reads what the first one assigned
    operators = [
        op("VAR_HANDLE", [], 10),
        op("READ_VARIABLE", [10], 11),
        op("ADD", [11, 1], 12),
        op("ASSIGN_VARIABLE", [10, 12]),
        op("READ_VARIABLE", [10], 13),
        op("ADD", [13, 1], 14),
        op("ASSIGN_VARIABLE", [10, 14]),
        op("MUL", [1, 1], 2),
    ]
    order = update_order(operators, {2})
    assert valid(operators, order)
    assert [i for i in order if operators[i].name in ("READ_VARIABLE", "ASSIGN_VARIABLE")] == [1, 3, 4, 6]


def test_random_numbers_keep_their_order_and_variables_are_made_first():
    operators = [
        op("CALL_ONCE", []),
        op("RANDOM_UNIFORM", [1], 2),
        op("RANDOM_UNIFORM", [1], 3),
        op("VAR_HANDLE", [], 10),
        op("READ_VARIABLE", [10], 11),
        op("MUL", [3, 11], 4),  # leads to the update alone, as does its random number
        op("ASSIGN_VARIABLE", [10, 4]),
        op("MUL", [2, 2], 5),
    ]
    order = update_order(operators, {5})
    assert valid(operators, order)
    assert order.index(0) < order.index(3) and order.index(1) < order.index(2)


def test_a_long_chain_of_operators_is_no_deep_recursion():
    operators = [op("VAR_HANDLE", [], 0), op("READ_VARIABLE", [0], 1)]
    operators += [op("MUL", [i, i], i + 1) for i in range(1, 5000)]
    operators.append(op("ASSIGN_VARIABLE", [0, 5000]))
    assert update_order(operators, ()) == list(range(len(operators)))
