"""What is said of rounds that were measured."""

import re

import numpy as np
import pytest

from edgeloop.federated.rounds.evaluation import Evaluation, recall_by_class
from edgeloop.runtime.parity.metrics import Scores


@pytest.mark.parametrize(
    ("metric", "values", "best", "says"),
    [
        ("accuracy", [0.9, 0.92, 0.95], 2, "Round 2 is the best: accuracy 0.95; accuracy 0.9 before the first round."),
        ("accuracy", [0.9, 0.95, 0.92], 1, "Round 1 is the best: accuracy 0.95; .* round, 0.92 after the last."),
        ("accuracy", [0.9, 0.95, 0.95], 1, "Round 1 is the best"),
        ("accuracy", [0.9, 0.5, 0.7], 0, "Federation made the model worse: accuracy 0.9 before .* 0.7 after round 2."),
        ("rmse", [3.0, 2.0, 1.0], 2, "Round 2 is the best: rmse 1;"),
        ("rmse", [1.0, 2.0, 3.0], 0, "Federation made the model worse: rmse 1 before the first round, 3 after"),
    ],
)
def test_the_best_round_is_named_and_a_model_that_became_worse(metric, values, best, says):
    found = Evaluation(metric, {number: Scores(**{metric: value}) for number, value in enumerate(values)})
    assert found.best == best
    assert re.match(says, found.told())


@pytest.mark.parametrize("shape", [(5,), (5, 1)])
def test_each_class_has_the_share_of_its_samples_that_is_recognized(shape):
    answers = np.array([[0.9, 0.1, 0], [0.2, 0.8, 0], [0.6, 0.3, 0.1], [0.3, 0.7, 0], [0.8, 0.1, 0.1]], "f4")
    labels = np.array([0, 1, 1, 1, 0]).reshape(shape)
    assert recall_by_class(answers, labels) == [1.0, pytest.approx(2 / 3), None]  # 2 of 2, 2 of 3, none of class 2
