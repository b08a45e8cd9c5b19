"""What the first axis of a model means, and the answers of single calls joined."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeloop.bundle import Scheme, TensorSpec
from edgeloop.convert.answers import answers, made_up_sizes, quiet_outputs, with_seen_shapes
from edgeloop.convert.calls import NotBatchedError, has_batch_axis, in_batches
from edgeloop.convert.read_samples import read_samples
from edgeloop.convert.samples import Samples, as_calls, synthetic
from edgeloop.convert.sources.source import Source, SourceKind
from edgeloop.errors import DataError, ModelError
from edgeloop.runtime.parity.answers import stacked
from edgeloop.runtime.parity.compare import FLOORS, RunContext, compare
from edgeloop.runtime.parity.self_check import Reference, self_check

STATE = (TensorSpec("x", (1, 3), "float32"), TensorSpec("state", (2, 1, 3), "float32"))
FREE = (TensorSpec("x", (None, 3), "float32"),)
Y = (TensorSpec("y", (None, 3), "float32"),)
WHERE = RunContext("float32", "litert")


def source(call, inputs=FREE, outputs=Y):
    def run(arrays):
        return {"y": call(**arrays)}

    return Source(
        path=Path("m"), kind=SourceKind.SAVEDMODEL, sha256="", signature="f", inputs=inputs, outputs=outputs, call=run
    )


@pytest.mark.parametrize(
    "call, expected",
    [
        (lambda x: x * 2, True),
        (lambda x: np.cumsum(x, 0), False),
        (lambda x: np.cumsum(x[::-1], 0)[::-1], False),
        (lambda x: x - x.mean(0), False),
        (lambda x: x.sum(), False),
        (lambda x: x[x[:, 0] > 0.5], False),
    ],
    ids=["rows", "running sum", "from behind", "minus the mean", "scalar", "kept rows"],
)
def test_a_free_first_axis_is_a_batch_where_no_row_depends_on_another(call, expected):
    assert has_batch_axis(source(call)) is expected


@pytest.mark.parametrize(
    "shapes, expected",
    [
        ([(None, 3), (None, 5)], True),
        ([(4, 3), (4, 5)], True),
        ([(1, 3), (2, 1, 3)], False),
        ([(None, 3), (2, None, 3)], False),
        ([(None, 3), ()], False),
        ([(), ()], False),
    ],
)
def test_inputs_that_begin_differently_have_no_batch_axis(shapes, expected):
    inputs = tuple(TensorSpec(f"x{i}", shape, "float32") for i, shape in enumerate(shapes))
    assert has_batch_axis(source(lambda x0, x1: np.atleast_1d(x0) * 2, inputs)) is expected


def test_whether_rows_mix_is_asked_at_sizes_that_the_source_takes():
    def call(x):
        if x.shape[1] != 5:
            raise ModelError("the second size must be 5")
        return x - x.mean(0)

    assert not has_batch_axis(replace(source(call, (TensorSpec("x", (None, None), "float32"),)), sizes={"x": (1, 5)}))


@pytest.mark.parametrize(("side", "taken"), [(1024, True), (1025, False)])  # 16 x 2^22 values are the limit
def test_own_sizes_make_up_samples_where_sixteen_of_them_are_few_enough_values(side, taken):
    made = source(lambda x: x, (TensorSpec("x", (None, None, None, 4), "float32"),))
    sizes = made_up_sizes(replace(made, sizes={"x": (1, side, side, 4)}), whole=False)
    assert sizes["x"][1:] == ((side, side, 4) if taken else (32, 32, 4))


def test_a_source_that_fails_on_made_up_values_is_taken_for_one_with_a_batch():
    def call(x):
        raise ModelError("ids go to 9")

    assert has_batch_axis(source(call))


@pytest.mark.parametrize(("shape", "expected"), [((None, 3), True), ((1, 3), False), ((), False)])
def test_a_keras_model_has_a_batch_axis_where_its_outputs_have(shape, expected):
    made = replace(source(None, outputs=(*Y, TensorSpec("z", shape, "float32"))), model=object())
    assert has_batch_axis(made) is expected


def test_a_fixed_batch_whose_rows_mix_is_one_call():
    two = (TensorSpec("x", (2, 3), "float32"),)
    assert has_batch_axis(source(lambda x: x * 2, two))
    assert not has_batch_axis(source(lambda x: x - x.mean(0), two))


def test_whole_calls_are_read_called_and_joined_each_in_its_own_shape(tmp_path):
    x, state = np.arange(12.0, dtype=np.float32).reshape(4, 1, 3), np.ones((4, 2, 1, 3), np.float32)
    np.savez(tmp_path / "s.npz", x=x, state=state)
    samples = read_samples(tmp_path / "s.npz", STATE, whole=True)
    found = in_batches(lambda a: {"y": a["x"] + a["state"][0], "rank": np.float32(a["state"].ndim)}, samples, None)
    np.testing.assert_array_equal(found["y"], x + 1)
    assert found["rank"].tolist() == [3.0] * 4
    np.savez(tmp_path / "rows.npz", x=x[:, 0], state=state)  # one row a call may come without its axis
    np.testing.assert_array_equal(read_samples(tmp_path / "rows.npz", STATE, whole=True).inputs["x"], x)
    with pytest.raises(DataError, match=r"state has shape \[4, 1, 3\], and the model takes \[n, 2, 1, 3\]"):
        np.savez(tmp_path / "bad.npz", x=x, state=state[:, 0])
        read_samples(tmp_path / "bad.npz", STATE, whole=True)


def test_whole_calls_of_a_model_with_a_fixed_batch_are_its_rows(tmp_path):
    np.savez(tmp_path / "s.npz", x=np.arange(12.0).reshape(2, 2, 3), y=np.arange(2))
    samples = read_samples(tmp_path / "s.npz", [TensorSpec("x", (2, 3), "float32")])
    assert samples.inputs["x"].shape == (4, 3) and not samples.whole


def test_rows_that_mix_are_called_in_the_models_own_batch():
    rows = Samples(inputs={"x": np.arange(5.0).reshape(5, 1)})
    made = as_calls(rows, [TensorSpec("x", (2, 1), "float32")]).inputs["x"]
    assert made[..., 0].tolist() == [[0, 1], [2, 3], [4, 0]]


def test_made_up_calls_have_the_models_own_shapes():
    made = synthetic(STATE, whole=True)
    assert {name: array.shape for name, array in made.inputs.items()} == {"x": (16, 1, 3), "state": (16, 2, 1, 3)}
    assert synthetic([TensorSpec("x", (None, 3), "float32")], whole=True).inputs["x"].shape == (16, 32, 3)


def test_sizes_that_depend_on_the_values_are_filled_up_with_nan_and_compared():
    one, two = np.array([[1.0, 2.0]], np.float32), np.array([[3.0, 4.0], [5.0, 6.0]], np.float32)
    expected = stacked([{"y": one}, {"y": two}])
    np.testing.assert_array_equal(expected["y"], np.float32([[[1, 2], [np.nan, np.nan]], [[3, 4], [5, 6]]]))
    assert stacked([{"y": np.array([7])}, {"y": np.array([8, 9])}])["y"].dtype == np.float64
    floor = FLOORS[Scheme.FLOAT32]
    (same,) = compare(WHERE, floor, expected, stacked([{"y": one}, {"y": two}]))
    assert same.passed and same.snr_db is None
    (other,) = compare(WHERE, floor, expected, stacked([{"y": two}, {"y": two}]))
    assert not other.passed and "another size" in (other.error or "")
    (off,) = compare(WHERE, floor, expected, stacked([{"y": one}, {"y": two + 1}]))
    assert not off.passed and off.max_abs == 1.0


def test_the_first_of_filled_up_answers_are_compared_without_the_largest():
    """As reference.npz holds 16 of them, and the other runtimes are asked 1,000."""
    calls = [{"y": np.arange(n)} for n in (1, 2, 5)]
    few = {name: value[:2] for name, value in stacked(calls).items()}  # [2, 5]
    floor = FLOORS[Scheme.FLOAT32]
    (same,) = compare(WHERE, floor, few, stacked(calls[:2]))
    assert same.passed and same.snr_db is None
    for wrong in (calls[2:] * 2, [calls[0], {"y": np.arange(6)}], [calls[1], calls[0]]):
        (other,) = compare(WHERE, floor, few, stacked(wrong))
        assert not other.passed and other.error


def test_an_empty_output_is_not_exact():
    nothing = {"y": np.zeros((4, 0, 3), np.float32)}
    (row,) = compare(WHERE, FLOORS[Scheme.FLOAT32], nothing, nothing)
    assert not row.passed and "empty for every sample" in (row.error or "")


def test_made_up_inputs_are_drawn_again_while_an_output_is_empty():
    samples, found, span = answers(source(lambda x: x[x[:, 0] > 100]), synthetic(FREE))
    assert span == 2 and samples.whole and found["y"].shape[0] == 16
    with pytest.raises(DataError, match=r"output 'y' is empty for every generated input"):
        answers(source(lambda x: x[x[:, 0] > 1000]), synthetic(FREE))
    with pytest.raises(DataError, match=r"output 'y' is empty for these inputs"):
        answers(source(lambda x: x[x[:, 0] > 1000]), Samples(inputs={"x": np.ones((3, 3), np.float32)}))


def test_an_answer_that_is_no_batch_is_an_error_where_batches_were_asked_for():
    with pytest.raises(NotBatchedError, match=r"'y' has shape \[1, 3\] for 2 samples, expected 2 as its first size"):
        in_batches(lambda a: {"y": a["x"][:1]}, Samples(inputs={"x": np.ones((2, 3), np.float32)}), None)
    wider = Samples(inputs={"x": np.float32([[1], [2]])})
    with pytest.raises(
        NotBatchedError, match=r"'y' has shape \[1, 2\] for 1 sample, and shape \[1, 1\] for other samples"
    ):
        in_batches(lambda a: {"y": np.ones((1, int(a["x"][0, 0])))}, wider, None, 1)


def test_shapes_of_the_manifest_are_shapes_that_were_seen():
    said = (TensorSpec("y", (1, 3), "float32"),)
    assert with_seen_shapes(FREE, said, {"y": np.ones((16, 3))}, whole=False)[0].shape == (None, 3)
    assert with_seen_shapes(STATE, said, {"y": np.ones((16, 5, 3))}, whole=True)[0].shape == (None, 3)


def test_a_device_checks_itself_with_whole_calls():
    class Model:
        def run(self, inputs, signature):
            self.outputs = {"y": inputs["x"] + inputs["state"].sum(0)}
            return self

    inputs = {"x": np.ones((3, 1, 3), np.float32), "state": np.ones((3, 2, 1, 3), np.float32)}
    reference = Reference(inputs, {"y": np.full((3, 1, 3), 3, np.float32)}, Scheme.FLOAT32, {}, whole=True)
    (row,) = self_check(Model(), WHERE, reference, "infer", 1)
    assert row.passed and row.snr_db is None and row.samples == 3


def test_outputs_that_say_nothing_of_generated_inputs_are_named():
    loud, quiet, zero = (np.full((2, 3), value, np.float32) for value in (0.5, 5e-8, 0.0))
    assert quiet_outputs({"y": loud, "z": zero, "n": np.zeros(2, np.int64)}) == ""
    assert "the outputs 'y' and 'z' stay below" in quiet_outputs({"y": quiet, "z": quiet})
    assert quiet_outputs({"y": loud, "map": quiet}).startswith(
        "For generated inputs the output 'map' stays below 0.0001, so the check says little."
    )
