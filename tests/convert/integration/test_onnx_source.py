"""An .onnx becomes a SavedModel with its names, shapes and dtypes, which computes what ONNX Runtime computes."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeloop.convert.sources.onnx_environment import ONNX2TF, is_whole, onnx2tf_python
from edgeloop.convert.sources.onnx_source import onnx_names, onnx_to_saved_model
from edgeloop.errors import MissingExtra, ModelError
from edgeloop.runtime.environment import environment_folder

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
N = onnx.helper.make_node
FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64


@pytest.fixture(scope="module", autouse=True)
def environment() -> Path:
    """The environment of onnx2tf: built once in CI; a user's tests do not download half a gigabyte unasked."""
    there = is_whole(environment_folder(ONNX2TF)) or "EDGELOOP_ONNX2TF_PYTHON" in os.environ
    if not there and os.environ.get("CI") != "true":
        pytest.skip(f"no onnx2tf environment at {environment_folder(ONNX2TF)}: run edgeloop setup onnx2tf")
    return onnx2tf_python()


@pytest.fixture
def save(tmp_path):
    """Write a model from nodes, inputs and outputs {name: shape or (shape, type)}, and constants {name: array}."""

    def write(nodes, inputs, outputs, constants, opset=17) -> Path:
        def values(specs):
            pairs = {name: spec if isinstance(spec, tuple) else (spec, FLOAT) for name, spec in specs.items()}
            return [onnx.helper.make_tensor_value_info(name, kind, shape) for name, (shape, kind) in pairs.items()]

        tensors = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
        graph = onnx.helper.make_graph(nodes, "g", values(inputs), values(outputs), tensors)
        opsets = [onnx.helper.make_opsetid("", opset)]
        onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "m.onnx")
        return tmp_path / "m.onnx"

    return write


def weights(*shape) -> np.ndarray:
    return (np.random.default_rng(sum(shape)).standard_normal(shape) * 0.3).astype(np.float32)


def signature(folder):
    tensorflow = pytest.importorskip("tensorflow")
    loaded = tensorflow.saved_model.load(str(folder))
    function = loaded.signatures["serving_default"]
    function.keep = loaded  # the variables live as long as it does
    return function


def described(specs) -> dict:
    return {name: (spec.shape.as_list(), spec.dtype.name) for name, spec in specs.items()}


def assert_as_onnx_runtime(path, function, feeds):
    """float32: sums of up to 600 terms in another order; sqrt(600) roundings of 6e-8 are 1.5e-6, twice that in a row
    of layers; 1e-5 of the largest value leaves room for three times as much. Integers are the same."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs, outputs = onnx_names(path)
    expected = session.run(list(outputs), feeds)
    got = function(**{inputs[name]: value for name, value in feeds.items()})
    assert set(got) == set(outputs.values())
    for name, values in zip(outputs.values(), expected, strict=True):
        found = got[name].numpy()
        assert (found.shape, found.dtype) == (values.shape, values.dtype), name
        bound = 1e-5 * max(1.0, np.abs(values).max()) if values.dtype.kind == "f" else 0
        assert np.abs(found - values).max() <= bound, name


def test_a_conv_net_keeps_its_channels_first_and_its_free_batch(save, tmp_path):
    path = save(
        [
            N("Conv", ["x:0", "w", "b"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
            N("Relu", ["c"], ["r"]),
            N("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
            N("Flatten", ["p"], ["f"]),
            N("Gemm", ["f", "g", "gb"], ["/logits/1"], transB=1),
        ],
        {"x:0": ["N", 3, 16, 12]},
        {"/logits/1": ["N", 5]},
        {"w": weights(8, 3, 3, 3), "b": weights(8), "g": weights(5, 96), "gb": weights(5)},
    )
    assert onnx_to_saved_model(path, tmp_path / "s") == tmp_path / "s"
    function = signature(tmp_path / "s")
    assert described(function.structured_input_signature[1]) == {"x_0": ([None, 3, 16, 12], "float32")}
    assert described(function.structured_outputs) == {"logits_1": ([None, 5], "float32")}
    for batch in (1, 7):
        x = np.random.default_rng(batch).standard_normal((batch, 3, 16, 12)).astype(np.float32)
        assert_as_onnx_runtime(path, function, {"x:0": x})


def test_several_inputs_and_outputs_keep_names_shapes_and_dtypes(save, tmp_path):
    path = save(
        [
            N("Conv", ["image", "w"], ["features"]),
            N("GlobalAveragePool", ["features"], ["a"]),
            N("Flatten", ["a"], ["f"]),
            N("Gather", ["table", "ids"], ["e"]),
            N("ReduceMean", ["e"], ["m"], axes=[1], keepdims=0),
            N("Concat", ["f", "m"], ["c"], axis=1),
            N("MatMul", ["c", "v"], ["y"]),
            N("Softmax", ["y"], ["class"], axis=-1),
            N("ArgMax", ["y"], ["best"], axis=1, keepdims=0),
        ],
        {"image": ["n", 4, 10, 9], "ids": (["n", 6], INT64)},
        {"features": ["n", 5, 8, 7], "class": ["n", 6], "best": (["n"], INT64)},
        {"w": weights(5, 4, 3, 3), "table": weights(10, 3), "v": weights(8, 6)},
    )
    function = signature(onnx_to_saved_model(path, tmp_path / "s"))
    assert described(function.structured_input_signature[1]) == {
        "image": ([None, 4, 10, 9], "float32"),
        "ids": ([None, 6], "int64"),
    }
    assert described(function.structured_outputs) == {
        "features": ([None, 5, 8, 7], "float32"),  # onnx2tf leaves it channels last
        "class": ([None, 6], "float32"),
        "best": ([None], "int64"),
    }
    rng = np.random.default_rng(0)
    image = rng.standard_normal((5, 4, 10, 9)).astype(np.float32)
    assert_as_onnx_runtime(path, function, {"image": image, "ids": rng.integers(0, 10, (5, 6))})


def test_where_channels_height_and_width_are_equal_the_right_reading_is_found(save, tmp_path):
    path = save(  # read as it comes, onnx2tf's graph is off by 0.3 here, and it says nothing
        [
            N("Conv", ["x", "w0"], ["a"], pads=[1, 1, 1, 1]),
            N("Conv", ["a", "w1"], ["d"], pads=[1, 1, 1, 1], group=8),
            N("Add", ["d", "a"], ["s"]),
            N("Mul", ["s", "k"], ["m"]),
            N("ReduceMean", ["m"], ["y"], axes=[2, 3], keepdims=0),
        ],
        {"x": ["n", 8, 8, 8]},
        {"y": ["n", 8]},
        {"w0": weights(8, 8, 3, 3), "w1": weights(8, 1, 3, 3), "k": weights(8, 1, 1)},
    )
    function = signature(onnx_to_saved_model(path, tmp_path / "s"))
    x = np.random.default_rng(3).standard_normal((4, 8, 8, 8)).astype(np.float32)
    assert_as_onnx_runtime(path, function, {"x": x})


def test_a_conversion_that_computes_something_else_is_refused(save, tmp_path):
    path = save(
        [
            N("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
            N("Add", ["x", "c"], ["s"]),
            N("Mul", ["s", "k"], ["y"]),
        ],
        {"x": [1, 3, 3, 3]},
        {"y": [1, 3, 3, 3]},
        {"w": weights(3, 3, 3, 3), "k": weights(3, 1, 1)},
    )
    with pytest.raises(ModelError, match="computes y differently from ONNX Runtime"):
        onnx_to_saved_model(path, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_transposed_convolutions_with_free_batch_and_free_sizes(save, tmp_path):
    path = save(
        [
            N("Conv", ["x", "w0"], ["a"], pads=[1, 1, 1, 1]),
            N("MaxPool", ["a"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
            N("ConvTranspose", ["p", "wt"], ["u"], kernel_shape=[2, 2], strides=[2, 2]),
            N("Concat", ["u", "a"], ["c"], axis=1),
            N("Conv", ["c", "w1"], ["y"]),
        ],
        {"x": ["n", 3, 8, 12]},
        {"y": ["n", 2, 8, 12]},
        {"w0": weights(4, 3, 3, 3), "wt": weights(4, 4, 2, 2), "w1": weights(2, 8, 1, 1)},
    )
    function = signature(onnx_to_saved_model(path, tmp_path / "s"))
    assert described(function.structured_outputs) == {"y": ([None, 2, 8, 12], "float32")}
    x = np.random.default_rng(4).standard_normal((3, 3, 8, 12)).astype(np.float32)
    assert_as_onnx_runtime(path, function, {"x": x})


def test_free_height_and_width_stay_free(save, tmp_path):
    path = save(
        [N("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), N("Sigmoid", ["c"], ["y"])],
        {"x": ["n", 3, "h", "w_"]},
        {"y": ["n", 2, "h", "w_"]},
        {"w": weights(2, 3, 3, 3)},
    )
    function = signature(onnx_to_saved_model(path, tmp_path / "s"))
    assert described(function.structured_outputs) == {"y": ([None, 2, None, None], "float32")}
    x = np.random.default_rng(5).standard_normal((2, 3, 9, 14)).astype(np.float32)
    assert_as_onnx_runtime(path, function, {"x": x})


def test_a_shape_that_tensorflow_cannot_infer_is_onnxs(save, tmp_path):
    path = save(  # x.view(x.size(0), -1), as PyTorch exports it
        [
            N("Conv", ["x", "w"], ["c"]),
            N("Shape", ["c"], ["s"]),
            N("Gather", ["s", "zero"], ["b"]),
            N("Concat", ["b", "rest"], ["to"], axis=0),
            N("Reshape", ["c", "to"], ["y"]),
        ],
        {"x": ["n", 3, 6, 6]},
        {"y": ["n", 32]},
        {"w": weights(2, 3, 3, 3), "zero": np.array([0]), "rest": np.array([-1])},
    )
    function = signature(onnx_to_saved_model(path, tmp_path / "s"))
    assert described(function.structured_outputs) == {"y": ([None, 32], "float32")}
    x = np.random.default_rng(8).standard_normal((2, 3, 6, 6)).astype(np.float32)
    assert_as_onnx_runtime(path, function, {"x": x})


def test_a_recurrent_layer_with_a_free_batch_becomes_operators_that_a_device_has(save, tmp_path):
    path = save(  # as PyTorch exports it: the first state is zeros of the batch's size
        [
            N("Shape", ["x"], ["s"]),
            N("Gather", ["s", "axis"], ["b"]),
            N("Concat", ["one", "b", "four"], ["size"], axis=0),
            N("ConstantOfShape", ["size"], ["zeros"]),
            N("LSTM", ["x", "w", "r", "b8", "", "zeros", "zeros"], ["", "h"], hidden_size=4),
            N("Squeeze", ["h", "first"], ["y"]),
        ],
        {"x": [7, "n", 3]},
        {"y": ["n", 4]},
        {"w": weights(1, 16, 3), "r": weights(1, 16, 4), "b8": weights(1, 32), "axis": np.array([1]),
         "one": np.array([1]), "four": np.array([4]), "first": np.array([0])},
    )  # fmt: skip
    function = signature(onnx_to_saved_model(path, tmp_path / "s"))
    x = np.random.default_rng(9).standard_normal((7, 5, 3)).astype(np.float32)
    assert_as_onnx_runtime(path, function, {"x": x})
    import tensorflow as tf

    data = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "s")).convert()  # refuses TensorList operators
    assert data[4:8] == b"TFL3"


def test_a_last_dimension_of_three_needs_no_network(save, tmp_path):
    # onnx2tf takes it for a picture and fetches twenty of them; the child may not open a connection
    path = save([N("Relu", ["x"], ["y"])], {"x": [1, 4, 8, 3]}, {"y": [1, 4, 8, 3]}, {})
    function = signature(onnx_to_saved_model(path, tmp_path / "s"))
    x = np.random.default_rng(6).standard_normal((1, 4, 8, 3)).astype(np.float32)
    assert_as_onnx_runtime(path, function, {"x": x})


def test_a_keras_model_comes_back_from_tf2onnx(tmp_path):
    tf2onnx, keras = pytest.importorskip("tf2onnx"), pytest.importorskip("keras")
    import tensorflow as tf

    layers = keras.layers
    keras.utils.set_random_seed(0)
    x = keras.Input((12, 12, 3), name="image")
    y = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(x)
    y = layers.DepthwiseConv2D(3, padding="same")(layers.BatchNormalization()(y))
    y = layers.Dense(5, activation="softmax")(layers.Flatten()(layers.MaxPool2D()(y)))
    model = keras.Model(x, y)
    spec = [tf.TensorSpec([None, 12, 12, 3], tf.float32, name="image")]
    function = tf.function(lambda image: {"prob": model(image)}, input_signature=spec)
    proto, _ = tf2onnx.convert.from_function(function, input_signature=spec, opset=17)
    onnx.save(proto, tmp_path / "k.onnx")

    back = signature(onnx_to_saved_model(tmp_path / "k.onnx", tmp_path / "s"))
    assert described(back.structured_input_signature[1]) == {"image": ([None, 12, 12, 3], "float32")}
    image = np.random.default_rng(7).random((6, 12, 12, 3), np.float32)
    assert_as_onnx_runtime(tmp_path / "k.onnx", back, {"image": image})
    assert np.abs(back(image=image)["prob"] - model(image)).max() <= 1e-5  # probabilities; as in assert_as_onnx_runtime


def test_an_operator_that_onnx2tf_lacks_is_named(save, tmp_path):
    path = save([N("LpPool", ["x"], ["y"], kernel_shape=[2, 2])], {"x": ["n", 3, 8, 8]}, {"y": ["n", 3, 7, 7]}, {})
    with pytest.raises(ModelError, match=r"no operator LpPool\. Export the model without it"):
        onnx_to_saved_model(path, tmp_path / "s")


def test_an_operator_with_an_option_that_onnx2tf_lacks_is_named(save, tmp_path):
    path = save([N("Unique", ["x"], ["y"], name="mine")], {"x": [6]}, {"y": ["k"]}, {})
    with pytest.raises(ModelError, match=r"fails at Unique 'mine'") as refused:
        onnx_to_saved_model(path, tmp_path / "s")
    assert "\n" not in str(refused.value) and "\x1b" not in str(refused.value)


def test_a_model_that_onnx_runtime_refuses_is_refused_with_its_reason(save, tmp_path):
    path = save([N("MatMul", ["x", "w"], ["y"])], {"x": ["n", 3]}, {"y": ["n", 2]}, {"w": weights(4, 2)})
    with pytest.raises(ModelError, match="ONNX Runtime cannot load it"):
        onnx_to_saved_model(path, tmp_path / "s")


def test_a_damaged_file_is_refused_before_any_child_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGELOOP_ONNX2TF_PYTHON", "/nowhere")
    (tmp_path / "m.onnx").write_bytes(b"\x08\x09garbage" * 9)
    with pytest.raises(ModelError, match=r"m\.onnx is not an ONNX model"):
        onnx_to_saved_model(tmp_path / "m.onnx", tmp_path / "s")


def test_a_conversion_is_ended_after_its_time(save, tmp_path):
    path = save([N("Relu", ["x"], ["y"])], {"x": ["n", 3]}, {"y": ["n", 3]}, {})
    with pytest.raises(ModelError, match=r"longer than the time limit of 0\.2 s"):
        onnx_to_saved_model(path, tmp_path / "s", timeout_s=0.2)


def test_a_python_without_onnx2tf_says_what_to_run(save, tmp_path, monkeypatch):
    path = save([N("Relu", ["x"], ["y"])], {"x": ["n", 3]}, {"y": ["n", 3]}, {})
    for python in (sys.executable, "/nowhere"):
        monkeypatch.setenv("EDGELOOP_ONNX2TF_PYTHON", python)
        with pytest.raises(MissingExtra, match="edgeloop setup onnx2tf"):
            onnx_to_saved_model(path, tmp_path / "s")
