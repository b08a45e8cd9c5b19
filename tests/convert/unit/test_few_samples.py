"""A few samples decide where all the others could not change the verdict, and nowhere else."""

import numpy as np

from edgeloop.bundle import Scheme
from edgeloop.convert.proof.few_samples import settled
from edgeloop.runtime.parity.compare import RunContext, compare, floor_of

ONES = np.ones((16, 100), np.float32)
CLASSES = np.tile(np.float32([0.55, 0.45]), (16, 1))


def is_settled(expected, got, scheme=Scheme.INT8, first=None, classifier=False):
    wanted, found = {"y": expected}, {} if got is None else {"y": got}
    floor = floor_of(scheme)
    rows = compare(RunContext("v", "litert", "1", "local"), floor, wanted, found, classifier=classifier)
    return settled(rows, floor, wanted, found, None if first is None else {"y": first})


def test_what_fails_or_is_missing_settles_nothing():
    assert is_settled(ONES, ONES)
    assert not is_settled(ONES, None)
    assert not is_settled(ONES, 2 * ONES)


def test_an_error_above_half_of_the_limit_may_be_above_the_limit_in_another_sample():
    for error, enough in ((4e-6, True), (8e-6, False)):  # 1e-5 is allowed; one value of 1,600 leaves 134 dB
        got = ONES.copy()
        got[3, 5] += error
        assert is_settled(ONES, got, Scheme.FLOAT32) is enough


def test_noise_beside_nothing_is_no_share_of_a_signal():
    assert not is_settled(0 * ONES, np.full_like(ONES, 0.01))


def test_another_class_is_settled_only_where_the_first_runtime_has_as_many():
    other = CLASSES.copy()
    other[7] = [0.45, 0.55]
    assert is_settled(CLASSES, CLASSES, classifier=True)
    assert is_settled(CLASSES, other, first=other, classifier=True)
    assert not is_settled(CLASSES, other, first=CLASSES, classifier=True)
    assert not is_settled(CLASSES, other, classifier=True)


def test_answers_of_a_size_of_their_own_are_compared_where_there_are_values():
    expected = np.full((16, 3), np.nan, np.float32)
    expected[:, :2] = 1.0
    assert is_settled(expected, expected[:, :2])
