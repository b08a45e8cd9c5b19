"""TFRecord files as data of a device: the frame by its checksum, records in protobuf's encoding, written by hand."""

import gzip
import json
import struct

import numpy as np
import pytest

from edgeloop.errors import DataError
from edgeloop.federated.device.data.readers import read_samples
from edgeloop.federated.device.data.samples import InputSpec
from edgeloop.tfrecord import crc32c, framed, length_of

pytest.importorskip("google.protobuf")


def field(number: int, data: bytes) -> bytes:
    """A length-delimited field: https://protobuf.dev/programming-guides/encoding/"""
    assert len(data) < 128
    return bytes([number << 3 | 2, len(data)]) + data


def floats(*values: float) -> bytes:
    return field(2, field(1, struct.pack(f"<{len(values)}f", *values)))


def integers(*values: int) -> bytes:
    return field(3, field(1, b"".join(map(varint, values))))


def varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the high bit says that another byte follows."""
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def example(**features: bytes) -> bytes:
    entries = (field(1, field(1, name.encode()) + field(2, value)) for name, value in features.items())
    return field(1, b"".join(entries))


def write(path, *records: bytes) -> str:
    path.write_bytes(b"".join(map(framed, records)))
    return str(path)


def test_the_checksum_is_crc_32c():
    assert crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4
    assert crc32c(b"\xff" * 32) == 0x62A8AB43


def test_a_frame_says_the_length_before_the_record():
    assert length_of(framed(b"abc")[:12]) == 3
    assert framed(b"abc")[:8] == struct.pack("<Q", 3) and framed(b"abc")[12:15] == b"abc"


def test_numbers_without_a_schema_are_a_table_and_y_the_labels(tmp_path):
    path = write(
        tmp_path / "a.tfrecord", example(x=floats(0.5, 2.0), y=integers(3)), example(x=floats(1, 4), y=integers(1))
    )
    samples = read_samples(path)
    np.testing.assert_array_equal(samples.columns["x"], np.array([[0.5, 2], [1, 4]], np.float32))
    assert samples.y.tolist() == [3, 1] and samples.y.dtype == np.int32
    assert not samples.shaped


def test_the_schema_of_data_write_gives_types_and_shapes_of_a_folder_packed_or_not(tmp_path):
    schema = {
        "format": "edgeloop-examples/1",
        "features": {"image": "uint8[2,1]"},
        "label": {"name": "digit", "type": "int64[]", "kind": "classes"},
        "classes": [],
        "class_count": 10,
        "value_range": [0.0, 1.0],
        "counts": None,
    }
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    pixels = [field(1, field(1, bytes(pair))) for pair in ([0, 255], [7, 9])]
    write(tmp_path / "a.tfrecord", example(image=pixels[0], digit=integers(4)))
    (tmp_path / "b.tfrecord.gz").write_bytes(gzip.compress(framed(example(image=pixels[1], digit=integers(5)))))
    samples = read_samples(str(tmp_path))
    assert samples.columns["image"].tolist() == [[[0], [255]], [[7], [9]]] and samples.pixels
    assert samples.y.tolist() == [4, 5]


def test_a_first_record_as_long_as_the_mark_of_gzip_is_no_gzip(tmp_path):
    long = example(x=floats(0.5), y=integers(3))
    # field 15 is none of tf.train.Example's, so protobuf skips it; it fills the record up to 0x8b1f bytes
    filler = bytes([15 << 3 | 2]) + varint(0x8B1F - len(long) - 4)
    record = long + filler + bytes(0x8B1F - len(long) - len(filler))
    assert framed(record)[:2] == b"\x1f\x8b"
    assert read_samples(write(tmp_path / "a.tfrecord", record)).y.tolist() == [3]


def test_lists_of_one_number_are_numbers(tmp_path):
    path = write(tmp_path / "a.tfrecord", *(example(x=floats(1, 2), who=integers(n), y=integers(n)) for n in (4, 5)))
    found = read_samples(path).columns
    assert found["who"].tolist() == [4, 5] and found["x"].shape == (2, 2)


def test_features_are_not_put_side_by_side_in_an_order_that_nobody_gave(tmp_path):
    samples = read_samples(write(tmp_path / "a.tfrecord", example(width=floats(1), height=floats(2), y=integers(0))))
    with pytest.raises(DataError, match=r"\['height', 'width'\] in no order, the model takes one input, 'x'"):
        samples.for_model({"x": InputSpec((2,))})
    arrays, _ = samples.for_model({"width": InputSpec((1,)), "height": InputSpec((1,))})
    assert arrays["width"].tolist() == [[1]] and arrays["height"].tolist() == [[2]]


@pytest.mark.parametrize(
    ("schema", "says"), [(b"[" * 100_000, "is no schema for training"), (b" " * (1 << 20) + b"{}", "is larger than")]
)
def test_a_schema_that_is_too_deep_or_too_large_is_refused(tmp_path, schema, says):
    (tmp_path / "schema.json").write_bytes(schema)
    write(tmp_path / "a.tfrecord", example(x=floats(1), y=integers(1)))
    with pytest.raises(DataError, match=says):
        read_samples(str(tmp_path))


def test_a_number_that_the_type_of_the_schema_does_not_hold_is_refused(tmp_path):
    features = {"x": "uint8[1]"}
    label = {"name": "y", "type": "int64[]"}
    schema = {"format": "edgeloop-examples/1", "features": features, "label": label, "value_range": None}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    good = example(x=integers(255), y=integers(1))
    write(tmp_path / "a.tfrecord", good, example(x=integers(300), y=integers(1)))
    with pytest.raises(DataError, match=r"a.tfrecord, record 1: 'x' holds 300, which uint8 does not"):
        read_samples(str(tmp_path))
    write(tmp_path / "a.tfrecord", good, example(x=integers(0), y=integers(2**32 + 1)))
    with pytest.raises(DataError, match=r"a.tfrecord, record 1: 'y' holds 4294967297, which int32 does not"):
        read_samples(str(tmp_path))
    write(tmp_path / "a.tfrecord", good)
    assert read_samples(str(tmp_path)).columns["x"].tolist() == [[255]]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (framed(example(x=floats(1), y=integers(2**32 + 1))), "record 0: 'y' holds 4294967297, which int32 does not"),
        (framed(example(x=floats(1), y=integers(1)))[:-1], "ends within a record, or is damaged"),
        (b"\x01" + framed(b"")[1:], "ends within a record, or is damaged"),
        (framed(b"\xff\xff"), "record 0: it is no tf.train.Example"),
        (framed(example(x=floats(1))), r"has the features \['x'\], none of labels"),
        (framed(example(x=field(1, field(1, b"cat")), y=integers(1))), "'x' holds texts, expected numbers"),
        (framed(example(y=integers(1))), "holds 1 of y"),
        (framed(example(x=floats(1), y=integers(1))) + framed(example(y=integers(1))), "record 1, has"),
        (framed(example(x=floats(1), y=integers(1))) + framed(example(x=floats(1, 2), y=integers(1))), "several sizes"),
        (framed(example(x=floats(float("nan")), y=integers(1))), "holds NaN"),
    ],
)
def test_bad_records_are_named(tmp_path, data, says):
    path = tmp_path / "bad.tfrecord"
    path.write_bytes(data)
    with pytest.raises(DataError, match=says):
        read_samples(str(path))
