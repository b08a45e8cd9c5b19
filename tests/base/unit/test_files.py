"""Devices by name, protobuf by hand, plans refused before they start."""

import io
import json
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgeloop.bundle import REFERENCE, Bundle, Format, Manifest, Scheme, Signature, TensorSpec, Variant, file_entries
from edgeloop.edge.measure.bench import bench
from edgeloop.edge.measure.bench_plan import BenchOptions
from edgeloop.edge.measure.bench_targets import BenchTarget, find_targets
from edgeloop.errors import DataError, DeviceError, ModelError, OptionsError
from edgeloop.files.flatbuffer import read_tflite
from edgeloop.files.flatbuffer_table import FlatbufferTable
from edgeloop.files.inspect import inspect
from edgeloop.files.keras_config import code_layers
from edgeloop.files.protobuf import fields, text, whole
from edgeloop.runtime.device import Device, Host, parse_device
from edgeloop.runtime.parity.reference import read_reference


def test_local_is_this_interpreter_and_local_python_another():
    assert str(parse_device("local").python) == sys.executable
    assert parse_device(f"local:{sys.executable}").python.samefile(sys.executable)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "remote",
            "local:",
            "ssh:",
            "ssh://",
            "ssh://-oProxyCommand=x",
            "ssh://-l@host",
            "ssh://a b",
            "ssh://h:0",
        ),
        *(
            "ssh://h:70000",
            "ssh://h:22:22",
            "ssh://h/python;reboot",
            "ssh://h/$(reboot)",
            "ssh://u:secret@h",
            "ssh:u:/secret@h",
            "ssh://h\n",
        ),
    ],
)
def test_another_form_of_device_is_refused(text):
    with pytest.raises(OptionsError, match="Expected local, local:PYTHON or ssh://") as refused:
        parse_device(text)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "text, host, python, label",
    [
        ("ssh://pi", Host("pi"), "python3", "ssh:pi"),
        ("ssh://pi@rasp-4.local:2222", Host("rasp-4.local", "pi", 2222), "python3", "ssh:rasp-4.local:2222"),
        (
            "ssh://u0_a1@[fe80::1%eth0]/opt/v/bin/python3.11",
            Host("fe80::1%eth0", "u0_a1"),
            "/opt/v/bin/python3.11",
            None,
        ),
    ],
)
def test_a_machine_behind_ssh_is_read(text, host, python, label):
    device = parse_device(text)
    assert (device.ssh, str(device.python)) == (host, python)
    assert label is None or device.label == label


def test_an_interpreter_that_is_not_there_is_refused():
    with pytest.raises(DeviceError, match="/nowhere/python is not a program"):
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
    "text named .keras": ("x.keras", b"hello", "not a model file of a known format"),
    "a zip that is no model": ("x.keras", b"PK\x03\x04rest", "damaged"),
    "a cut .tflite": ("x.tflite", b"\x1c\0\0\0TFL3\xff\xff", "damaged"),
    "an HDF5 file": ("x.h5", b"\x89HDF\r\n\x1a\n rest", "damaged .*superblock"),
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


def field(number, data):
    """A field of a protobuf message with fewer than 128 bytes of data."""
    head = number << 3 | 2
    return bytes([head] if head < 128 else [head & 127 | 128, head >> 7]) + bytes([len(data)]) + bytes(data)


def test_an_onnx_dimension_without_a_size_is_free_however_the_exporter_wrote_it(tmp_path):
    dimensions = {
        "a name": field(2, b"batch"),
        "nothing": b"",
        "-1": b"\x08" + b"\xff" * 9 + b"\x01",
        "3": b"\x08\x03",
    }
    shape = b"".join(field(1, dimension) for dimension in dimensions.values())
    tensor = field(1, b"x") + field(2, field(1, b"\x08\x01" + field(2, shape)))
    (tmp_path / "m.onnx").write_bytes(field(7, field(11, tensor) + field(12, tensor)))
    (read,) = inspect(tmp_path / "m.onnx")["signatures"][""]["inputs"]
    dims = ["batch", None, -1, 3]  # as the file says it
    assert read == {"name": "x", "shape": [None, None, None, 3], "dtype": "float32", "dims": dims}


def test_an_onnx_tensor_without_a_shape_is_no_scalar(tmp_path):
    bare, scalar = (field(1, b"x") + field(2, field(1, b"\x08\x01" + shape)) for shape in (b"", field(2, b"")))
    (tmp_path / "m.onnx").write_bytes(field(7, field(11, bare) + field(12, scalar)))
    found = inspect(tmp_path / "m.onnx")["signatures"][""]
    assert found["inputs"][0]["shape"] is None
    assert found["outputs"][0]["shape"] == []


def test_an_onnx_files_parameters_are_those_of_its_initializers_packed_or_not(tmp_path):
    packed, plain = field(1, b"\x02\x03") + b"\x10\x01", b"\x08\x04\x08\x05\x10\x0a"  # [2, 3] float32, [4, 5] float16
    graph = field(5, packed + field(8, b"w")) + field(5, plain + field(8, b"v"))
    (tmp_path / "m.onnx").write_bytes(field(7, graph))
    found = inspect(tmp_path / "m.onnx")
    assert found["parameters"] == 2 * 3 + 4 * 5
    assert found["weights"] == [
        {"name": "w", "shape": [2, 3], "dtype": "float32"},
        {"name": "v", "shape": [4, 5], "dtype": "float16"},
    ]


def test_inspect_names_an_empty_folder(tmp_path):
    with pytest.raises(ModelError, match=r"folder without saved_model.pb"):
        inspect(tmp_path)


def test_bench_refuses_a_file_no_agent_runs(tmp_path):
    (tmp_path / "model.h5").write_bytes(b"x")
    with pytest.raises(ModelError, match="Expected a bundle"):
        find_targets(tmp_path / "model.h5")


def test_bench_measures_the_variants_that_are_on_the_device(tmp_path):
    variants = []
    for id in ("float32", "int8"):
        name = f"{id}.tflite"
        (tmp_path / name).write_bytes(b"x")
        variants.append(
            Variant(id=id, entry=name, files=(name,), format=Format.TFLITE, scheme=Scheme(id), signatures=("infer",))
        )
    files, ends = file_entries(tmp_path), (TensorSpec("x", (None, 2), "float32"),)
    signatures = {"infer": Signature(ends, ends)}
    made = Manifest(name="m", version=1, source={}, files=files, signatures=signatures, variants=tuple(variants))
    (tmp_path / "manifest.json").write_bytes(made.to_bytes())
    (tmp_path / "float32.tflite").unlink()
    assert [target.variant for target in find_targets(tmp_path)] == ["int8"]


def test_a_device_without_a_runtime_is_named_with_the_reason(tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # -S: an environment without packages
    python.chmod(0o755)
    target = BenchTarget(variant="m", folder=tmp_path, entry="m.tflite", format=Format.TFLITE, bytes=1, sha256="0" * 64)
    with pytest.raises(DeviceError, match=rf"^local:{python} runs none of these files: .*No module named 'numpy'"):
        bench([target], BenchOptions(devices=(parse_device(f"local:{python}"),)))


def _npz(**arrays):
    packed = io.BytesIO()
    np.savez(packed, **{name.replace("_", "/", 1): array for name, array in arrays.items()})
    return packed.getvalue()


def _npy(array=np.ones(3)):  # noqa: B008  never changed
    packed = io.BytesIO()
    np.save(packed, array)
    return packed.getvalue()


def _zip(*entries, **how) -> bytes:
    """A zip of these (name, bytes)."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", **how) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return packed.getvalue()


def _overlapping() -> bytes:
    """Twice the same bytes: what unpacks to more than the file holds (https://www.bamsoftware.com/hacks/zipbomb/)."""
    first = _zip(("in/x.npy", _npy(np.zeros(10_000))))
    directory = first[first.index(b"PK\1\2") : first.index(b"PK\5\6")]
    end = bytearray(first[-22:])
    end[8:12], end[12:16] = struct.pack("<HH", 20, 20), struct.pack("<I", 20 * len(directory))
    return first[:-22] + 19 * directory + bytes(end)


def _header(text: str, data: bytes = bytes(24)) -> bytes:
    """An .npy of format 2.0 whose header is this text."""
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text)) + text.encode() + data


TWO = np.ones((2, 3), np.float32)
HUGE = "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 3), }\n"
REFERENCES = {
    "a bomb": (_zip(("in/x.npy", _npy(np.zeros(10_000))), compression=zipfile.ZIP_DEFLATED), "an array is compressed"),
    "arrays that overlap": (_overlapping(), r"16\d{5} bytes in an archive of 8\d{4}"),
    "a million arrays": (_zip(*((f"{i}.npy", b"") for i in range(1025))), "1025 arrays, more than 1024"),
    "a shape of terabytes": (_zip(("in/x.npy", _header(HUGE))), "cannot be read as an .npz file of arrays"),
    "a huge header": (_zip(("in/x.npy", _header(HUGE + " " * (1 << 20)))), "cannot be read as an .npz file of arrays"),
    "a bare .npy": (_npy(), "cannot be read as an .npz file of arrays"),
    "cut": (_npz(in_x=TWO, out_y=TWO)[:-30], "cannot be read as an .npz file of arrays"),
    "a flipped bit": (_npz(in_x=TWO, out_y=TWO).replace(b"\0\0\x80?", b"\0\0\x80>", 1), "Bad CRC"),
    "pickled": (_npz(in_x=np.array([{}]), out_y=TWO), "cannot be read as an .npz file of arrays"),
    "no inputs": (_npz(x=TWO, out_y=TWO), r"holds \['out/y', 'x'\] instead of inputs named in/NAME"),
    "no outputs": (_npz(in_x=TWO), "outputs named out/NAME"),
    "a scalar": (_npz(in_x=np.float32(1), out_y=TWO), r"x has shape \[\]"),
    "no samples": (_npz(in_x=TWO[:0], out_y=TWO[:0]), r"x has shape \[0, 3\] instead of 1 samples"),
    "unequal numbers": (_npz(in_x=TWO, out_y=TWO[:1]), r"y has shape \[1, 3\] instead of 2 samples"),
}


@pytest.mark.parametrize("case", REFERENCES)
def test_a_reference_that_is_not_what_it_should_be_is_refused_in_one_line(tmp_path, case):
    data, message = REFERENCES[case]
    (tmp_path / REFERENCE).write_bytes(data)
    with pytest.raises(DataError, match=message) as refused:
        read_reference(Bundle(tmp_path, None, ""))
    assert "\n" not in str(refused.value)


def test_a_reference_of_more_than_2_gib_is_refused_unread(tmp_path):
    with (tmp_path / REFERENCE).open("wb") as file:
        file.truncate((1 << 31) + 1)  # a hole: it takes no room
    with pytest.raises(DataError, match="has more than 2147483648 bytes"):
        read_reference(Bundle(tmp_path, None, ""))


def test_a_reference_is_read_by_tensor_name_and_may_be_left_out(tmp_path):
    bundle = Bundle(tmp_path, None, "")
    assert read_reference(bundle) is None
    (tmp_path / REFERENCE).write_bytes(_npz(in_file=TWO, out_y=2 * TWO))
    inputs, outputs = read_reference(bundle)
    assert list(inputs) == ["file"] and list(outputs) == ["y"]
    np.testing.assert_array_equal(outputs["y"], 2 * TWO)


def _layer(kind, name, **config):
    return {"class_name": kind, "config": {"name": name, **config}}


@pytest.mark.parametrize(
    ("layer", "names"),
    [
        (_layer("Lambda", "l"), ["l"]),
        (_layer("TimeDistributed", "td", layer=_layer("Lambda", "inner")), ["inner"]),
        (_layer("Functional", "f", layers=[_layer("Bidirectional", "b", layer=_layer("Lambda", "deep"))]), ["deep"]),
        (_layer("Dense", "d", activation={"class_name": "__lambda__", "config": {"value": "4wE="}}), ["d"]),
        (_layer("Dense", "Lambda"), []),
    ],
    ids=["plain", "wrapped", "nested", "argument", "only a name"],
)
def test_layers_that_are_code_are_found_wherever_they_are(tmp_path, layer, names):
    config = _layer("Sequential", "m", layers=[layer])
    assert code_layers(config) == names
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("config.json", json.dumps(config))
    assert inspect(tmp_path / "m.keras")["runs_code"] == names


def test_inspect_counts_the_files_of_a_saved_model_and_nothing_else(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"\x12\x00")  # one empty MetaGraphDef
    (tmp_path / "variables").mkdir()
    (tmp_path / "variables" / "data").write_bytes(bytes(10))
    (tmp_path / "broken").symlink_to("nowhere")
    assert inspect(tmp_path)["bytes"] == 12


@pytest.mark.parametrize(
    ("offset", "value", "why"),
    [(6, 1, "RuntimeError: File .* is encrypted"), (8, 99, "NotImplementedError: "), (None, 0, "error: ")],
    ids=["encrypted", "unknown", "deflate"],
)
def test_a_keras_file_that_cannot_be_unpacked_is_damaged(tmp_path, offset, value, why):
    file = tmp_path / "m.keras"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", json.dumps(_layer("Sequential", "m" * 100)))
    data = bytearray(file.read_bytes())
    if offset is None:
        start = 30 + len("config.json")
        data[start : start + 8] = b"\xff" * 8
    else:  # flags and method of the local header, and 2 bytes further in the central directory's
        data[offset] = data[data.index(b"PK\x01\x02") + 2 + offset] = value
    file.write_bytes(data)
    with pytest.raises(ModelError, match=rf"m\.keras is damaged \({why}"):
        inspect(file)


# A table by hand, https://flatbuffers.dev/internals/: root offset, vtable of two slots, the table, then two vectors
ROOT, VTABLE = struct.pack("<I", 12), struct.pack("<HHHH", 8, 12, 4, 8)
TABLE = struct.pack("<iII", 8, 8, 12)  # 8 back to its vtable; fields at 16 and 20 lead to 24 and 32
BYTES, LONGS = struct.pack("<I3sx", 3, b"abc"), struct.pack("<I2q", 2, -1, 1 << 40)


def test_a_span_is_where_bytes_lie_and_numbers_of_64_bits_are_read_whole():
    schema = {"T": (("span", "span"), ("longs", "[i64]"))}
    found = FlatbufferTable(ROOT + VTABLE + TABLE + BYTES + LONGS, schema).root("T")
    assert found == {"span": (28, 3), "longs": (-1, 1 << 40)}


@pytest.mark.parametrize("cut", range(1, len(LONGS) + len(BYTES)))
def test_a_vector_that_leads_out_of_the_file_is_a_value_error(cut):
    schema = {"T": (("span", "span"), ("longs", "[i64]"))}
    with pytest.raises(ValueError):
        FlatbufferTable((ROOT + VTABLE + TABLE + BYTES + LONGS)[:-cut], schema).root("T")


def test_a_vtable_that_leads_out_of_the_file_is_a_value_error():
    with pytest.raises(ValueError, match="a vtable of 65532 bytes"):
        wide = {"T": tuple((str(i), "u8") for i in range(40))}
        FlatbufferTable(ROOT + struct.pack("<HHHH", 65532, 12, 4, 8) + TABLE, wide).root("T")


def test_a_tflite_is_read_without_a_framework():
    data = (Path(__file__).parents[2] / "golden" / "bundle-1" / "int8.tflite").read_bytes()
    model = read_tflite(data)
    (graph,) = model.graphs
    assert [op.name for op in graph.operators] == ["QUANTIZE", "FULLY_CONNECTED", "SOFTMAX", "DEQUANTIZE"]
    weights = graph.tensors[graph.operators[1].inputs[1]]
    assert (weights.dtype, weights.shape, weights.sizes, weights.constant_bytes) == ("int8", (3, 4), (3, 4), 12)
    assert (graph.tensors[0].shape, graph.tensors[0].sizes) == ((None, 4), (1, 4))
    assert data[weights.constant_at - 4 : weights.constant_at] == struct.pack("<I", weights.constant_bytes)


def test_a_label_tells_environments_apart_and_other_interpreters_by_the_end_of_their_path(tmp_path):
    def label(path: str, mark: str = "") -> str:
        python = tmp_path / path
        python.parent.mkdir(parents=True, exist_ok=True)
        if mark:
            (python.parent.parent / mark).write_text("")
        return Device(f"local:{python}", python).label

    assert label("one/.venv-device/bin/python", "pyvenv.cfg") == "local:.venv-device"
    assert label("conda/envs/py39/bin/python", "conda-meta") == "local:py39"
    assert label("usr/bin/python3.9") == "local:usr/bin/python3.9"
    assert label("pypy/python") == "local:pypy/python"
    assert Device("local:/python", Path("/python")).label == "local:python"
    assert Device("local", Path("/usr/bin/python3")).label == "local"


def test_operators_in_branches_and_functions_of_an_onnx_file_are_counted(tmp_path):
    def node(kind, *bodies):
        return field(4, kind.encode()) + b"".join(field(5, field(6, body)) for body in bodies)

    inner = field(1, node("Relu")) + field(1, node("If", field(1, node("Relu"))))
    graph = field(1, node("If", inner, field(1, node("Neg")))) + field(1, node("Relu"))
    (tmp_path / "m.onnx").write_bytes(field(7, graph) + field(25, field(7, node("Gelu"))))
    assert inspect(tmp_path / "m.onnx")["operators"] == {"Relu": 3, "If": 2, "Neg": 1, "Gelu": 1}


def test_a_keras_files_inputs_are_shown_with_their_free_sizes(tmp_path):
    layer = {"class_name": "InputLayer", "config": {"name": "x", "batch_shape": [None, 3], "dtype": "float32"}}
    config = {"class_name": "Functional", "config": {"name": "m", "layers": [layer]}}
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("config.json", json.dumps(config))
    found = inspect(tmp_path / "m.keras")["signatures"][""]
    assert found == {"inputs": [{"name": "x", "shape": [None, 3], "dtype": "float32"}], "outputs": []}
