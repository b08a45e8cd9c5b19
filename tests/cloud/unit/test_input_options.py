"""What the options of the input refuse, and what can be read without TensorFlow."""

import struct

import numpy as np
import pytest

from edgeloop.cloud.input.examples import LabelKind, Shard
from edgeloop.cloud.input.formats.image_size import image_size
from edgeloop.cloud.input.options import Cache, DataOptions, PipelineOptions
from edgeloop.cloud.input.parts import hold_out
from edgeloop.cloud.input.pipeline import steps_per_epoch
from edgeloop.cloud.input.readers import open_examples
from edgeloop.errors import DataError, OptionsError


def npz(folder, **arrays):
    np.savez(folder / "d.npz", **arrays)
    return folder / "d.npz"


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (PipelineOptions, {"batch": 0}, "batch is 0. It must be 1 or more"),
        (PipelineOptions, {"prefetch": -1}, "prefetch is -1"),
        (PipelineOptions, {"half_life": 2.0, "shuffle": False}, "half-life is given without shuffle"),
        (PipelineOptions, {"cache_folder": "x", "cache": Cache.MEMORY}, 'cache-folder is given with cache = "memory"'),
        (DataOptions, {"path": "d", "channels": 2}, "channels is 2"),
        (DataOptions, {"path": "d", "features": ("x", "x")}, r"features is \['x', 'x'\]"),
        (DataOptions, {"path": "d", "features": ("x",), "label": "x"}, "'x' is a feature and the label"),
        (DataOptions, {"path": "d", "value_range": (1.0, 0.0)}, r"value-range is \[1.0, 0.0\]"),
        (Shard, {"index": 2, "count": 2}, "worker 2 of 2"),
    ],
)
def test_options_that_contradict_each_other_are_refused(kind, given, message):
    with pytest.raises(OptionsError, match=message):
        kind(**given)


def test_texts_become_classes_in_sorted_order(tmp_path):
    examples = open_examples(DataOptions(path=npz(tmp_path, x=np.zeros((3, 2)), y=np.array(["dog", "cat", "dog"]))))
    assert (examples.classes, examples.class_count, examples.label_kind) == (("cat", "dog"), 2, LabelKind.CLASSES)


def test_whole_numbers_are_classes_and_floats_are_numbers_to_predict(tmp_path):
    whole = open_examples(DataOptions(path=npz(tmp_path, x=np.zeros((3, 2)), y=np.array([0, 4, 1]))))
    assert (whole.class_count, whole.classes, whole.label.dtype) == (5, (), "int64")
    floats = open_examples(DataOptions(path=npz(tmp_path, x=np.zeros((3, 2)), y=np.array([0.5, 4, 1]))))
    assert (floats.label_kind, floats.class_count, floats.label.dtype) == (LabelKind.NUMBERS, 0, "float32")


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({"x": [1.0, 2], "y": [0]}, {}, "equally many"),
        ({"x": [1.0, np.nan], "y": [0, 1]}, {}, "x of example 1 is NaN"),
        ({"x": [1.0, 2], "y": [0, -1]}, {}, "label of example 1 is -1, expected 0 or more"),
        ({"x": [1.0, 2], "y": [0, 2]}, {"classes": ("a", "b")}, "label of example 1 is 2, expected 0 to 1"),
        ({"x": [1.0, 2], "y": ["a", "c"]}, {"classes": ("a", "b")}, "has the label 'c'. Choose from a, b"),
        ({"x": [1.0, 2], "y": [0, 1]}, {"features": ("z",)}, "has no 'z'"),
        ({"x": [1.0, 2], "y": [0, 1]}, {"label": "w"}, "has no 'w'"),
        ({"y": [0, 1]}, {}, "nothing to learn from"),
        ({"x": ["a", "b"], "y": [0, 1]}, {}, "x is <U1, expected numbers"),
    ],
)
def test_arrays_that_cannot_be_learned_from_are_refused(tmp_path, arrays, options, message):
    path = npz(tmp_path, **{key: np.array(value) for key, value in arrays.items()})
    with pytest.raises(DataError, match=message):
        open_examples(DataOptions(path=path, **options))


def test_several_npz_files_are_read_end_to_end(tmp_path):
    for part in range(2):
        np.savez(tmp_path / f"{part}.npz", x=np.full((2, 1), part, np.float32), y=np.array([part, part]))
    assert open_examples(DataOptions(path=tmp_path)).count == 4


def test_a_batch_larger_than_the_data_is_refused(tmp_path):
    examples = open_examples(DataOptions(path=npz(tmp_path, x=np.zeros((7, 2)), y=np.arange(7))))
    assert steps_per_epoch(examples, 3, 2) == 1
    with pytest.raises(DataError, match="7 examples, too few for one batch of 4 on each of 2 workers"):
        steps_per_epoch(examples, 4, 2)


def test_a_class_without_an_image_is_named(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "dog").mkdir()
    (tmp_path / "cat" / "a.gif").write_bytes(b"GIF89a" + struct.pack("<HH", 5, 4) + bytes(16))
    with pytest.raises(DataError, match="dog holds no image"):
        open_examples(DataOptions(path=tmp_path))


def test_what_is_no_data_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        open_examples(DataOptions(path=tmp_path / "none"))
    with pytest.raises(DataError, match="holds no data"):
        open_examples(DataOptions(path=tmp_path))


HEADS = {  # height 300, width 200
    "png": b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 200, 300),
    "gif": b"GIF87a" + struct.pack("<HH", 200, 300),
    "bmp": b"BM" + bytes(12) + struct.pack("<Iii", 40, 200, -300),
    "jpg": b"\xff\xd8\xff\xe0"
    + struct.pack(">H", 16)
    + bytes(14)
    + b"\xff\xc2"
    + struct.pack(">HBHH", 11, 8, 300, 200),
}


@pytest.mark.parametrize("kind", HEADS)
def test_a_header_says_height_and_width(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    path.write_bytes(HEADS[kind] + bytes(30))
    assert image_size(path) == (300, 200)
    path.write_bytes(HEADS[kind][:7])
    with pytest.raises(DataError, match="is not a PNG"):
        image_size(path)


def test_four_examples_are_too_few_to_hold_out_a_tenth(tmp_path):
    examples = open_examples(DataOptions(path=npz(tmp_path, x=np.zeros((4, 2)), y=np.arange(4))))
    training, validation = hold_out(examples, 0.25, seed=0)
    assert (training.count, validation.count) == (3, 1)
    with pytest.raises(DataError, match="4 examples, too few to hold out 10%"):
        hold_out(examples, 0.1, seed=0)
    with pytest.raises(OptionsError, match="share held out is 1"):
        hold_out(examples, 1.0, seed=0)
