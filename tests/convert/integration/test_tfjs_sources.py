"""TF.js models as sources: what Keras answered before they were written, they answer when read back."""

from __future__ import annotations

import json
from importlib.util import find_spec

import hostile_files as made
import numpy as np
import pytest

from edgeloop.convert.forms import tflite
from edgeloop.convert.forms.freeze import freeze
from edgeloop.convert.forms.tfjs import TfjsOptions, Weights, to_tfjs
from edgeloop.convert.sources.keras_source import functional, keras_source
from edgeloop.convert.sources.source import open_source
from edgeloop.convert.sources.tflite_source import tflite_call
from edgeloop.errors import ModelError
from edgeloop.files.flatbuffer import read_tflite

X = np.random.default_rng(0).random((4, 16, 16, 3), np.float32)
# largest difference: uint8 has 255 steps of a weight's range, float16 11 bits; measured 1.2e-4 and 1.9e-5
WITHIN = {Weights.FLOAT32: 1e-6, Weights.FLOAT16: 1e-4, Weights.UINT8: 1e-3}


@pytest.fixture(scope="module")
def network():
    """What TF.js fuses: biases and activations into convolutions and products, PReLU of both signs."""
    keras = pytest.importorskip("keras")
    if find_spec("tensorflowjs") is None:
        pytest.skip("tensorflowjs is not installed")
    keras.utils.set_random_seed(0)
    layers, constant = keras.layers, keras.initializers.Constant
    image = keras.Input((16, 16, 3), name="image")
    h = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(image)
    h = layers.DepthwiseConv2D(3, activation="relu6")(h)
    h = layers.PReLU(shared_axes=[1, 2], alpha_initializer=constant(0.3))(layers.Conv2D(8, 1)(h))
    h = layers.LeakyReLU(0.1)(layers.SeparableConv2D(6, 3)(layers.BatchNormalization()(h)))
    h = layers.PReLU(alpha_initializer=constant(-0.2))(h)
    h = layers.GlobalAveragePooling2D()(h)
    h = layers.Add()([layers.Dense(6)(h), h])  # a fused "bias" that is a whole tensor
    ends = [layers.Dense(5, activation="elu", name="a")(h), layers.Dense(3, activation="sigmoid", name="b")(h)]
    return keras.Model(image, ends)


@pytest.mark.parametrize("weights", Weights)
def test_a_graph_model_answers_what_the_keras_model_did_that_it_was_made_from(network, tmp_path, weights):
    source = keras_source(tmp_path, functional(network))
    to_tfjs(freeze(source).lowered, source, tmp_path, TfjsOptions(weights=weights, shard_bytes=1000))
    read = open_source(tmp_path / "model.json")
    assert [(t.name, t.shape) for t in (*read.inputs, *read.outputs)] == [
        ("image", (None, 16, 16, 3)),
        ("a", (None, 5)),
        ("b", (None, 3)),
    ]
    got = read.call({"image": X})
    for name, expected in zip(("a", "b"), network(X), strict=True):
        np.testing.assert_allclose(got[name], expected, atol=WITHIN[weights])
    data = tflite.lower(freeze(read).composite, read)
    assert "PRELU" in {op.name for op in read_tflite(data).graphs[0].operators}
    np.testing.assert_allclose(tflite_call(data, read.signature, tmp_path)({"image": X})["a"], got["a"], atol=1e-6)


def test_a_graph_model_that_was_written_by_hand_adds_its_weights(tmp_path):
    source = open_source(made.tfjs(tmp_path))  # y = x + [3, 4], without a signature
    assert [t.name for t in (*source.inputs, *source.outputs)] == ["x", "y"]
    np.testing.assert_array_equal(source.call({"x": np.float32([[1, 2]])})["y"], [[4, 6]])


@pytest.mark.parametrize(
    ("stored", "quantization", "expected"),
    [
        (np.uint8([0, 255]), {"dtype": "uint8", "scale": 0.5, "min": -1.0}, [-1.0, 126.5]),
        (np.uint16([0, 65535]), {"dtype": "uint16", "scale": 0.25, "min": 2.0}, [2.0, 16385.75]),
        (np.float16([1.5, -2.25]), {"dtype": "float16"}, [1.5, -2.25]),
    ],
)
def test_quantized_weights_are_the_numbers_that_tfjs_makes_of_them(tmp_path, stored, quantization, expected):
    path = made.tfjs(tmp_path, data=stored.tobytes())
    model = json.loads(path.read_bytes())
    model["weightsManifest"][0]["weights"][0]["quantization"] = quantization
    path.write_text(json.dumps(model))
    np.testing.assert_array_equal(open_source(tmp_path).call({"x": np.zeros((1, 2), np.float32)})["y"], [expected])


def as_layers_model(folder, model, name_of):
    """model.json as TF.js writes it, with the names that `name_of(layer, index, variable)` gives the weights."""
    held = [(name_of(layer, i, v), np.asarray(v)) for layer in model.layers for i, v in enumerate(layer.weights)]
    (folder / "weights.bin").write_bytes(b"".join(values.tobytes() for _, values in held))
    entries = [{"name": name, "shape": list(values.shape), "dtype": "float32"} for name, values in held]
    content = {
        "format": "layers-model",
        "modelTopology": {"model_config": json.loads(model.to_json())},
        "weightsManifest": [{"paths": ["weights.bin"], "weights": entries}],
    }
    (folder / "model.json").write_text(json.dumps(content))
    return folder / "model.json"


NAMES = {
    "tf_keras": lambda layer, i, v: v.name.split(":")[0],
    "tf_keras without the cell": lambda layer, i, v: v.name.split(":")[0].replace("lstm_cell/", ""),
    "keras": lambda layer, i, v: f"{layer.name}/{i}",
    "of another model": lambda layer, i, v: f"{layer.name}_7/{i}",
}


@pytest.mark.parametrize("names", NAMES)
def test_a_layers_model_answers_what_the_model_did_that_it_was_made_from(tmp_path, names):
    keras = pytest.importorskip("keras" if names == "keras" else "tf_keras")
    keras.utils.set_random_seed(2)
    layers = keras.layers
    model = keras.Sequential([keras.Input((5, 3)), layers.LSTM(4, name="lstm"), layers.Dense(2, name="y")])
    x = np.random.default_rng(1).random((2, 5, 3), np.float32)
    source = open_source(as_layers_model(tmp_path, model, NAMES[names]))
    (got,) = source.call({source.inputs[0].name: x}).values()
    np.testing.assert_allclose(got, model(x), atol=1e-6)
    assert any("taken in their order" in note for note in source.notes) is (names == "of another model")


def test_a_layers_model_without_a_weight_is_refused_by_the_weights_name(tmp_path):
    keras = pytest.importorskip("tf_keras")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="y")])
    path = as_layers_model(tmp_path, model, NAMES["tf_keras"])
    content = json.loads(path.read_bytes())
    content["weightsManifest"][0]["weights"][1].update(name="z/bias", shape=[1, 2])
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match="has no weights for y/bias"):
        open_source(path)


def test_a_public_layers_model_gives_what_its_weights_say_by_hand(shared):
    path = shared / "models" / "tfjs_abalone" / "model.json"
    values = np.frombuffer(path.with_name("weights.bin").read_bytes(), "<f4")
    pieces, at = [], 0
    for shape in ((8, 50), (50,), (50, 50), (50,), (50, 1), (1,)):
        pieces.append(values[at : at + np.prod(shape)].reshape(shape))
        at += np.prod(shape)
    x = np.random.default_rng(0).random((5, 8), np.float32)
    h = x
    for weights, bias in zip(pieces[0:4:2], pieces[1:4:2], strict=True):
        h = 1 / (1 + np.exp(-(h @ weights + bias)))
    source = open_source(path)
    (got,) = source.call({source.inputs[0].name: x}).values()
    np.testing.assert_allclose(got, h @ pieces[4] + pieces[5], rtol=1e-5)


@pytest.mark.parametrize(
    ("said", "shape"),
    [
        ({"dim": [{"size": "3"}, {"size": "2"}]}, (3, 2)),
        ({"dim": [{"size": "-1"}, {"size": "2"}]}, (None, 2)),
        ({"unknownRank": True}, (None, 2)),
        ({}, (None, 2)),  # a scalar, which the graph contradicts
    ],
)
def test_a_size_that_the_graph_leaves_free_is_what_the_signature_says(tmp_path, said, shape):
    path = made.tfjs(tmp_path)
    model = json.loads(path.read_bytes())
    model["signature"] = {
        "inputs": {"given": {"name": "x:0", "dtype": "DT_FLOAT", "tensorShape": said}},
        "outputs": {"sum": {"name": "y:0"}},
    }
    path.write_text(json.dumps(model))
    (given,), (answer,) = open_source(path).inputs, open_source(path).outputs
    assert (given.name, given.shape, answer.name) == ("given", shape, "sum")
