"""A .tflite of another age or tool as a source: what LiteRT answers to it, every scheme answers."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from signal_to_noise import snr_db

from edgeloop.bundle import Scheme, Signature
from edgeloop.convert.forms import tflite
from edgeloop.convert.forms.describe import describe
from edgeloop.convert.forms.flatbuffer_tree import read_tree, write_tree
from edgeloop.convert.forms.metadata import with_metadata
from edgeloop.convert.forms.onnx import tflite_to_onnx
from edgeloop.convert.samples import Samples
from edgeloop.convert.sources.source import open_source
from edgeloop.convert.sources.tflite_source import tflite_call
from edgeloop.errors import ModelError
from edgeloop.files.metadata import read_metadata

X = np.random.default_rng(0).random((32, 8, 8, 3), np.float32)
# dB, in the network's two layers. float16: both with weights off by 2^-11 at most. 8 bits: evenly spread weights are
# 48 off (127 steps); dynamic rounds four times, weights and inputs: 42, less 2 for inputs that fill their range badly;
# int8 six times: 40, less 6 for ranges that are filled by half. Measured 75, 44, 38
FLOORS = {Scheme.FLOAT16: 60, Scheme.DYNAMIC: 40, Scheme.INT8: 34}


@pytest.fixture(scope="module")
def network():
    """A convolution and a dense layer, large enough for every scheme to quantize."""
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 3), name="x"),
            layers.Conv2D(64, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(32, name="y"),
        ]
    )


def without_names(tree):
    for graph in tree.subgraphs:
        for tensor in graph.tensors:
            tensor.name = None
    tree.signatureDefs = None


def old_codes(tree):
    for code in tree.operatorCodes:
        code.builtinCode = 0


@pytest.fixture(scope="module")
def files(network, tmp_path_factory):
    """The same network as several tools write it."""
    tf = pytest.importorskip("tensorflow")
    folder = tmp_path_factory.mktemp("files")
    for name, types, change in (
        ("old_codes", None, old_codes),
        ("without_names", None, without_names),
        ("float16", [tf.float16], lambda tree: (old_codes(tree), without_names(tree))),
    ):
        converter = tf.lite.TFLiteConverter.from_keras_model(network)
        if types:
            converter.optimizations, converter.target_spec.supported_types = [tf.lite.Optimize.DEFAULT], types
        tree = read_tree(converter.convert())
        change(tree)
        (folder / f"{name}.tflite").write_bytes(write_tree(tree))
    return folder


@pytest.mark.parametrize("name", ["old_codes", "without_names", "float16"])
def test_every_scheme_of_an_odd_file_answers_like_the_network_it_was(files, network, name):
    source = open_source(files / f"{name}.tflite")
    (given,), (answer,) = source.inputs, source.outputs
    expected = network.predict(X, verbose=0)
    samples = Samples(inputs={given.name: X})
    calibration = tflite.calibrate(source.flatbuffer, source, samples)
    for scheme, floor in FLOORS.items():
        data = tflite.quantize(source.flatbuffer, scheme, calibration)
        got = tflite_call(data, source.signature, source.path)({given.name: X})[answer.name]
        assert snr_db(expected, got) > floor, scheme
    if name == "without_names":
        assert (given.name, answer.name) == ("input", "output")


def test_the_branches_of_an_if_are_told_apart_though_they_name_their_tensors_alike(tmp_path):
    tf = pytest.importorskip("tensorflow")
    rng = np.random.default_rng(1)
    more, less = rng.standard_normal((2, 64, 32)).astype(np.float32)

    class Branches(tf.Module):
        def __init__(self):
            self.more, self.less = tf.Variable(more), tf.Variable(less)

        @tf.function(input_signature=[tf.TensorSpec([1, 64], tf.float32, name="x")])
        def serve(self, x):
            return {"y": tf.cond(tf.reduce_mean(x) > 0.0, lambda: x @ self.more, lambda: x @ self.less)}

    module = Branches()
    tf.saved_model.save(module, tmp_path / "if", signatures={"serving_default": module.serve})
    data = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "if")).convert()
    (tmp_path / "if.tflite").write_bytes(data)
    source = open_source(tmp_path / "if.tflite")
    small = tflite.quantize(source.flatbuffer, Scheme.DYNAMIC)
    assert len(small) < 0.6 * len(source.flatbuffer)
    call = tflite_call(small, source.signature, source.path)
    for sign, weights in ((1, more), (-1, less)):
        x = (sign * np.abs(rng.standard_normal((1, 64)))).astype(np.float32)
        (got,) = call({source.inputs[0].name: x}).values()
        assert snr_db(x @ weights, got) > 30


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """Files of y = x @ W, whose other ends are odd."""
    tf = pytest.importorskip("tensorflow")
    folder = tmp_path_factory.mktemp("ends")
    weights = tf.constant(np.random.default_rng(2).standard_normal((64, 4)), tf.float32)
    x, text = tf.TensorSpec([1, 64], tf.float32, name="x"), tf.TensorSpec([1], tf.string, name="words")
    functions = {
        "input_as_output": (lambda x: {"y": x @ weights, "same": x}, x),
        "one_tensor_twice": (lambda x: (lambda y: {"a": y, "b": y})(x @ weights), x),
        "constant_output": (lambda x: {"y": x @ weights, "c": tf.constant([[1.0, 2.0]])}, x),
        "scalar_output": (lambda x: {"y": tf.reduce_sum(x @ weights)}, x),
        "text": (lambda words: {"y": tf.where(tf.equal(words, "a"), 1.0, 0.0)}, text),
    }
    for name, (function, spec) in functions.items():
        traced = tf.function(function, input_signature=[spec]).get_concrete_function()
        converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], tf.Module())
        (folder / f"{name}.tflite").write_bytes(converter.convert())
    return folder


@pytest.mark.parametrize("name", ["input_as_output", "one_tensor_twice", "constant_output", "scalar_output"])
def test_odd_outputs_are_the_same_in_onnx_and_described_in_the_tflite(ends, name, monkeypatch):
    onnxruntime, graph = pytest.importorskip("onnxruntime"), pytest.importorskip("tf2onnx.graph")
    monkeypatch.setattr(graph.Node, "__hash__", object.__hash__)
    source = open_source(ends / f"{name}.tflite")
    x = np.random.default_rng(3).standard_normal((1, 64)).astype(np.float32)
    expected = source.call({"x": x})
    session = onnxruntime.InferenceSession(tflite_to_onnx(source.flatbuffer, source))
    assert graph.Node.__hash__ is not object.__hash__  # its sets of nodes would go by addresses: test_node_order.py
    outputs = [value.name for value in session.get_outputs()]
    for output, got in zip(outputs, session.run(None, {"x": x}), strict=True):
        np.testing.assert_allclose(got, expected[output], atol=1e-5)
    assert set(outputs) == set(expected) == {spec.name for spec in source.outputs}
    signature = Signature(source.inputs, source.outputs)
    described = read_metadata(with_metadata(source.flatbuffer, describe("m", [signature])))
    assert {tensor.name for tensor in described.outputs} <= set(expected)


def test_a_file_that_takes_text_is_refused_with_what_to_do(ends):
    with pytest.raises(ModelError, match=r"takes text in 'words'.*Look words up outside of the model"):
        open_source(ends / "text.tflite")


def test_a_custom_operator_that_litert_has_runs_and_stays(tmp_path):
    """MediaPipe's transposed convolution with a bias: 2 x 2 weights laid down at each pixel, 2 apart, plus 10."""
    weights = np.float32([[1, 2], [3, 4]])
    constants = {"weights": weights.reshape(1, 2, 2, 1), "bias": np.float32([10])}
    code = schema.OperatorCodeT(builtinCode=32, deprecatedBuiltinCode=32, customCode=b"Convolution2DTransposeBias")
    tensors = [
        schema.TensorT(name=name.encode(), shape=shape, buffer=buffer, type=schema.TensorType.FLOAT32)
        for name, shape, buffer in (
            ("x", [1, 2, 2, 1], 0),
            ("weights", [1, 2, 2, 1], 1),
            ("bias", [1], 2),
            ("y", [1, 4, 4, 1], 0),
        )
    ]
    # TfLiteTransposeConvParams: padding (2: valid), stride width, stride height
    options = np.int32([2, 2, 2, 0, 0]).view(np.uint8)
    operator = schema.OperatorT(opcodeIndex=0, inputs=[0, 1, 2], outputs=[3], customOptions=options)
    graph = schema.SubGraphT(tensors=tensors, inputs=[0], outputs=[3], operators=[operator])
    buffers = [schema.BufferT(), *(schema.BufferT(data=v.view(np.uint8).ravel()) for v in constants.values())]
    model = schema.ModelT(version=3, operatorCodes=[code], subgraphs=[graph], buffers=buffers)
    (tmp_path / "m.tflite").write_bytes(write_tree(model))
    source = open_source(tmp_path / "m.tflite")
    x = np.float32([[1, 2], [3, 4]])
    expected = np.kron(x, weights) + 10
    (got,) = source.call({"x": x.reshape(1, 2, 2, 1)}).values()
    np.testing.assert_array_equal(got[0, :, :, 0], expected)
    small = tflite.quantize(source.flatbuffer, Scheme.FLOAT16)
    (got,) = tflite_call(small, source.signature, source.path)({"x": x.reshape(1, 2, 2, 1)}).values()
    np.testing.assert_array_equal(got[0, :, :, 0], expected)
