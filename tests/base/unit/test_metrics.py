"""What labels mean, and how good answers are by them: every figure by hand."""

from dataclasses import asdict

import numpy as np
import pytest

from edgeloop.bundle import Scheme
from edgeloop.runtime.parity.compare import Parity, RunContext, compare, floor_of, label_task
from edgeloop.runtime.parity.metrics import Scores, Task, auc, scores, task_of

THREE = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.5, 0.3]], np.float32)
HERE = RunContext("v", "r")
P = np.array([[0.9], [0.4], [0.6], [0.2]], np.float32)


@pytest.mark.parametrize(
    ("output", "labels", "task"),
    [
        (THREE, [0, 1, 2], Task.CLASSES),
        (THREE, [0.0, 1.0, 2.0], Task.CLASSES),  # classes out of a table of floats
        (THREE, [[0], [1], [2]], Task.CLASSES),
        (THREE, np.eye(3), Task.CLASSES),  # one-hot
        (THREE * 9, [0, 1, 2], Task.LOGITS),
        (THREE[:, None, None], [0, 1, 2], Task.CLASSES),  # [n, 1, 1, classes]
        (np.stack([THREE, THREE]), [[0, 1, 2], [2, 1, 0]], Task.CLASSES),  # a class at every position
        (np.array([2, 0]), [2, 1], Task.CLASS_NUMBERS),
        (P, [1, 0, 0, 1], Task.YES_OR_NO),
        (P[:, 0], [[1.0], [0.0], [0.0], [1.0]], Task.YES_OR_NO),
        (P, np.array([True, False, False, True]), Task.YES_OR_NO),
        (THREE, [[1, 1, 0], [0, 0, 0], [1, 0, 1]], Task.YES_OR_NO),  # several labels at once
        (P * 9 - 3, [1, 0, 0, 1], Task.RANKING),
        (P, [0.5, 1.5, -2.0, 0.0], Task.NUMBERS),
        (P, [3, 1, 4, 1], Task.NUMBERS),  # whole numbers of one output are amounts
        (THREE, THREE + 1, Task.NUMBERS),
        (THREE, [0.5, 1.5, 2.5], None),
        (THREE, [0, 1], None),
        (THREE, [[0, 1], [1, 0], [1, 1]], None),
        (np.full((2, 1), np.nan), [1.5, 2.5], None),  # filled up where sizes depend on the values
    ],
)
def test_labels_mean_what_their_values_and_the_answers_shape_say(output, labels, task):
    assert task_of(np.asarray(output), np.asarray(labels)) is task


def test_numbers_have_their_mean_error_its_root_mean_square_and_r2():
    # errors 1, -1, 2, 0: MAE 4/4, RMSE sqrt(6/4); labels 1, 3, 5, 7 lie 9 + 1 + 1 + 9 = 20 around 4: R2 1 - 6/20
    y, out = np.array([1.0, 3.0, 5.0, 7.0]), np.array([[2.0], [2.0], [7.0], [7.0]], np.float32)
    for labels in (y, y[:, None], y.astype(np.int32)):
        found = scores(task_of(out, labels), out, labels)
        assert found == Scores(mae=1.0, rmse=pytest.approx(1.5**0.5), r2=pytest.approx(0.7))
    assert found.metric == "rmse"


def test_of_several_numbers_a_sample_r2_is_the_mean_over_those_that_vary():
    # errors (1, 0, 0), (-1, 2, 0). Column 1: 2 around 0 of labels +-2, 1 - 2/8; column 2: 1 - 4/2; column 3 is constant
    y = np.array([[2.0, 5.0, 3.0], [-2.0, 7.0, 3.0]])
    found = scores(Task.NUMBERS, y + np.array([[1, 0, 0], [-1, 2, 0]]), y)
    assert (found.mae, found.rmse, found.r2) == (4 / 6, 1.0, pytest.approx((0.75 - 1) / 2))
    assert scores(Task.NUMBERS, y[:1] + 1, y[:1]) == Scores(mae=1.0, rmse=1.0, r2=None)


def test_auc_counts_pairs_and_ties_as_half():
    # yes at .9 .6 .6, no at .6 .4 .1: of 9 pairs .9 wins 3; each .6 ties once and wins twice: (3 + 2.5 + 2.5) / 9
    values, y = np.array([0.9, 0.6, 0.6, 0.6, 0.4, 0.1]), np.array([1, 1, 1, 0, 0, 0])
    order = np.array([3, 0, 5, 1, 4, 2])
    assert auc(values[order], y[order] == 1) == pytest.approx(8 / 9)
    assert auc(-values, y == 1) == pytest.approx(1 / 9)
    assert auc(np.zeros(6), y == 1) == 0.5
    assert auc(values, y == 2) is None and auc(values, y >= 0) is None


def test_auc_is_the_share_of_pairs_by_trying_all():
    rng = np.random.default_rng(1)
    values, y = np.round(rng.normal(size=200), 1), rng.random(200) < 0.3  # rounded: many ties
    yes, no = values[y][:, None], values[~y][None]
    assert auc(values, y) == pytest.approx(float(np.mean((yes > no) + 0.5 * (yes == no))))


def test_a_probability_is_right_on_its_labels_side_of_a_half_and_has_an_auc():
    # right: .9 yes, .4 no; pairs of yes .9 .2 over no .4 .6: 2 of 4
    assert scores(Task.YES_OR_NO, P, np.array([1, 0, 0, 1])) == Scores(accuracy=0.5, auc=0.5)
    assert scores(Task.YES_OR_NO, np.array([[0.5]]), np.array([0])).accuracy == 1.0  # a half is no yes


def test_a_score_without_a_threshold_has_an_auc_alone():
    found = scores(Task.RANKING, np.array([[10.0], [400.0], [30.0]]), np.array([0, 1, 1]))
    assert found == Scores(auc=1.0) and found.metric == "auc"


def test_two_classes_have_the_auc_of_the_second():
    y = np.array([1, 0, 0, 1])
    both = np.concatenate([1 - P, P], 1)
    assert scores(Task.CLASSES, both, y) == Scores(accuracy=0.5, auc=0.5)
    assert scores(Task.LOGITS, np.array([[0.0, 1.0], [5.0, 5.5], [3.0, 0.0], [-2.0, 1.0]]), y) == Scores(0.75, auc=1.0)


def test_labels_of_one_kind_alone_have_no_auc():
    assert scores(Task.YES_OR_NO, P, np.zeros(4)) == Scores(accuracy=0.5)
    # of several labels at once, the mean over those that have both kinds: .9 over .1, and (.4 over .4) a half
    out, y = np.array([[0.9, 0.4, 0.2], [0.1, 0.4, 0.7]]), np.array([[1, 1, 0], [0, 0, 0]])
    assert scores(Task.YES_OR_NO, out, y) == Scores(accuracy=4 / 6, auc=0.75)


def test_more_than_ten_classes_have_a_top_5_in_which_the_first_of_equals_comes_first():
    out = np.tile(np.arange(11, 0, -1) / 66, (4, 1))  # class 0 is the most probable
    found = scores(Task.CLASSES, out, np.array([0, 4, 5, 10]))
    assert (found.accuracy, found.top5) == (0.25, 0.5)
    equal = np.full((2, 11), 1 / 11)
    assert scores(Task.CLASSES, equal, np.array([4, 5])).top5 == 0.5
    assert scores(Task.CLASSES, out[:, 1:], np.array([0, 4, 5, 9])).top5 is None
    assert scores(Task.CLASSES, out[:2], np.array([11, -1])) == Scores()  # labels of no class do not count


def test_a_class_at_every_position_and_one_hot_labels_count_like_numbers():
    y = np.array([0, 1, 2])
    assert scores(Task.CLASSES, THREE, np.eye(3)[y]) == scores(Task.CLASSES, THREE, y) == Scores(accuracy=2 / 3)
    assert scores(Task.CLASSES, THREE[None], y[None]) == Scores(accuracy=2 / 3)


def test_the_sources_answers_say_what_a_variants_answers_are():
    # the variant leaves 0..1 by a hair, and its answers stay probabilities
    answers = P + np.array([[0.2], [0], [0], [-0.3]])
    (row,) = compare(HERE, floor_of(Scheme.INT8), {"p": P}, {"p": answers}, np.array([1, 0, 0, 1]))
    assert (row.accuracy, row.auc, row.rmse) == (0.5, 0.5, None)


def test_labels_are_for_the_only_output():
    assert label_task({"a": P, "b": P}, np.array([1, 0, 0, 1])) is None and label_task({"a": P}, None) is None
    rows = compare(HERE, floor_of(Scheme.INT8), {"a": P, "b": P}, {"a": P, "b": P}, np.array([1, 0, 0, 1]))
    assert {row.accuracy for row in rows} == {None}


def test_a_record_from_before_these_metrics_is_still_read():
    (row,) = compare(HERE, floor_of(Scheme.INT8), {"p": P}, {"p": P})
    old = {name: value for name, value in asdict(row).items() if name not in ("top5", "auc", "mae", "rmse", "r2")}
    assert Parity(**old) == row
