"""int8 with masks, and int16x8 of what has no kernel for 16 bits, against the model."""

import numpy as np
import pytest
from signal_to_noise import snr_db

from edgeloop.bundle import Scheme
from edgeloop.convert.samples import Samples

X = np.random.default_rng(0).normal(size=(64, 8, 16)).astype(np.float32)


def made(build, scheme, folder):
    """(SNR of the file against the model, its operators, what stayed in float) of a net from X to build(layers, x)."""
    keras = pytest.importorskip("keras")
    from ai_edge_litert.interpreter import Interpreter

    from edgeloop.convert.forms import freeze, tflite
    from edgeloop.convert.sources.source import open_source
    from edgeloop.files.flatbuffer import read_tflite

    keras.utils.set_random_seed(0)
    x = keras.Input(X.shape[1:], name="x")
    keras.Model(x, build(keras, x)).save(folder / "m.keras")
    source = open_source(folder / "m.keras")
    float32 = tflite.lower(freeze.freeze(source).composite, source)
    file = tflite.to_integers(float32, scheme, tflite.calibrate(float32, source, Samples(inputs={"x": X})))
    call = Interpreter(model_content=file.data, num_threads=1).get_signature_runner()
    got = np.concatenate([next(iter(call(x=row[None]).values())) for row in X])
    operators = [op.name for op in read_tflite(file.data).graphs[0].operators]
    return snr_db(next(iter(source.call({"x": X}).values())), got), operators, file.left


def attention(masked):
    def build(keras, x):
        scores = keras.ops.matmul(keras.layers.Dense(16)(x), keras.ops.transpose(x, (0, 2, 1)))
        return keras.ops.matmul(keras.ops.softmax(masked(keras, scores, x)), x)

    return build


LATER = np.triu(np.ones((8, 8), np.float32), 1)
MASKS = {
    "chosen": lambda keras, scores, x: keras.ops.where(LATER == 0, scores, -3e38),
    "added": lambda keras, scores, x: scores + LATER * -1e9,
    "computed": lambda keras, scores, x: scores + keras.ops.cast(x[:, None, :, 0] > 0.5, "float32") * -1e9,
}


@pytest.mark.parametrize("mask", MASKS)
def test_a_mask_takes_no_more_of_the_range_than_the_scores_do(tmp_path, mask):
    """Scores from -15 to 15 and the mask in 255 steps: each is right within 0.1, a share within a tenth of itself."""
    found, operators, left = made(attention(MASKS[mask]), Scheme.INT8, tmp_path)
    assert "SOFTMAX" in operators
    assert {op.op for op in left} <= ({"GREATER", "CAST"} if mask == "computed" else set())  # what makes the mask
    assert found > 20  # 3 with the mask as it is


def test_softplus_keeps_small_values_beside_large_ones(tmp_path):
    """ReLU(x) - log(sigmoid(|x|)): exp(x) up to 20,000 in 255 steps of 80 would leave nothing of an x below 4."""
    found, _, left = made(lambda keras, x: keras.ops.softplus(keras.layers.Dense(8)(4 * x)), Scheme.INT8, tmp_path)
    assert not left
    assert found > 35  # 0.5 otherwise


def test_selu_keeps_small_values_beside_large_ones(tmp_path):
    """The exp of an x above 0 is not used, but took the range: of 20 steps of 0.4 the ones below zero had two."""
    found, _, left = made(
        lambda keras, x: keras.layers.Dense(8)(keras.layers.Dense(16, "selu")(x)), Scheme.INT8, tmp_path
    )
    assert not left
    assert found > 28  # half a step of 1/255 of a range is -59 dB; some eight operators in series


@pytest.mark.parametrize("scheme", [Scheme.INT8, Scheme.INT16X8])
def test_a_one_hot_has_its_numbers_in_the_steps_of_its_result(tmp_path, scheme):
    """Scores times 1 and 0; with steps of their own, the 127 that stand for 1 are read as another number: 9.7 dB."""

    def build(keras, x):
        scores = keras.layers.Dense(4)(x)
        return scores * keras.ops.one_hot(keras.ops.cast(x[..., 0] > 0, "int32"), 4)

    found, operators, _ = made(build, scheme, tmp_path)
    # of an x within half a step of 0, 1 of 100, the other class is chosen: -20 dB
    assert "ONE_HOT" in operators and found > (17 if scheme is Scheme.INT8 else 40)


# 15 bits are -90 dB; int8 weights of 16 terms, rounded by GPTQ, leave some 45
WIDE = {
    "elu": lambda keras, x: keras.layers.Dense(8)(keras.layers.Dense(16, "elu")(x)),
    "selu": lambda keras, x: keras.layers.Dense(8)(keras.layers.Dense(16, "selu")(x)),
    "hard_silu": lambda keras, x: keras.layers.Dense(8)(keras.layers.Dense(16, "hard_silu")(x)),
    "normalized": lambda keras, x: keras.layers.LayerNormalization()(keras.layers.Dense(16, "relu")(x)),
    "normalized over decades": lambda keras, x: keras.layers.LayerNormalization()(x * x[..., :1]),
    "of unit length": lambda keras, x: keras.layers.UnitNormalization()(keras.layers.Dense(16)(x)),
    "softplus of nothing below 0": lambda keras, x: keras.layers.Dense(8)(
        keras.ops.softplus(keras.layers.Dense(16, "relu")(x))
    ),
    "unrolled": lambda keras, x: keras.layers.GRU(8, unroll=True)(x),
}


@pytest.mark.parametrize("net", WIDE)
def test_int16x8_computes_in_integers_what_has_no_kernel_for_16_bits(tmp_path, net):
    found, _, left = made(WIDE[net], Scheme.INT16X8, tmp_path)
    assert not left
    # of a variance over 5 decades, -13 dB by the kernel of RSQRT alone
    assert found > (15 if net == "normalized over decades" else 40)


def test_the_limit_of_an_index_stays_also_where_no_sample_reaches_it(tmp_path):
    """Indices of the samples are below 20; 5,000 is row 1,999 of 2,000."""
    tf = pytest.importorskip("tensorflow")
    from edgeloop.convert.forms import freeze, tflite
    from edgeloop.convert.sources.source import open_source
    from edgeloop.convert.sources.tflite_source import tflite_call

    rng = np.random.default_rng(0)
    rows, weights = (tf.constant(rng.normal(size=shape).astype(np.float32)) for shape in ((2000, 8), (8, 8)))
    module = tf.Module()
    module.serve = tf.function(
        lambda x: {"y": tf.matmul(tf.gather(rows, tf.minimum(x, 1999)), weights)},
        input_signature=[tf.TensorSpec([None], tf.int32, name="x")],
    )
    tf.saved_model.save(module, str(tmp_path / "m"), signatures={"serving_default": module.serve})
    source = open_source(tmp_path / "m")
    float32 = tflite.lower(freeze.freeze(source).composite, source)
    samples = Samples(inputs={"x": rng.integers(0, 20, 64).astype(np.int32)})
    file = tflite.to_integers(float32, Scheme.INT16X8, tflite.calibrate(float32, source, samples))
    assert not file.left
    call = tflite_call(file.data, source.signature, tmp_path)
    np.testing.assert_array_equal(call({"x": np.int32([5000])})["y"], call({"x": np.int32([1999])})["y"])


def test_a_file_that_ends_the_process_it_runs_in_is_infinitely_far_from_float32(tmp_path):
    """A range of nothing is a scale of 0 in 16 bits, which LiteRT 2.3 checks by aborting."""
    keras = pytest.importorskip("keras")
    from edgeloop.convert.forms import freeze, tflite
    from edgeloop.convert.forms.flatbuffer_tree import read_tree, write_tree
    from edgeloop.convert.sources.source import open_source

    x = keras.Input(X.shape[1:], name="x")
    y = keras.layers.Dense(4)(x)
    keras.Model(x, y + keras.ops.relu(y)).save(tmp_path / "m.keras")
    source = open_source(tmp_path / "m.keras")
    float32 = tflite.lower(freeze.freeze(source).composite, source)
    calibration = tflite.calibrate(float32, source, Samples(inputs={"x": X}))
    tree = read_tree(tflite.to_integers(float32, Scheme.INT16X8, calibration).data)
    (add,) = [op for op in tree.subgraphs[0].operators if hasattr(op.builtinOptions, "potScaleInt16")]
    tree.subgraphs[0].tensors[add.outputs[0]].quantization.scale = np.array([1e-14], np.float32)
    assert calibration.probe.snr_db(write_tree(tree)) == -np.inf
