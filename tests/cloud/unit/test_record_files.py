"""TFRecord files and their schemas, read without TensorFlow."""

import gzip
import json
import struct

import pytest

from edgeloop.cloud.input.examples import LabelKind, TensorType
from edgeloop.cloud.input.record_files import count, counts, is_packed
from edgeloop.cloud.input.schema import Schema, read_schema, write_schema
from edgeloop.cloud.input.tensor_types import as_text, listed_as, tensor_type
from edgeloop.errors import DataError, OptionsError


def records(*sizes: int) -> bytes:
    """The framing of the format: length, its checksum, bytes, their checksum. Checksums are not looked at here."""
    return b"".join(struct.pack("<QI", size, 0) + bytes(size) + bytes(4) for size in sizes)


def test_records_are_counted_packed_or_not(tmp_path):
    plain, packed = tmp_path / "a.tfrecord", tmp_path / "b.tfrecord.gz"
    plain.write_bytes(records(5, 0, 300))
    packed.write_bytes(gzip.compress(records(5, 0, 300)))
    assert (is_packed(plain), is_packed(packed)) == (False, True)
    assert (count(plain), count(packed)) == (3, 3)
    assert count(plain, limit=2) is None
    assert counts([plain, plain]) == (3, 3)
    assert counts([plain, packed]) is None  # packed ones would have to be unpacked whole


@pytest.mark.parametrize("cut", [1, 4, 10])
def test_a_record_that_is_cut_off_is_named(tmp_path, cut):
    whole = records(5, 7)
    for name, data in (("a.tfrecord", whole[:-cut]), ("b.tfrecord.gz", gzip.compress(whole[:-cut]))):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=rf"{name}: record 1 \(counted from 0\) is damaged"):
            count(tmp_path / name)


@pytest.mark.parametrize("text", ["float32[28,28,1]", "int64[]", "uint8[3]", "string[]", "image"])
def test_a_type_is_read_as_it_is_written(text):
    assert as_text(tensor_type(text, "x")) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("float32", r"schema\.x is 'float32'\. Write the dtype and the shape"),
        ("float33[2]", r"schema\.x has the dtype 'float33'\. Did you mean float32"),
        ("float32[a]", r"schema\.x is 'float32\[a\]'"),
    ],
)
def test_what_is_no_type_is_refused(text, message):
    with pytest.raises(OptionsError, match=message):
        tensor_type(text, "schema.x")


def test_an_example_holds_floats_and_whole_numbers_in_lists_and_the_rest_as_bytes():
    stored = {kind: listed_as(kind) for kind in ("float32", "float64", "int64", "int8", "bool", "uint8", "string")}
    assert stored == {
        "float32": "float32",
        "float64": None,
        "int64": "int64",
        "int8": "int64",
        "bool": "int64",
        "uint8": None,
        "string": None,
    }


def test_a_schema_comes_back_as_it_was_and_another_format_is_refused(tmp_path):
    schema = Schema(
        features={"x": TensorType(dtype="uint8", shape=(2, 3))},
        label=("label", TensorType(dtype="int64", shape=())),
        label_kind=LabelKind.CLASSES,
        classes=("a", "b"),
        class_count=2,
        value_range=(0.0, 1.0),
        counts={"e.tfrecord": 4},
    )
    assert read_schema(tmp_path) is None
    write_schema(tmp_path, schema)
    assert read_schema(tmp_path) == schema
    document = json.loads((tmp_path / "schema.json").read_text())
    (tmp_path / "schema.json").write_text(json.dumps({**document, "format": "edgeloop-examples/2"}))
    with pytest.raises(DataError, match=r"its format is 'edgeloop-examples/2', expected 'edgeloop-examples/1'"):
        read_schema(tmp_path)
