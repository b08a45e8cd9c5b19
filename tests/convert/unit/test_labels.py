"""Whether labels can be compared with what the source answers, and what a user is told where not."""

from pathlib import Path

import numpy as np
import pytest

from edgeloop.bundle import TensorSpec
from edgeloop.convert.labels import check_labels
from edgeloop.convert.proof.input_range import range_mismatch
from edgeloop.convert.samples import Samples
from edgeloop.errors import DataError

FILE = Path("e.npz")
THREE = np.full((4, 3), 1 / 3, np.float32)


def test_labels_that_fit_are_not_mentioned():
    assert check_labels({"p": THREE}, np.array([0, 1, 2, 1]), FILE) is None
    assert check_labels({"p": THREE}, None, None) is None


@pytest.mark.parametrize(
    ("output", "labels", "message"),
    [
        (
            THREE,
            [0.5, 1, 2, 3],
            r"y of float64 \[4\], and the model answers \[4, 3\] in 'p'. Save y as class numbers \[4\] or",
        ),
        (
            THREE[:, :1],
            [[1, 2]] * 4,
            r"and the model answers \[4, 1\] in 'p'. Save y as numbers \[4, 1\], or leave y out",
        ),
    ],
)
def test_labels_that_do_not_fit_are_refused_with_the_shapes_that_do(output, labels, message):
    with pytest.raises(DataError, match=message):
        check_labels({"p": output}, np.asarray(labels), FILE)


def test_labels_of_a_model_with_several_outputs_are_said_to_be_unused():
    said = check_labels({"p": THREE, "q": THREE}, np.zeros(4), FILE)
    assert said == "The labels y of e.npz were not used: the model has 2 outputs."
    assert "size of the output 'p' depends" in (check_labels({"p": THREE * np.nan}, np.zeros(4), FILE) or "")


def test_a_sigmoid_output_tells_by_its_labels_that_inputs_are_scaled_by_255():
    rng = np.random.default_rng(0)
    x = rng.random((200, 3)).astype(np.float32)
    y = (x.sum(1) > 1.5).astype(np.int64)
    spec = [TensorSpec("x", (None, 3), "float32")]

    def call(inputs):  # was trained on 0..255
        return {"p": 1 / (1 + np.exp(-(inputs["x"].sum(1, keepdims=True) - 382.5) / 20))}

    given = Samples(inputs={"x": x}, labels=y)
    found = range_mismatch(call, spec, None, given)
    assert found is not None and "after x * 255" in str(found)
    right = Samples(inputs={"x": x * 255}, labels=y)
    assert range_mismatch(call, spec, None, right) is None
    numbers = Samples(inputs={"x": x}, labels=y + 0.25)  # no accuracy to tell by
    assert range_mismatch(call, spec, None, numbers) is None
