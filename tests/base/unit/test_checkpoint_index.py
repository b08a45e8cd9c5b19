"""The index of a checkpoint, written by hand as LevelDB's table has it."""

import struct

import pytest

from edgeloop.files.checkpoint_index import MAGIC, read_checkpoint_index
from edgeloop.files.saved_model_file import read_saved_model


def number(value):
    """A varint below 16,384."""
    return bytes([value]) if value < 128 else bytes([value & 127 | 128, value >> 7])


def field(tag, data):
    return bytes([tag << 3 | 2]) + number(len(data)) + data


def entry(dtype, *sizes):
    shape = b"".join(field(2, b"\x08" + number(size)) for size in sizes)
    return b"\x08" + number(dtype) + field(2, shape)


def block(rows, compression=0):
    """Keys share the first bytes of the one before, one restart at 0; then the kind of compression and a checksum."""
    data, before = b"", b""
    for key, value in rows:
        shared = next(
            (i for i, pair in enumerate(zip(key, before, strict=False)) if len(set(pair)) > 1),
            min(len(key), len(before)),
        )
        data += number(shared) + number(len(key) - shared) + number(len(value)) + key[shared:] + value
        before = key
    return data + struct.pack("<II", 0, 1) + bytes([compression]) + bytes(4)


def handle(start, size):
    return number(start) + number(size)


def index(rows, compression=0):
    data = block(rows, compression)
    top = block([(b"~", handle(0, len(data) - 5))])
    footer = handle(0, 0) + handle(len(data), len(top) - 5)
    return data + top + footer + bytes(40 - len(footer)) + MAGIC


VARIABLES = [
    (b"", b"\x08\x01"),
    (b"_CHECKPOINTABLE_OBJECT_GRAPH", entry(7)),
    (b"a/.ATTRIBUTES/VARIABLE_VALUE", entry(1, 3, 200)),
    (b"a/.OPTIMIZER_SLOT/opt/m/.ATTRIBUTES/VARIABLE_VALUE", entry(1, 3, 200)),
    (b"b/.ATTRIBUTES/VARIABLE_VALUE", entry(19, 4)),
    (b"save_counter/.ATTRIBUTES/VARIABLE_VALUE", entry(9)),
]


def test_names_shapes_and_types_are_read_with_their_shared_beginnings():
    found = read_checkpoint_index(memoryview(index(VARIABLES)))
    assert [(row["name"].split("/")[0], row["shape"], row["dtype"]) for row in found] == [
        ("_CHECKPOINTABLE_OBJECT_GRAPH", [], "string"),
        ("a", [3, 200], "float32"),
        ("a", [3, 200], "float32"),
        ("b", [4], "float16"),
        ("save_counter", [], "int64"),
    ]


def saved_model(folder, objects=b""):
    (folder / "variables").mkdir()
    (folder / "variables" / "variables.index").write_bytes(index(VARIABLES))
    (folder / "saved_model.pb").write_bytes(field(2, objects))
    return read_saved_model(folder / "saved_model.pb")


def test_parameters_are_the_variables_without_slots_counters_and_texts(tmp_path):
    found = saved_model(tmp_path)
    assert found["parameters"] == 3 * 200 + 4
    assert [row["name"] for row in found["weights"]] == ["a", "b"]


def test_a_variable_has_the_name_that_the_graph_of_objects_gives_it(tmp_path):
    child = field(1, b"\x08\x01" + field(2, b"a"))  # of the root: node 1, by the name a
    variable = field(7, b"\x08\x01" + field(6, b"dense/kernel"))
    objects = field(7, field(1, child) + field(1, variable))
    assert [row["name"] for row in saved_model(tmp_path, objects)["weights"]] == ["dense/kernel", "b"]


def test_without_an_index_the_parameters_are_unknown(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"\x12\0")
    assert read_saved_model(tmp_path / "saved_model.pb")["parameters"] is None


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not the index of a checkpoint"),
        (bytes(60), "not the index of a checkpoint"),
        (index(VARIABLES, compression=1), "compressed"),
        (bytes(20) + index(VARIABLES)[-48:], "outside the file"),
    ],
    ids=["empty", "zeros", "compressed", "cut"],
)
def test_what_is_no_index_is_a_value_error(data, why):
    with pytest.raises(ValueError, match=why):
        read_checkpoint_index(memoryview(data))
