"""Samples and batches, by hand and without a framework."""

import errno

import numpy as np
import pytest

from edgeloop.atomic import new_folder
from edgeloop.bundle import TensorSpec
from edgeloop.convert.calls import in_batches
from edgeloop.convert.read_samples import LabelPolicy, read_samples
from edgeloop.convert.samples import Samples, synthetic
from edgeloop.errors import DataError, WriteError

X = (TensorSpec("x", (None, 2), "float32"),)
IDS = (TensorSpec("ids", (None, 2), "int32"),)


def test_a_fixed_batch_is_filled_up_and_the_filling_is_cut_off():
    seen = []

    def call(batch):
        seen.append(batch["x"].tolist())
        return {"y": batch["x"] * 10}

    out = in_batches(call, Samples(inputs={"x": np.array([1, 2, 3])}), fixed=2)
    assert seen == [[1, 2], [3, 1]] and out["y"].tolist() == [10, 20, 30]


CASES = {
    "NaN": (X, {"x": np.array([[1.0, np.nan]], np.float32)}, "NaN"),
    "beyond float32": (X, {"x": np.array([[1.0, 1e300]])}, "too large for float32"),
    "beyond int32": (IDS, {"ids": np.array([[0, 2**40]])}, "do not fit int32"),
    "words": (X, {"x": np.array([["red", "blue"]])}, "x is <U4, and the model takes float32. Look the words up first"),
    "bytes for floats": (X, {"x": np.zeros((1, 2), np.uint8)}, "x is uint8, and the model takes float32"),
    "another shape": (X, {"x": np.zeros((1, 3), np.float32)}, r"shape \[1, 3\], and the model takes \[n, 2\]"),
    "nothing": (X, {"x": np.zeros((0, 2), np.float32)}, "at least one"),
    "another name": (X, {"image": np.zeros((1, 2), np.float32)}, "none for the input 'x'"),
}


@pytest.mark.parametrize("case", CASES)
def test_samples_that_do_not_fit_are_refused_by_what_is_wrong(tmp_path, case):
    specs, arrays, message = CASES[case]
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(DataError, match=message):
        read_samples(tmp_path / "s.npz", specs)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04cut", b"\x93NUMPY\x01\x00cut"])
def test_a_file_that_is_no_npz_is_refused(tmp_path, data):
    (tmp_path / "s.npz").write_bytes(data)
    with pytest.raises(DataError, match=r"not an .npz|one array without a name"):
        read_samples(tmp_path / "s.npz", X)


@pytest.mark.parametrize("y", [np.zeros(1, np.float32), np.zeros(3, np.int32), np.zeros((2, 1), np.int32)])
def test_labels_are_integers_as_many_as_samples(tmp_path, y):
    np.savez(tmp_path / "s.npz", x=np.zeros((2, 2), np.float32), y=y)
    with pytest.raises(DataError, match=r"Pass integer labels y, one for each of the 2 samples"):
        read_samples(tmp_path / "s.npz", X, labels=LabelPolicy.NEEDED)


def test_a_folder_of_npz_files_is_read_in_the_order_of_their_names(tmp_path):
    for name, value in (("b", 2.0), ("a", 1.0)):
        np.savez(tmp_path / f"{name}.npz", x=np.full((1, 2), value, np.float32))
    assert read_samples(tmp_path, X).inputs["x"][:, 0].tolist() == [1.0, 2.0]


def test_made_up_samples_are_the_same_every_time_and_say_that_they_are_not_real():
    first, again = synthetic((*X, *IDS)), synthetic((*X, *IDS))
    assert not first.real and set(np.unique(first.inputs["ids"])) <= {0, 1}
    np.testing.assert_array_equal(first.inputs["x"], again.inputs["x"])


def test_made_up_samples_have_the_given_sizes_unless_these_make_too_many_values():
    free = (TensorSpec("x", (None, None, 2), "float32"),)
    assert synthetic(free, sizes={"x": (1, 3, 2)}, count=4).inputs["x"].shape == (4, 3, 2)
    assert synthetic(free, sizes={"x": (1, 1 << 24, 2)}, count=4).inputs["x"].shape == (4, 32, 2)


def test_a_full_disk_while_a_folder_is_filled_is_a_write_error_and_another_error_is_not(tmp_path):
    with pytest.raises(WriteError, match="No space left"), new_folder(tmp_path / "b"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(FileNotFoundError), new_folder(tmp_path / "b"):
        raise FileNotFoundError(errno.ENOENT, "a model file")
    assert list(tmp_path.iterdir()) == []
