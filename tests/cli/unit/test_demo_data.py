"""The demo's data, and its report where Matplotlib is missing. No TensorFlow is loaded."""

import gzip
import os
import struct
import sys

import numpy as np
import pytest

from edgeloop.cloud.train.train_arrays import TrainOptions
from edgeloop.demo import releases
from edgeloop.demo.data import IMAGES, LABELS, Dataset, load, split, write_shards
from edgeloop.demo.files import claim_folder
from edgeloop.demo.report import accuracy_table, write_report
from edgeloop.errors import DataError, OptionsError, WriteError
from edgeloop.result import Table


def idx(*shape: int, values: bytes | None = None) -> bytes:
    """An IDX file of unsigned bytes: two zeros, type 8, the number of dimensions, their sizes, the values."""
    head = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
    return gzip.compress(head + (bytes(range(int(np.prod(shape)))) if values is None else values))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / f"a-{IMAGES}").write_bytes(idx(3, 2, 2))
    (tmp_path / f"a-{LABELS}").write_bytes(idx(3, values=b"\x02\x00\x01"))
    return tmp_path


def test_images_are_scaled_by_255_and_labels_are_integers(folder):
    data = load(str(folder))
    assert data.x.shape == (3, 2, 2, 1) and data.x.dtype == np.float32
    assert data.x[2, 1, 1, 0] == np.float32(11) / np.float32(255)  # the last of 12 values
    assert data.y.tolist() == [2, 0, 1] and data.classes == 3


DAMAGE = {
    "no labels": (
        lambda f: (f / f"a-{LABELS}").unlink(),
        r"has no labels beside it\. Put a-labels-idx1-ubyte\.gz into",
    ),
    "fewer labels": (lambda f: (f / f"a-{LABELS}").write_bytes(idx(2)), "3 images and .* has 2 labels"),
    "no gzip": (lambda f: (f / f"a-{IMAGES}").write_bytes(b"not packed"), "cannot be unpacked"),
    "cut off": (lambda f: (f / f"a-{IMAGES}").write_bytes(idx(3, 2, 2)[:-9]), "cannot be unpacked"),
    "of floats": (
        lambda f: (f / f"a-{IMAGES}").write_bytes(gzip.compress(bytes([0, 0, 13, 3]) + bytes(12))),
        "not an IDX",
    ),
    "another size": (lambda f: (f / f"a-{IMAGES}").write_bytes(idx(3, 2, 2, values=b"12")), r"says shape \(3, 2, 2\)"),
    "two sizes": (
        lambda f: [(f / f"b-{IMAGES}").write_bytes(idx(1, 3, 3)), (f / f"b-{LABELS}").write_bytes(idx(1))],
        r"images of sizes \[\(2, 2\), \(3, 3\)\]",
    ),
    "no images": (lambda f: (f / f"a-{IMAGES}").unlink(), r"has no \*images-idx3-ubyte\.gz file"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_folder_that_cannot_be_read_is_refused_by_what_is_wrong(folder, what):
    damage, says = DAMAGE[what]
    damage(folder)
    with pytest.raises(DataError, match=says):
        load(str(folder))


def test_a_name_that_is_no_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"--data is .*none, which is not a folder\. Pass digits, or a folder with"):
        load(str(tmp_path / "none"))


def made(n: int) -> Dataset:
    return Dataset(name="made", x=np.arange(n, dtype=np.float32).reshape(n, 1, 1, 1), y=(np.arange(n) % 4).astype("i4"))


def test_the_split_gives_each_sample_to_one_part_in_the_shares_20_10_and_70_percent():
    parts = split(made(1000), seed=3)
    every = [part.x.ravel() for part in (parts.test, parts.cloud, parts.devices)]
    assert [len(part) for part in every] == [200, 100, 700]
    assert sorted(np.concatenate(every)) == list(range(1000))
    assert not np.array_equal(split(made(1000), seed=4).test.x, parts.test.x)


def test_too_few_images_to_split_are_refused():
    with pytest.raises(DataError, match="has 199 images, too few to split three ways"):
        split(made(199), seed=0)


def test_every_sample_of_the_devices_lies_in_one_shard(tmp_path):
    shards = [np.load(path) for path in write_shards(tmp_path, made(400), 2, seed=1)]
    assert sorted(np.concatenate([shard["x"].ravel() for shard in shards])) == list(range(400))
    assert all(len(shard["y"]) >= 32 for shard in shards)


@pytest.mark.parametrize(
    ("wrong", "says"), [({"epochs": 0}, "epochs is 0"), ({"validation": 1.0}, "validation is 1.0")]
)
def test_training_options_that_cannot_be_are_refused(wrong, says):
    with pytest.raises(OptionsError, match=says):
        TrainOptions(**wrong)


DOCUMENT = {
    "data": "a <set>",
    "seed": 3,
    "bundle": "out/release-2",
    "train": {"before": 0.9, "central": 0.99},
    "federated": {
        "rounds": [{"round": 1, "replies": 2, "examples": 10, "train_loss": 0.5, "accuracy": 0.95}],
        "after": 0.97,
    },
    "variants": [],
    "seconds": {"total": 1.0},
}


def test_the_accuracy_table_follows_the_loop():
    table = accuracy_table(DOCUMENT)
    assert list(table.columns) == ["trained in the cloud", "round 1", "fine-tuned", "trained on all data"]
    assert table.rows == [["90.0%", "95.0%", "97.0%", "99.0%"]]


def test_without_matplotlib_the_report_keeps_its_tables_and_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    (note,) = write_report(tmp_path / "report.html", DOCUMENT, [Table("times", ["variant"], [["int8"]])])
    page = (tmp_path / "report.html").read_text()
    assert "pip install 'edgeloop[plots]'" in note and "edgeloop[plots]" in page
    assert "Seed 3." in page and "release-2/manifest.json" in page
    assert "<svg" not in page and "<td>int8</td>" in page and "<td>97.0%</td>" in page and "a &lt;set&gt;" in page


def test_a_demo_never_writes_over_files_that_it_did_not_make(tmp_path):
    (tmp_path / "device").mkdir()
    (tmp_path / "device" / "thesis.txt").write_text("mine")
    with pytest.raises(WriteError, match=r"holds files that the demo did not make.*Choose a new folder with -o\."):
        claim_folder(tmp_path)
    assert (tmp_path / "device" / "thesis.txt").read_text() == "mine"
    claim_folder(tmp_path / "new")
    (tmp_path / "new" / "demo.json").write_text("{}")
    claim_folder(tmp_path / "new")  # a second demo in the folder of the first
    with pytest.raises(WriteError, match=r"thesis\.txt: a file is there\."):
        claim_folder(tmp_path / "device" / "thesis.txt")


def test_the_device_of_a_demo_starts_anew_and_its_environment_ends_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(releases, "_enroll", lambda home: None)  # asks a device environment
    monkeypatch.setenv("EDGELOOP_HOME", "/before")
    monkeypatch.delenv("EDGELOOP_FLEET", raising=False)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("mine")
    (tmp_path / "device").symlink_to(tmp_path / "elsewhere")
    with releases.own_device(tmp_path):
        assert os.environ["EDGELOOP_HOME"] == str(tmp_path / "device")
        assert os.environ["EDGELOOP_FLEET"] == str(tmp_path / "device" / "fleet.json")
    assert os.environ["EDGELOOP_HOME"] == "/before" and "EDGELOOP_FLEET" not in os.environ
    assert (tmp_path / "elsewhere" / "file").read_text() == "mine"  # the link is gone, what it named is not
    assert list((tmp_path / "device").iterdir()) == []
