"""Whether labels can be compared with what the source answers, and what a user is told where not."""

from pathlib import Path

import numpy as np
import pytest

from edgeloop.bundle import Scheme, TensorSpec
from edgeloop.convert.labels import check_labels
from edgeloop.convert.proof.input_range import range_mismatch, scaled_twice
from edgeloop.convert.read_samples import LabelPolicy, read_samples
from edgeloop.convert.samples import Samples, as_calls, as_rows
from edgeloop.convert.search.metric import Metric, score, source_score
from edgeloop.errors import DataError
from edgeloop.runtime.parity.compare import RunContext, compare, floor_of, label_task
from edgeloop.runtime.parity.metrics import scores

FILE = Path("e.npz")
THREE = np.full((4, 3), 1 / 3, np.float32)


def labelled(labels, output=None):
    y = None if labels is None else np.asarray(labels)
    return Samples(inputs={"x": np.zeros((4, 1), np.float32)}, labels=y, label_output=output)


def test_labels_that_fit_are_not_mentioned():
    assert check_labels({"p": THREE}, labelled([0, 1, 2, 1]), FILE) is None
    assert check_labels({"p": THREE}, labelled(None), None) is None
    assert check_labels({"p": THREE[:, 0], "q": THREE}, labelled([0, 1, 2, 1], "q"), FILE) is None


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
        check_labels({"p": output}, labelled(labels), FILE)


def test_labels_of_a_model_with_several_outputs_are_said_to_be_unused():
    said = check_labels({"p": THREE, "q": THREE}, labelled(np.zeros(4)), FILE)
    assert said == (
        "The labels y of e.npz were not used: the model has 2 outputs. Name the array y/OUTPUT for one of: p, q."
    )
    assert "size of the output 'p' depends" in (check_labels({"p": THREE * np.nan}, labelled(np.zeros(4)), FILE) or "")
    with pytest.raises(
        DataError, match=r"labels y/r, and the model has no output 'r'\. Name the array y/OUTPUT for one of: p, q"
    ):
        check_labels({"p": THREE, "q": THREE}, labelled(np.zeros(4), "r"), FILE)


@pytest.mark.parametrize(
    ("output", "labels", "message"),
    [
        (THREE, [0, 1, 3, 2], r"the label 3, and the model has 3 classes, 0 to 2\. Save y as the numbers"),
        (THREE, [0, -1, 1, 2], r"the label -1, and the model has 3 classes, 0 to 2"),
        (THREE, [0, 255, 1, 2], r"the label 255, and the model has 3 classes, 0 to 2"),
        (np.tile(THREE[:, None], (1, 2, 1)), [[0, 7]] * 4, r"the label 7, and the model has 3 classes"),
        (np.tile(THREE[:, None], (1, 2, 1)), [[255, 255]] * 4, r"the label 255, and the model has 3 classes"),
        (THREE[:, :1], [-1, 1, 1, -1], r"the label -1, and the model answers probabilities from 0 to 1\. Save y as 0"),
        (THREE[:, :1], [0, 1, 255, 1], r"the label 255, and the model answers probabilities from 0 to 1"),
    ],
)
def test_a_label_that_no_class_of_the_model_has_is_named(output, labels, message):
    with pytest.raises(DataError, match=message):
        check_labels({"p": output}, labelled(labels), FILE)


@pytest.mark.parametrize(("output", "labels"), [([0.2, 0.9], [0.25, 0.75]), ([-0.5, 0.9], [-1, 1])])
def test_numbers_that_a_regression_predicts_are_no_classes(output, labels):
    assert check_labels({"p": np.float32(output)}, labelled(np.array(labels)), FILE) is None


def test_void_pixels_of_a_segmentation_do_not_count_and_it_is_said():
    output = np.zeros((2, 2, 2, 3), np.float32)
    output[..., 1] = 1.0
    labels = np.array([[[1, 1], [255, 0]], [[1, -1], [1, 1]]])
    said = check_labels({"p": output}, labelled(labels), FILE)
    assert said == "Of the labels y of e.npz, 25.0% are -1 and 255: they do not count."
    task = label_task({"p": output}, labels)
    assert task is not None and scores(task, output, labels).accuracy == pytest.approx(5 / 6)


def test_rows_and_labels_are_put_into_calls_of_the_models_own_batch_together():
    spec = [TensorSpec("x", (2, 3), "float32")]
    rows = Samples(inputs={"x": np.arange(9, dtype=np.float32).reshape(3, 3)}, labels=np.array([5, 6, 7]))
    calls = as_calls(rows, spec)
    assert calls.labels is not None and calls.labels.tolist() == [[5, 6], [7, 5]]  # filled up with the first
    assert calls.inputs["x"][1].tolist() == [[6, 7, 8], [0, 1, 2]]
    again = as_rows(calls, spec, FILE)
    assert again.labels is not None and again.labels.tolist() == [5, 6, 7, 5]


def test_labels_that_fit_no_row_are_refused_and_not_dropped():
    calls = Samples(inputs={"x": np.zeros((2, 4, 3), np.float32)}, labels=np.array([0, 1]))
    with pytest.raises(
        DataError, match=r"labels y \[2\] for 2 calls of 4 rows each\. Save y with a label for each row"
    ):
        as_rows(calls, [TensorSpec("x", (4, 3), "float32")], FILE)


@pytest.mark.parametrize(("name", "output"), [("y", None), ("y/score", "score")])
def test_labels_may_name_one_of_several_outputs(tmp_path, name, output):
    np.savez(tmp_path / "e.npz", x=np.zeros((3, 2), np.float32), **{name: np.array([1.5, 2.0, 0.0])})
    spec = [TensorSpec("x", (None, 2), "float32")]
    read = read_samples(tmp_path / "e.npz", spec, labels=LabelPolicy.IF_ANY)
    assert read.labels is not None and (read.labels.tolist(), read.label_output) == ([1.5, 2.0, 0.0], output)
    np.savez(tmp_path / "e.npz", x=np.zeros((3, 2), np.float32), **{"y/a": np.zeros(3), "y/b": np.zeros(3)})
    with pytest.raises(DataError, match=r"has the labels y/a, y/b\. Keep those of the output that matters most"):
        read_samples(tmp_path / "e.npz", spec, labels=LabelPolicy.IF_ANY)


def test_the_labelled_output_of_several_has_the_metrics_and_no_other():
    expected = {"embedding": np.ones((4, 5), np.float32), "score": np.array([1.0, 2.0, 3.0, 4.0], np.float32)}
    labels = np.array([1.0, 2.0, 3.0, 2.0])
    floor = floor_of(Scheme.FLOAT32, None)
    rows = compare(RunContext("v", "r"), floor, expected, expected, labels, label_output="score")
    assert [(row.output, row.rmse) for row in rows] == [("embedding", None), ("score", 1.0)]
    found = source_score(expected, labels, "score")
    assert (found.metric, found.value, score(rows, found.metric)) == (Metric.RMSE, 1.0, 1.0)


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


class Rescaling:
    name, scale = "rescaling", 1 / 255


class Model:
    inputs, layers = (None,), (Rescaling(),)


def test_a_range_before_a_model_that_scales_by_itself_is_told():
    assert scaled_twice(Model(), (0.0, 255.0)) == (
        "--input-range 0,255 scales to 0..1, and the model begins with Rescaling 'rescaling', which expects 0..255: "
        "the values are scaled twice. Leave --input-range out."
    )
    assert scaled_twice(Model(), None) is None and scaled_twice(None, (0.0, 255.0)) is None
