"""HDF5 files as h5py writes them, read without the HDF5 library; real models; damage."""

import json
import struct
import zipfile

import numpy as np
import pytest
from mutated_files import mutated

from edgeloop.cli import run
from edgeloop.errors import ModelError
from edgeloop.files.hdf5 import read_hdf5
from edgeloop.files.inspect import inspect

h5py = pytest.importorskip("h5py")

LAYERS = [
    {"class_name": "InputLayer", "config": {"name": "x", "batch_input_shape": [None, 4]}, "inbound_nodes": []},
    {"class_name": "Dense", "config": {"name": "d", "units": 3}, "inbound_nodes": [[["x", 0, 0, {}]]]},
]
CONFIG = {"class_name": "Functional", "config": {"name": "m", "layers": LAYERS, "output_layers": [["d", 0, 0]]}}


def written(path, libver=None):
    """A model as Keras 2 and 3 write it, with an optimizer's state and more groups than one node of a tree holds."""
    with h5py.File(path, "w", libver=libver) as file:
        file.attrs["model_config"] = json.dumps(CONFIG)
        file.attrs["backend"] = b"tensorflow"
        weights = file.create_group("model_weights")
        weights.create_dataset("d/d/kernel:0", data=np.ones((4, 3), np.float32))
        weights.create_dataset("d/d/bias:0", data=np.ones(3, np.float16), chunks=(2,), compression="gzip")
        file.create_dataset("optimizer_weights/adam/iter:0", data=np.int64(3))
        for k in range(60 if libver is None else 5):
            weights.create_dataset(f"many/w{k:02}", data=np.zeros(1, np.uint8))
    return path


@pytest.mark.parametrize("libver", [None, "v108", "latest"])
def test_names_shapes_and_types_are_those_that_h5py_reads(tmp_path, libver):
    path = written(tmp_path / "m.h5", libver)
    found, there = read_hdf5(memoryview(path.read_bytes())), {}
    with h5py.File(path) as file:
        file.visititems(lambda n, o: there.update({n: (o.shape, str(o.dtype))}) if hasattr(o, "shape") else None)
    assert {d.name: (d.shape, d.dtype) for d in found.datasets} == there
    assert json.loads(found.attributes["model_config"]) == CONFIG
    assert found.attributes["backend"] == "tensorflow"


def test_a_model_has_ends_layers_and_parameters_without_the_optimizers(tmp_path):
    found = inspect(written(tmp_path / "m.h5"))
    assert found["signatures"][""]["inputs"] == [{"name": "x", "shape": [None, 4], "dtype": "float32"}]
    assert found["signatures"][""]["outputs"] == [{"name": "d", "shape": [None, 3], "dtype": "float32"}]
    assert [layer["kind"] for layer in found["layers"]] == ["InputLayer", "Dense"]
    assert found["parameters"] == 4 * 3 + 3 + 60


def test_weights_alone_are_shown_with_the_layers_they_belong_to(tmp_path, capsys):
    with h5py.File(tmp_path / "w.hdf5", "w") as file:
        file.create_dataset("layers/dense/vars/0", data=np.ones((4, 3), np.float32))
        file.create_dataset("layers/dropout/seed_generator/vars/0", data=np.zeros(2, np.uint32))
        file.create_dataset("optimizer/vars/0", data=np.int64(3))
    found = inspect(tmp_path / "w.hdf5")
    assert (found["format"], found["parameters"]) == ("hdf5-weights", 12)
    assert [layer["name"] for layer in found["layers"]] == ["dense", "dropout"]
    assert run(["inspect", str(tmp_path / "w.hdf5")]) == 0
    assert "layers/dense/vars/0" in capsys.readouterr().out


def test_links_lead_nowhere_and_a_group_that_holds_itself_ends(tmp_path):
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["outside"] = h5py.ExternalLink("/etc/passwd", "/")
        file["soft"] = h5py.SoftLink("/a")
        file.create_group("a")["again"] = file["/"]
        file["a"].create_dataset("w", data=np.ones(2))
    found = inspect(tmp_path / "m.h5")
    assert [weight["name"] for weight in found["weights"]] == ["a/w"]


def test_the_mlperf_classifier_has_as_many_parameters_as_its_benchmark_says(shared):
    # https://github.com/mlcommons/tiny/tree/master/benchmark/training/image_classification: 78,666
    found = inspect(shared / "models" / "mlperf_tiny_ic" / "pretrainedResnet.h5")
    assert found["parameters"] == 78_666
    (output,) = found["signatures"][""]["outputs"]
    assert output == {"name": "dense", "shape": [None, 10], "dtype": "float32"}


def test_a_mutated_file_is_read_or_refused_in_one_line(tmp_path):
    data, refused = written(tmp_path / "m.h5").read_bytes(), 0
    for seed in range(300):
        (tmp_path / "m.h5").write_bytes(mutated(data, seed))
        try:
            inspect(tmp_path / "m.h5")
        except ModelError as e:
            refused += 1
            assert "\n" not in str(e)
    assert 20 < refused < 300


def test_a_keras_file_whose_directory_would_fill_the_memory_is_refused(tmp_path):
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, len(data) - 10, 5 << 20)  # size of the directory in the end record
    path.write_bytes(data)
    with pytest.raises(ModelError, match="directory of more than"):
        inspect(path)
    data[-18:-14] = b"PK\5\6"  # the numbers of disks, which look like the beginning of a later end record
    path.write_bytes(data)
    with pytest.raises(ModelError, match="directory of more than"):
        inspect(path)


def test_the_zip64_record_that_zipfile_reads_says_how_large_the_directory_is(tmp_path):
    """zipfile reads it just before its locator, wherever the locator says it is."""
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", bytes(64))  # content from byte 31 on: a record at 0 would have a directory of 0 bytes
        archive.writestr("config.json", "{}")
    data = path.read_bytes()
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 2, 2, 5 << 20, 0)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, 0, 1)
    path.write_bytes(data[:-22] + record + locator + data[-22:])
    with pytest.raises(ModelError, match=r"directory of more than|Corrupt zip64"):  # the second in later Pythons
        inspect(path)
