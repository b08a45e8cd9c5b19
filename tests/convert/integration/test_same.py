"""`edgeloop same`: two files of one net agree in every pair of formats; two of other weights do not, and say where."""

import json
import shutil
import subprocess
import sys

import hostile_files as made
import numpy as np
import pytest

from edgeloop import cli
from edgeloop.bundle import Format, Scheme
from edgeloop.convert.convert import convert
from edgeloop.convert.options import ConvertOptions
from edgeloop.convert.same import runnable
from edgeloop.convert.same.runnable import open_runnable
from edgeloop.convert.same.same import SameOptions, same
from edgeloop.errors import DataError, MissingExtra, ModelError, ParityError


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """model.keras, its bundle b/, eval.npz, and other.keras with other weights in its second layer."""
    keras = pytest.importorskip("keras")
    folder = tmp_path_factory.mktemp("pair")
    keras.utils.set_random_seed(5)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((6, 8, 3), name="image"),
            layers.Conv2D(4, 3, activation="relu", name="stem"),
            layers.Flatten(),
            layers.Dense(8, activation="relu", name="hidden"),
            layers.Dense(3, activation="softmax", name="kind"),
        ]
    )
    model.save(folder / "model.keras")
    x = np.random.default_rng(0).random((64, 6, 8, 3), np.float32)
    np.savez(folder / "eval.npz", x=x)
    options = ConvertOptions(schemes=(Scheme.FLOAT32, Scheme.INT8), calibration=folder / "eval.npz")
    convert(folder / "model.keras", folder / "b", options)
    model.get_layer("hidden").set_weights([w + 0.1 for w in model.get_layer("hidden").get_weights()])
    model.save(folder / "other.keras")
    convert(folder / "other.keras", folder / "o", ConvertOptions(to=(Format.TFLITE,), schemes=(Scheme.FLOAT32,)))
    return folder


@pytest.mark.parametrize("second", ["b/float32.tflite", "b/int8.tflite", "b/model.onnx", "b/tfjs", "b"])
def test_a_model_and_each_of_its_forms_are_the_same(pair, second):
    found = same(pair / "model.keras", pair / second, SameOptions(evaluation=pair / "eval.npz"))
    assert found.same and found.samples == 64 and found.real and found.first_difference is None
    (row,) = found.parity
    # float32: 192 products rounded by 2^-24 (-144 dB, +23). int8: half a step of 1/255 is -59 dB, some ten in series
    assert (row.snr_db is None or row.snr_db > (34 if "int8" in second else 121)) and row.top1_agreement == 1.0


def test_the_first_layer_with_other_weights_is_named(pair):
    found = same(pair / "model.keras", pair / "other.keras")
    assert not found.same and not found.real
    assert found.first_difference.startswith("hidden, ")
    files = same(pair / "b/float32.tflite", pair / "o/float32.tflite")
    assert not files.same and "hidden" in files.first_difference


def test_a_file_beside_a_tfjs_model_is_compared_itself(pair, tmp_path):
    shutil.copytree(pair / "b/tfjs", tmp_path / "exports")
    shutil.copy(pair / "o/float32.tflite", tmp_path / "exports/other.tflite")
    found = same(pair / "model.keras", tmp_path / "exports/other.tflite")
    assert not found.same and found.second["runtime"] == "litert"


def test_a_tfjs_model_that_names_no_inputs_runs_in_tensorflow(tmp_path):
    keras = pytest.importorskip("keras")
    x = keras.Input((2,), name="x")
    keras.Model(x, x + np.float32([3, 4])).save(tmp_path / "sum.keras")
    graph = made.tfjs(tmp_path)  # y = x + [3, 4], without a signature
    found = same(tmp_path / "sum.keras", graph)
    assert found.same and found.second["runtime"] == "tensorflow"


def test_a_tfjs_model_with_weights_outside_its_folder_is_refused(pair, tmp_path):
    shutil.copytree(pair / "b/tfjs", tmp_path / "led")
    model = json.loads((tmp_path / "led/model.json").read_text())
    model["weightsManifest"][0]["paths"] = ["../secret.bin"]
    (tmp_path / "led/model.json").write_text(json.dumps(model))
    with pytest.raises(ModelError, match=r"secret\.bin"):
        same(pair / "model.keras", tmp_path / "led")


def test_a_channels_first_export_is_the_same(pair, tmp_path):
    """What PyTorch and many ONNX exports have: the same net behind a transposition of its input."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(pair / "b/model.onnx")
    given = model.graph.input[0]
    inner = f"{given.name}_last"
    for node in model.graph.node:
        node.input[:] = [inner if name == given.name else name for name in node.input]
    model.graph.node.insert(0, onnx.helper.make_node("Transpose", [given.name], [inner], perm=[0, 2, 3, 1]))
    dims = given.type.tensor_type.shape.dim
    for dim, size in zip(dims[1:], (3, 6, 8), strict=True):
        dim.dim_value = size
    onnx.save(model, tmp_path / "first.onnx")
    found = same(pair / "model.keras", tmp_path / "first.onnx")
    assert found.same and found.transposed == ("image",)


def test_the_command_ends_with_5_and_prints_the_table_where_they_differ(pair):
    line = [sys.executable, "-m", "edgeloop", "same", pair / "b/model.onnx", pair / "o/float32.tflite", "--json"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.returncode == 5
    document = json.loads(done.stdout)
    assert document["same"] is False and document["outputs"][0]["passed"] is False
    assert "does not compute what" in document["error"]["found"]


def test_models_with_other_inputs_are_told_apart_before_they_run(pair, tmp_path):
    keras = pytest.importorskip("keras")
    keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(3)]).save(tmp_path / "small.keras")
    with pytest.raises(ParityError, match=r"image \[\?, 6, 8, 3\]; the second has x \[\?, 4\]"):
        same(pair / "model.keras", tmp_path / "small.keras")


def two_inputs(path, order, weights):
    """y = [a, b] W, its inputs in this order."""
    keras = pytest.importorskip("keras")
    ends = {name: keras.Input((3,), name=name) for name in "ab"}
    joined = keras.layers.Concatenate()([ends["a"], ends["b"]])
    kept = keras.layers.Dense(2, name="kept", kernel_initializer="ones")(joined)
    model = keras.Model([ends[name] for name in order], keras.layers.Dense(2, name="tuned")(kept))
    model.get_layer("tuned").set_weights([np.full((2, 2), weights), np.zeros(2)])
    model.get_layer("kept").set_weights([np.arange(12.0).reshape(6, 2), np.zeros(2)])
    model.save(path)


def test_layers_are_compared_on_the_same_inputs_in_whichever_order_a_model_takes_them(tmp_path):
    two_inputs(tmp_path / "ab.keras", "ab", 1.0)
    two_inputs(tmp_path / "ba.keras", "ba", 2.0)
    assert same(tmp_path / "ab.keras", tmp_path / "ba.keras").first_difference.startswith("tuned, ")


LAYERS = """
import keras

class Shift(keras.layers.Layer):
    def call(self, x):
        return x + 1.0
"""


def test_own_layers_come_from_an_import_and_what_was_allowed_is_told(tmp_path, capfd):
    keras = pytest.importorskip("keras")
    (tmp_path / "own.py").write_text(LAYERS)
    space = {"__name__": "own"}
    exec(LAYERS, space)
    x = keras.Input((3,), name="x")
    keras.Model(x, space["Shift"]()(x)).save(tmp_path / "own.keras")
    keras.Model(x, keras.layers.Rescaling(1.0, 1.0)(x)).save(tmp_path / "plain.keras")
    with pytest.raises(ModelError, match=r"'Shift' of the module 'own'.* or pass --import F\.py"):
        same(tmp_path / "own.keras", tmp_path / "plain.keras")
    line = ["same", tmp_path / "own.keras", tmp_path / "plain.keras", "--import", tmp_path / "own.py", "--json"]
    assert cli.run([*map(str, line)]) == 0
    notes = json.loads(capfd.readouterr().out)["notes"]
    assert notes[0] == "--import: the Python code of own.py was run, with the rights of --allow-unsafe."
    assert notes[1].startswith("--allow-unsafe: own.keras has 'Shift' of the module 'own'")


def test_a_tfjs_model_without_its_runner_names_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(runnable, "runners", dict)
    graph = made.tfjs(tmp_path)
    model = json.loads((graph if graph.is_file() else graph / "model.json").read_text())
    model["signature"] = {"inputs": {"x": {"name": "x:0"}}, "outputs": {"y": {"name": "y:0"}}}
    (graph if graph.is_file() else graph / "model.json").write_text(json.dumps(model))
    with pytest.raises(MissingExtra, match=r"Run: pip install 'edgeloop\[browser\]'"), open_runnable(graph):
        pass


def test_two_models_that_answer_nan_are_not_the_same(tmp_path):
    keras = pytest.importorskip("keras")
    x = keras.Input((4,), name="x")
    keras.Model(x, keras.ops.log(x - 2.0)).save(tmp_path / "nan.keras")  # of generated inputs below 1
    with pytest.raises(DataError, match=r"itself returns NaN or infinity in .* for generated inputs.*--eval"):
        same(tmp_path / "nan.keras", tmp_path / "nan.keras")


def test_a_file_that_is_no_model_is_refused(pair, tmp_path):
    (tmp_path / "page.tflite").write_text("<html>not found</html>")
    with pytest.raises(ModelError, match=r"page\.tflite is an HTML page"):
        same(pair / "model.keras", tmp_path / "page.tflite")
