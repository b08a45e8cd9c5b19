"""A user's .npz: what is refused and why, and that what is read is what was written, however it was stored."""

import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgeloop.bundle import TensorSpec
from edgeloop.convert.read_samples import LabelPolicy, read_samples
from edgeloop.convert.samples import Samples
from edgeloop.errors import DataError
from edgeloop.files import npz

X = (TensorSpec("x", (None, 3), "float32"),)
IDS = (TensorSpec("ids", (None, 3), "int32"),)
VALUES = np.arange(30, dtype=np.float32).reshape(10, 3)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    "array",
    [VALUES, VALUES.astype(np.float64), VALUES.astype(">f4"), np.asfortranarray(VALUES)],
    ids=["as it is", "float64", "big endian", "Fortran order"],
)
def test_what_is_read_is_what_was_saved(tmp_path, save, array):
    save(tmp_path / "s.npz", x=array, y=np.arange(10))
    samples = read_samples(tmp_path / "s.npz", X, labels=LabelPolicy.NEEDED)
    assert samples.inputs["x"].dtype == np.float32
    np.testing.assert_array_equal(samples.inputs["x"], VALUES)
    np.testing.assert_array_equal(samples.labels, np.arange(10))


def test_batches_cover_all_samples_in_order_and_the_last_may_be_filled_up(tmp_path):
    np.savez(tmp_path / "s.npz", x=VALUES)
    samples = read_samples(tmp_path / "s.npz", X)
    plain = [batch["x"] for batch in samples.batches(4)]
    assert [len(b) for b in plain] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(plain), VALUES)
    filled = [batch["x"] for batch in samples.batches(4, fill=True)]
    np.testing.assert_array_equal(filled[-1], VALUES[[8, 9, 0, 1]])
    assert all(b.flags.aligned and b.flags.c_contiguous for b in filled)


def test_labels_are_read_where_there_are_some(tmp_path):
    np.savez(tmp_path / "with.npz", x=np.zeros((2, 2), np.float32), y=np.array([1, 0]))
    np.savez(tmp_path / "without.npz", x=np.zeros((2, 2), np.float32))
    specs = [TensorSpec("x", (None, 2), "float32")]
    assert read_samples(tmp_path / "with.npz", specs, labels=LabelPolicy.IF_ANY).labels.tolist() == [1, 0]
    assert read_samples(tmp_path / "without.npz", specs, labels=LabelPolicy.IF_ANY).labels is None
    assert read_samples(tmp_path / "with.npz", specs).labels is None


@pytest.mark.parametrize(
    "y", [[0.5, -2.0], [[0.5], [2.0]], [[0.5, 1.0], [2.0, 3.0]], [True, False], np.array([1, 0], np.uint8)]
)
def test_labels_may_be_numbers_of_any_shape_one_for_each_sample(tmp_path, y):
    np.savez(tmp_path / "s.npz", x=VALUES[:2], y=y)
    read = read_samples(tmp_path / "s.npz", X, labels=LabelPolicy.IF_ANY).labels
    np.testing.assert_array_equal(read, np.asarray(y))
    assert read.dtype == (np.uint8 if isinstance(y, np.ndarray) else np.float64)


@pytest.mark.parametrize(
    ("y", "policy", "why"),
    [
        ([0.5, 1.0], LabelPolicy.NEEDED, r"y of float64 \[2\]\. Pass integer labels y"),
        ([[0], [1]], LabelPolicy.NEEDED, r"Pass integer labels y, one for each of the 2 samples"),
        ([1, 0, 1], LabelPolicy.IF_ANY, r"y of int64 \[3\]\. Pass labels y, classes or numbers, one for each of the 2"),
        (["a", "b"], LabelPolicy.IF_ANY, "y of <U1"),
        ([0.5, np.nan], LabelPolicy.IF_ANY, "y holds NaN"),
        ([0.5, 1e39], LabelPolicy.IF_ANY, "a number too large for float32"),
        (3.0, LabelPolicy.IF_ANY, r"y of float64 \[\]"),
    ],
)
def test_labels_that_are_no_numbers_or_not_one_a_sample_are_refused(tmp_path, y, policy, why):
    np.savez(tmp_path / "s.npz", x=VALUES[:2], y=y)
    with pytest.raises(DataError, match=why):
        read_samples(tmp_path / "s.npz", X, labels=policy)


def test_spans_reach_from_the_smallest_value_to_the_largest_wherever_they_stand(tmp_path):
    x = np.zeros((130, 2), np.float32)
    x[129, 1], x[64, 0] = 3.5, -2.0
    np.savez(tmp_path / "s.npz", x=x)
    samples = read_samples(tmp_path / "s.npz", [TensorSpec("x", (None, 2), "float32")])
    assert samples.spans() == {"x": (-2.0, 3.5)}


def test_the_digest_is_about_values_and_not_about_how_they_are_stored(tmp_path):
    np.savez(tmp_path / "a.npz", x=VALUES)
    np.savez_compressed(tmp_path / "b.npz", x=VALUES.astype(np.float64))
    digests = {read_samples(tmp_path / f"{n}.npz", X).digest() for n in "ab"}
    assert digests == {Samples(inputs={"x": VALUES}).digest()}
    assert Samples(inputs={"x": VALUES + 1}).digest() not in digests


def test_files_of_a_folder_that_do_not_fit_together_are_refused(tmp_path):
    free = (TensorSpec("x", (None, None), "float32"),)
    for name, width in (("a", 2), ("b", 3)):
        np.savez(tmp_path / f"{name}.npz", x=np.zeros((1, width), np.float32))
    with pytest.raises(DataError, match="in two of its files"):
        read_samples(tmp_path, free)


def test_pickled_objects_are_refused_unread(tmp_path):
    np.savez(tmp_path / "s.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="holds pickled objects, which can run code"):
        read_samples(tmp_path / "s.npz", X)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_flipped_byte_of_the_values_is_found(tmp_path, save):
    save(tmp_path / "s.npz", x=VALUES)
    data = bytearray((tmp_path / "s.npz").read_bytes())
    # within the member's data: behind its 35 byte local header and, where it is stored, the 128 byte .npy header
    data[35 + (140 if save is np.savez else 60)] ^= 0x10
    (tmp_path / "s.npz").write_bytes(data)
    with pytest.raises(DataError, match=r"not an .npz file of plain arrays"):
        read_samples(tmp_path / "s.npz", X)


def test_more_than_the_limit_is_refused_by_what_the_file_declares(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "s.npz", x=np.zeros((1000, 3), np.float32))
    monkeypatch.setattr(npz, "LIMIT_BYTES", 10_000)
    with pytest.raises(DataError, match=r"unpacks to 12128 bytes, the limit is 10000"):  # 12000 and a header of 128
        read_samples(tmp_path / "s.npz", X)


@pytest.mark.parametrize("claimed", [(10**12, 3), (2, 3), (-1, 3)])
def test_a_header_that_claims_another_size_than_its_bytes_is_refused(tmp_path, claimed):
    header = repr({"descr": "<f4", "fortran_order": False, "shape": claimed}).encode().ljust(117) + b"\n"
    body = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(12)
    with zipfile.ZipFile(tmp_path / "s.npz", "w") as archive:
        archive.writestr("x.npy", body)
    with pytest.raises(DataError, match="its header says"):
        read_samples(tmp_path / "s.npz", X)


def test_integers_that_fit_are_narrowed_and_others_are_refused(tmp_path):
    np.savez(tmp_path / "s.npz", ids=np.arange(6, dtype=np.int64).reshape(2, 3))
    assert read_samples(tmp_path / "s.npz", IDS).inputs["ids"].dtype == np.int32
    np.savez(tmp_path / "s.npz", ids=np.full((1, 3), 2**31))
    with pytest.raises(DataError, match="integers that do not fit int32"):
        read_samples(tmp_path / "s.npz", IDS)


READ = """
import sys
from pathlib import Path
from edgeloop.bundle import TensorSpec
from edgeloop.convert.read_samples import read_samples
samples = read_samples(sys.argv[1], (TensorSpec("x", (None, 3072), "float32"),))
total = sum(float(batch["x"].sum()) for batch in samples.batches(16))
samples.digest()
# not ru_maxrss: a child starts with that of the process that forked it
peak = next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
print(len(samples), peak)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_ten_thousand_samples_take_no_more_memory_than_a_hundred(tmp_path, save):
    peaks = []
    for count in (100, 10_000):  # 1.2 and 123 MB of values
        save(tmp_path / "s.npz", x=np.ones((count, 3072), np.float32))
        run = subprocess.run(
            [sys.executable, "-c", READ, tmp_path / "s.npz"], capture_output=True, text=True, check=True, timeout=120
        )
        found, peak = map(int, run.stdout.split())
        assert found == count
        peaks.append(peak)
    # the kernel may map 2 MiB around a page that is read, and a batch is in memory twice; the values take 123 MB
    assert peaks[1] <= peaks[0] + 6_000, peaks
