"""Soft targets by hand."""

import numpy as np
import pytest

from edgeloop.cloud.train.distill.soft_labels import check_width
from edgeloop.cloud.train.distill.targets import logits_of, soft_targets
from edgeloop.errors import DataError


def test_a_temperature_softens_logits_and_probabilities_alike():
    logits = np.array([[np.log(1.0), np.log(9.0)]])
    # softmax at T = 1: 0.1, 0.9; at T = 2: exp(z / 2) = 1, 3: 0.25, 0.75
    np.testing.assert_allclose(soft_targets([logits], 1), [[0.1, 0.9]], rtol=1e-6)
    np.testing.assert_allclose(soft_targets([logits], 2), [[0.25, 0.75]], rtol=1e-6)
    np.testing.assert_allclose(soft_targets([np.array([[0.1, 0.9]])], 2), [[0.25, 0.75]], rtol=1e-6)


def test_several_teachers_are_averaged_after_softening():
    # softened by 2: (0.25, 0.75) and (0.5, 0.5)
    teachers = [np.array([[0.1, 0.9]]), np.array([[5.0, 5.0]])]
    np.testing.assert_allclose(soft_targets(teachers, 2), [[0.375, 0.625]], rtol=1e-6)


def test_a_probability_of_zero_gives_a_finite_logit():
    assert logits_of(np.array([[0.0, 1.0]])).tolist() == [[np.log(1e-7), 0.0]]


def test_a_teacher_that_is_sure_still_tells_wrong_classes_apart():
    sure = np.array([[1.0, 1e-12, 1e-20], [1.0, 0.0, 1e-8]])
    softened = soft_targets([sure], 4)
    assert softened[0, 1] / softened[0, 2] == pytest.approx(1e8**0.25, rel=1e-5)  # 100
    assert softened[1, 2] / softened[1, 1] == pytest.approx(1e12**0.25, rel=1e-5)  # 0 counts as the smallest: 1e-20


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        (np.zeros((3, 1)), r"the shape \[3, 1\]"),
        (np.zeros((3, 4, 2)), r"the shape \[3, 4, 2\]"),
        (np.array([[np.nan, 1.0]]), "NaN or infinity"),
    ],
)
def test_answers_that_are_no_classes_are_refused(outputs, words):
    with pytest.raises(DataError, match=words):
        soft_targets([outputs], 1)


def test_teachers_of_different_classes_are_refused():
    with pytest.raises(DataError, match="know 2 and 3 classes"):
        soft_targets([np.zeros((1, 2)), np.zeros((1, 3))], 1)


@pytest.mark.parametrize(("classes", "outputs"), [(10, 5), (2, 1), (1, 1)])
def test_soft_targets_of_other_classes_than_the_student_tells_apart_are_refused(tmp_path, classes, outputs):
    np.save(tmp_path / "targets.npy", np.zeros((3, classes), np.float32))
    with pytest.raises(DataError, match=rf"shape \[3, {classes}\], and the student has {outputs} output"):
        check_width(tmp_path / "targets.npy", outputs)
    np.save(tmp_path / "fit.npy", np.zeros((3, 5), np.float32))
    check_width(tmp_path / "fit.npy", 5)
