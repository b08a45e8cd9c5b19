"""What calibration adds up: means over batches, and how far two answers are apart."""

import math

import numpy as np

from edgeloop.convert.forms.bias import channel_means
from edgeloop.convert.forms.calibration import _snr_db


def test_a_batch_in_which_a_tensor_was_empty_takes_no_part_in_its_mean():
    boxes = np.float32([[2, 6], [4, 10]])
    batches = [(1, {0: boxes, 1: boxes}), (3, {0: boxes[:0], 1: boxes + 4})]
    means = channel_means(batches)
    assert means[0].tolist() == [3, 8]
    assert means[1].tolist() == [(3 + 3 * 7) / 4, (8 + 3 * 12) / 4]


def test_an_answer_of_nan_is_further_away_than_any_number():
    exact = np.float32([1, 2])
    assert _snr_db(exact, np.float32([1, math.nan])) == -math.inf < _snr_db(exact, np.float32([1e9, 1e9]))
    assert _snr_db(exact, np.float32([1, 1.5])) == 10 * math.log10(5 / 0.25)
