"""Devices by name, protobuf by hand, plans refused before they start."""

import struct
import sys

import pytest

from edgeloop.edge.bench import BenchOptions, targets
from edgeloop.edge.device import parse_device
from edgeloop.edge.inspect import inspect
from edgeloop.edge.protobuf import fields, text, whole
from edgeloop.errors import DeviceError, ModelError, OptionsError


def test_local_is_this_interpreter_and_local_python_another():
    assert str(parse_device("local").python) == sys.executable
    assert parse_device(f"local:{sys.executable}").python.samefile(sys.executable)


@pytest.mark.parametrize("text", ["", "remote", "local:", "ssh://pi@host"])
def test_another_form_of_device_is_refused(text):
    with pytest.raises(OptionsError, match="Expected local or local:PYTHON"):
        parse_device(text)


def test_an_interpreter_that_is_not_there_is_refused():
    with pytest.raises(DeviceError, match="no program at /nowhere/python"):
        parse_device("local:/nowhere/python")


def test_protobuf_fields_are_those_of_the_encoding_guide():
    # https://protobuf.dev/programming-guides/encoding/: field 1 = 150 is 08 96 01; field 2 = "testing"
    message = memoryview(bytes.fromhex("089601") + b"\x12\x07testing" + b"\x1d" + struct.pack("<I", 7))
    assert whole(message, 1) == 150
    assert text(message, 2) == "testing"
    assert [number for number, _ in fields(message)] == [1, 2, 3]
    assert whole(message, 3) == 7


def test_a_negative_protobuf_number_is_twos_complement():
    assert whole(memoryview(b"\x08" + b"\xff" * 9 + b"\x01"), 1) == -1


@pytest.mark.parametrize("data", [b"\x08", b"\x12\x05ab", b"\x0b", b"\x08" + b"\xff" * 11])
def test_damaged_protobuf_is_a_value_error_and_never_a_hang(data):
    with pytest.raises(ValueError):
        list(fields(memoryview(data)))


@pytest.mark.parametrize("fields", [{"runs": 10}, {"threads": 0}, {"warmup": 0}])
def test_a_plan_that_could_not_support_its_numbers_is_refused(fields):
    with pytest.raises(OptionsError):
        BenchOptions(**fields)


BAD = {
    "a missing file": (None, None, "does not exist"),
    "an empty file": ("x.tflite", b"", "empty file"),
    "text named .keras": ("x.keras", b"hello", "none of the known formats"),
    "a zip that is no model": ("x.keras", b"PK\x03\x04rest", "damaged"),
    "a cut .tflite": ("x.tflite", b"\x1c\0\0\0TFL3\xff\xff", "damaged"),
    "html named .onnx": ("x.onnx", b"<html></html>", "damaged"),
}


@pytest.mark.parametrize("case", BAD)
def test_inspect_answers_a_bad_file_in_one_sentence(tmp_path, case):
    name, data, message = BAD[case]
    if name:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ModelError, match=message) as refused:
        inspect(tmp_path / (name or "nothing"))
    assert "\n" not in str(refused.value)


def test_inspect_names_an_empty_folder(tmp_path):
    with pytest.raises(ModelError, match=r"folder without saved_model.pb"):
        inspect(tmp_path)


def test_bench_refuses_a_file_no_agent_runs(tmp_path):
    (tmp_path / "model.h5").write_bytes(b"x")
    with pytest.raises(ModelError, match="Expected a bundle"):
        targets(tmp_path / "model.h5")
