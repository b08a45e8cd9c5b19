"""The fully connected layers at the end of an .onnx train on devices; what stands before them is one constant layer."""

import numpy as np
import onnx
import pytest
from onnx_exports import EXPORTS, Net
from onnx_models import answers

from edgeloop.bundle import Format, Scheme
from edgeloop.convert.convert import convert
from edgeloop.convert.onnx.dense_tail import DenseTail
from edgeloop.convert.options import ConvertOptions
from edgeloop.convert.training.trainable import TrainableOptions
from edgeloop.errors import ModelError

RATE, BATCH = np.float32(0.5), 4


def classifier():
    """Convolution, mean, two layers; and the names of the second one's input and weights."""
    n = Net(3)
    y = n.op("Flatten", n.op("GlobalAveragePool", n.op("Relu", n.conv("x", 3, 8))))
    y = n.op("Relu", n.op("Gemm", y, n.weights(16, 8), n.weights(16), transB=1))
    kernel, bias = n.weights(16, 3), n.weights(3)
    p = n.op("Softmax", n.op("Add", n.op("MatMul", y, kernel), bias), axis=-1)
    return *n.done({"x": ["n", 3, 6, 6]}, [p], {"x": n.data(BATCH, 3, 6, 6)}), y, kernel, bias


def trainable(path, out, **options):
    options = TrainableOptions(batch=BATCH, **options)
    wanted = {"to": (Format.TFLITE,), "schemes": (Scheme.FLOAT32,), "reference": False}
    return convert(path, out, ConvertOptions(**wanted, trainable=options))


def tail_of(model):
    return DenseTail(model.graph, {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer})


def test_a_gemm_and_a_product_with_a_sum_are_layers_with_the_activations_behind_them():
    model, _, _, kernel, bias = classifier()
    first, second = tail_of(model).layers
    assert (first.activation, second.activation) == ("relu", "softmax")
    assert first.kernel.shape == (8, 16)  # transB=1: the file has [units, inputs]
    np.testing.assert_array_equal(second.kernel, kernel)
    np.testing.assert_array_equal(second.bias, bias)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("residual_of_equal_sizes", 1),
        ("head_of_a_yolo", 0),
        ("embedding_with_the_mask_of_bert", 0),
        ("rms_normalization_and_swish", 0),
    ],
)
def test_what_no_layer_makes_ends_the_walk(name, count):
    assert len(tail_of(EXPORTS[name]()[0]).layers) == count


@pytest.mark.parametrize(("axis", "count"), [(-1, 1), (2, 1), (1, 0)])
def test_a_softmax_over_another_axis_than_the_units_is_no_layers_activation(axis, count):
    n = Net(3)
    y = n.op("Softmax", n.op("MatMul", "x", n.weights(3, 4)), axis=axis)
    model, _ = n.done({"x": ["n", 5, 3]}, [y], {"x": n.data(2, 5, 3)})
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info(y, onnx.TensorProto.FLOAT, ["n", 5, 4]))
    assert len(tail_of(model).layers) == count


@pytest.mark.parametrize(("numbers", "count"), [(4, 1), (1, 0)])
@pytest.mark.parametrize("gemm", [True, False])
def test_a_bias_has_a_number_for_each_unit(gemm, numbers, count):
    n = Net(3)
    kernel, bias = n.weights(3, 4), n.weights(numbers)
    y = n.op("Gemm", "x", kernel, bias) if gemm else n.op("Add", n.op("MatMul", "x", kernel), bias)
    assert len(tail_of(n.done({"x": ["n", 3]}, [y], {"x": n.data(2, 3)})[0]).layers) == count


def test_the_last_layer_takes_one_step_on_both_runtimes_as_by_hand(tmp_path):
    model, feeds, hidden, kernel, bias = classifier()
    first = tail_of(model).layers[0]
    onnx.save(model, tmp_path / "net.onnx")
    result = trainable(tmp_path / "net.onnx", tmp_path / "out", train_last=1)
    rows = [row for row in result.parity if row.variant == "trainable"]
    assert {row.runtime for row in rows} == {"litert", "tflite-runtime"} and all(row.passed for row in rows)
    model.graph.output.append(onnx.helper.make_tensor_value_info(hidden, onnx.TensorProto.FLOAT, None))
    p, h = answers(model, feeds)
    y = np.array([0, 1, 2, 1], np.int32)
    error = (p - np.eye(3, dtype=np.float32)[y]) / BATCH  # the gradient of cross entropy after a softmax
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(model_path=str(tmp_path / "out" / "trainable.tflite"))
    run.get_signature_runner("train")(x=feeds["x"], y=y, lr=RATE)
    weights = run.get_signature_runner("get_weights")(dummy=np.float32(0))
    # sums of 16 terms at most, each rounded by 6e-8
    np.testing.assert_allclose(weights["w002"], kernel - RATE * h.T @ error, atol=1e-6)
    np.testing.assert_allclose(weights["w003"], bias - RATE * error.sum(0), atol=1e-6)
    np.testing.assert_array_equal(weights["w000"], first.kernel)  # frozen by train_last


def test_a_model_that_ends_in_no_layer_is_refused(tmp_path):
    model, _ = EXPORTS["head_of_a_yolo"]()
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(ModelError, match="does not end in a fully connected layer"):
        trainable(tmp_path / "net.onnx", tmp_path / "out")
