"""What the losses and scores of epochs say, by hand."""

import pytest

from edgeloop.cloud.train.study.learning_curve import earliest_as_good, projected_loss


def test_a_loss_that_falls_as_a_power_of_the_epochs_is_projected_to_the_last_one():
    losses = [0.1 + 0.8 / epoch for epoch in range(1, 9)]
    assert projected_loss(losses, 80) == pytest.approx(0.11, rel=1e-6)  # 0.1 + 0.8 / 80


def test_a_loss_that_rises_again_is_projected_to_its_lowest():
    assert projected_loss([1.0, 0.5, 0.4, 0.5, 0.6, 0.7], 100) == 0.4


def test_three_epochs_project_nothing():
    assert projected_loss([1.0, 0.5, 0.4], 100) is None


def test_an_epoch_within_one_standard_error_of_the_best_is_as_good():
    # best 0.90 of 900: error sqrt(0.9 * 0.1 / 900) = 0.01, so 0.89 and above is as good
    assert earliest_as_good([0.5, 0.885, 0.892, 0.9, 0.89], 900) == 3
    assert earliest_as_good([0.5, 0.885, 0.892, 0.9, 0.89], 90_000) == 4
