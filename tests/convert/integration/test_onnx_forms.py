"""An .onnx goes the way of any other source: every scheme, TF.js, ONNX again, each proved; and `same` finds it equal.

make soak ARGS='-k onnx_forms -s'      every net; `make test` takes one
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from sweeps import swept

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("tensorflow")

import onnx
from onnx_exports import EXPORTS

from edgeloop.bundle import MANIFEST
from edgeloop.convert.convert import convert
from edgeloop.convert.options import ConvertOptions
from edgeloop.convert.same.same import SameOptions, same

SAMPLES = 32
FORMS = {"float32", "float16", "dynamic", "int8", "onnx", "onnx-int8", "tfjs"}
# what a net has instead of all of FORMS
NETS = {
    "residual_of_equal_sizes": FORMS,
    "mobile_net_with_squeeze_and_excitation": FORMS,
    "transformer_with_free_batch_and_length": FORMS,
    "channel_shuffle_and_slices_by_computed_sizes": FORMS,
    "lstm_of_10_steps": FORMS,
    "gru_of_free_length": FORMS - {"int8"} | {"mixed"},  # its loop stays in float32
    "embedding_with_the_mask_of_bert": FORMS - {"float16", "dynamic", "int8"} | {"mixed"},  # no weights but a table
    "head_of_a_yolo": FORMS,
}
FEW_WEIGHTS = (  # whose onnx-int8 is no smaller than its float32
    *("residual_of_equal_sizes", "lstm_of_10_steps", "gru_of_free_length", "embedding_with_the_mask_of_bert"),
    "head_of_a_yolo",
)


def saved(name, folder):
    """The file, and an .npz of SAMPLES inputs of the sizes that its feed has."""
    model, feeds = EXPORTS[name]()
    onnx.save(model, folder / "net.onnx")
    rng = np.random.default_rng(5)
    arrays = {}
    for key, value in feeds.items():
        shape = (SAMPLES, *value.shape[1:])
        real = value.dtype.kind == "f"
        arrays[key] = rng.standard_normal(shape).astype(np.float32) if real else rng.integers(0, 2, shape)
    np.savez(folder / "inputs.npz", **arrays)
    return folder / "net.onnx", folder / "inputs.npz"


@swept("names", ["residual_of_equal_sizes"], NETS, pytest.mark.soak)
@pytest.mark.timeout(3600)
def test_an_onnx_file_becomes_every_form_each_proved_on_its_runtimes_and_is_the_same_as_each(tmp_path, names):
    for name in names:
        (tmp_path / name).mkdir()
        path, inputs = saved(name, tmp_path / name)
        bundle = convert(path, tmp_path / name / "out", ConvertOptions(calibration=inputs)).bundle
        runtimes = {v.id: set(v.requires.runtimes) for v in bundle.variants}
        useless = {out.id for out in bundle.manifest.left_out if out.reason.startswith("not smaller")}
        assert set(runtimes) | useless == NETS[name], name
        assert ("onnx-int8" in useless) is (name in FEW_WEIGHTS), name
        assert runtimes["float32"] == {"litert", "tflite-runtime"}, name
        assert same(path, tmp_path / name / "out" / "float32.tflite", SameOptions(evaluation=inputs)).same, name


def test_two_processes_write_the_same_bytes_of_every_form_of_a_detector(tmp_path):
    """Hashes of names differ in the parents, addresses of objects in the workers too; both order sets."""
    path, inputs = saved("head_of_a_yolo", tmp_path)
    found = []
    for seed in "12":
        line = ["convert", path, "-o", tmp_path / seed, "--calibration", inputs, "--no-cache"]
        subprocess.run(
            [sys.executable, "-m", "edgeloop.cli", *map(str, line)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.DEVNULL,
            check=True,
            timeout=300,
        )
        found.append((tmp_path / seed / MANIFEST).read_bytes())
    assert found[0] == found[1]
    manifest = json.loads(found[0])
    assert {one["id"] for one in (*manifest["variants"], *manifest.get("left_out", ()))} == FORMS
