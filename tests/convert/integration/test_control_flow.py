"""Loops, branches, masks and what exports stumble over: each form answers as the source does, in its own runtime."""

import importlib.util

import numpy as np
import pytest

from edgeloop.convert.forms.freeze import at_batch, freeze
from edgeloop.convert.forms.onnx import to_onnx
from edgeloop.convert.forms.tfjs import to_tfjs
from edgeloop.convert.forms.tflite import lower
from edgeloop.convert.sources.shapes import with_batch
from edgeloop.convert.sources.source import open_source
from edgeloop.files.flatbuffer import read_tflite

Interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter
tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")
L = keras.layers

# sums of at most some hundred products of unit scale, each rounded by 2^-24, through a few layers
FLOAT32 = 1e-5
W = (np.random.default_rng(1).standard_normal((6, 6)) * 0.4).astype(np.float32)


def layers(shape, *chain, batch=None, dtype=None):
    x = y = keras.Input(shape, batch_size=batch, name="x", dtype=dtype)
    for layer in chain:
        y = layer(y)
    return keras.Model(x, y)


def legacy(layer, batch):
    k = pytest.importorskip("tf_keras")
    x = k.Input((7, 4), batch_size=batch, name="x")
    return k.Model(x, k.layers.Dense(2)(layer(k.layers)(x)))


def residual(layer, shape):
    x = keras.Input(shape, name="x")
    return keras.Model(x, L.ReLU()(L.Add()([layer(x), x])))


def attention(length, causal):
    x = keras.Input((length, 8), name="x")
    y = L.LayerNormalization()(L.Add()([x, L.MultiHeadAttention(2, 4)(x, x, use_causal_mask=causal)]))
    return keras.Model(x, L.Dense(4, activation="gelu")(y))


def module(function, *shape):
    made = tf.Module()
    made.call = tf.function(function, input_signature=[tf.TensorSpec(shape, name="x")])
    return made


def branch(x):
    h = tf.nn.relu(x @ W)
    return {"y": tf.cond(tf.reduce_mean(h) > 0.5, lambda: h @ W, lambda: h @ W.T)}


def constant_branches(x):
    """Each way once: a constant counts only where its branch is taken."""
    positive = tf.reduce_sum(x) > 0
    ones, twos = (lambda: tf.ones([1, 6])), (lambda: tf.fill([1, 6], 2.0) + tf.one_hot(2, 6))
    return {
        "y": tf.cond(positive, lambda: x @ W, ones),
        "z": tf.cond(positive, ones, lambda: x @ W),
        "both": tf.cond(positive, ones, twos),
    }


def loop(x):
    def body(i, y):
        return i + 1, tf.nn.gelu(y @ W, approximate=False)

    return {"y": tf.while_loop(lambda i, y: i < 3, body, (0, x))[1]}


def asserted(x):
    tf.debugging.assert_non_negative(tf.reduce_max(x * x))
    with tf.control_dependencies([tf.debugging.assert_less(tf.reduce_max(x), 1e9)]):
        return {"y": tf.tanh(x @ W)}


def bands(x):
    return {
        "near": tf.linalg.band_part(x, 1, 2),
        "lower": tf.cast(tf.linalg.band_part(x > 0, -1, 0), tf.float32),
        "hot": tf.one_hot(tf.cast(x > 0, tf.int64), 3, on_value=2.5, off_value=-1.0, axis=1),
    }


def suppressed(x):
    index, count = tf.image.non_max_suppression_padded(
        x[0, :, :4], x[0, :, 4], 10, 0.5, 0.1, pad_to_max_output_size=True
    )
    return {"index": index[None], "count": count[None]}


def suppressed_padded(x):
    """A loop in a loop, at any batch."""
    index, count = tf.image.non_max_suppression_padded(
        x[..., :4], x[..., 4], 6, 0.5, 0.1, pad_to_max_output_size=True, sorted_input=False
    )
    return {"index": index, "count": count}


def rare(x):
    """What some format lacks: Erf and Erfc alone, Keras's argmax, whose zeros have signs, reversals of two axes."""
    h = x @ W
    return {
        "erf": tf.math.erf(h),
        "erfc": tf.math.erfc(h) + 0.5,
        "flipped": tf.reverse(h[:, None, :] * x[:, :, None], [1, 2]),
        "largest": keras.ops.argmax(h, axis=-1),
        "smallest": keras.ops.argmin(h, axis=-1, keepdims=True),
        "signs": tf.cast(keras.ops.signbit(h), tf.float32),
        "bucket": tf.raw_ops.Bucketize(input=h, boundaries=[-1.0, 0.0, 0.5]),
        "hot": tf.one_hot(tf.cast(tf.round(h), tf.int32), 2),  # of -1 too, which ONNX counts from the end
    }


def hot_in_a_loop(x):
    def body(i, y):
        return i + 1, y + tf.one_hot(i, 6) * tf.reduce_sum(x)

    return {"y": tf.while_loop(lambda i, y: i < 4, body, (0, x))[1]}


def tables():
    """From numbers to numbers: keys that count and keys that do not, also ones that are not in the table."""
    made = tf.Module()
    initial = tf.lookup.KeyValueTensorInitializer
    made.wide = tf.lookup.StaticHashTable(initial(tf.constant([900, -2, 4], tf.int64), [0.5, 2.0, 3.5]), -1.0)
    made.near = tf.lookup.StaticHashTable(initial(tf.range(2, 6, dtype=tf.int64), tf.constant([7, 5, 9, 1])), 0)

    def call(x):
        whole = tf.cast(tf.round(3 * x), tf.int64)
        return {"wide": made.wide[whole], "near": made.near[whole], "large": made.wide[whole - whole + 900]}

    made.call = tf.function(call, input_signature=[tf.TensorSpec([None, 6], name="x")])
    return made


def encodings():
    x = keras.Input((3,), dtype="int32", name="x")
    weights = L.Dense(3, activation="sigmoid")(L.Rescaling(0.1)(x))
    parts = [
        L.CategoryEncoding(9, output_mode="multi_hot")(x),
        L.CategoryEncoding(9, output_mode="count")(x, count_weights=weights),
        L.IntegerLookup(vocabulary=[4, 7, 1], output_mode="multi_hot")(x),
        L.IntegerLookup(vocabulary=[4, 7, 1], output_mode="count")(x),
        L.Flatten()(L.Embedding(4, 2)(L.IntegerLookup(vocabulary=[4, 7, 1])(x))),
        L.Flatten()(L.Discretization([2.0, 5.0], output_mode="one_hot")(x)),
    ]
    return keras.Model(x, L.Concatenate()([L.Rescaling(1.0)(part) for part in parts]))


ALL = ("tflite", "onnx", "tfjs")
FREE = ("onnx", "tfjs")  # TFLite has no loop over a free batch
NETS = {
    "LSTM, batch 1": (lambda: layers((5, 4), L.LSTM(3), L.Dense(2), batch=1), ALL),
    "GRU, free batch and length": (lambda: layers((None, 4), L.GRU(3, return_sequences=True)), FREE),
    "Keras 2 LSTM, batch 1": (lambda: legacy(lambda layers: layers.LSTM(8), 1), ALL),
    "branch": (lambda: module(branch, 1, 6), ALL),
    "constant branches": (lambda: module(constant_branches, 1, 6), ALL),
    "residuals without bias": (lambda: residual(L.Conv2D(3, 3, padding="same", use_bias=False), (5, 6, 3)), ("tfjs",)),
    "assertions": (lambda: module(asserted, None, 6), ALL),
    "bands and one-hot": (lambda: module(bands, None, 6, 6), ("tfjs",)),
    "operations that a format lacks": (lambda: module(rare, None, 6), ALL),
    "one-hot in a loop": (lambda: module(hot_in_a_loop, 1, 6), ALL),
    "padded suppression": (lambda: module(suppressed_padded, None, 12, 5), ALL),
    "tables": (tables, ALL),
    "encodings of categories": (encodings, ALL),
    "causal attention, exact GELU": (lambda: attention(5, True), ALL),
}
MORE = {
    "LSTM": (lambda: layers((5, 4), L.LSTM(3), L.Dense(2)), FREE),
    "Bidirectional": (lambda: layers((5, 4), L.Bidirectional(L.LSTM(3))), FREE),
    "Bidirectional, batch 1": (lambda: layers((5, 4), L.Bidirectional(L.GRU(3)), batch=1), ALL),
    "SimpleRNN": (lambda: layers((5, 4), L.SimpleRNN(3)), FREE),
    "ConvLSTM": (lambda: layers((3, 5, 5, 2), L.ConvLSTM2D(2, 3)), FREE),
    "ConvLSTM behind another": (
        lambda: layers((3, 5, 5, 2), L.ConvLSTM2D(2, 3, padding="same", return_sequences=True), L.ConvLSTM2D(2, 3)),
        FREE,
    ),
    "ConvLSTM, batch 1": (lambda: layers((3, 5, 5, 2), L.ConvLSTM2D(2, 3), batch=1), ALL),
    "TimeDistributed": (lambda: layers((3, 5, 5, 2), L.TimeDistributed(L.Conv2D(2, 3)), batch=1), ALL),
    "Masking": (lambda: layers((5, 4), L.Masking(), L.LSTM(3)), FREE),
    "unrolled": (lambda: layers((5, 4), L.LSTM(3, unroll=True), L.Dense(2)), ALL),
    "Embedding": (lambda: layers((5,), L.Embedding(9, 4, mask_zero=True), L.GRU(3), dtype="int32"), FREE),
    "Keras 2 LSTM": (lambda: legacy(lambda layers: layers.LSTM(8), None), FREE),
    "Keras 2 Bidirectional": (lambda: legacy(lambda layers: layers.Bidirectional(layers.LSTM(8)), 1), ALL),
    "Keras 2 GRU": (lambda: legacy(lambda layers: layers.GRU(8), 1), ALL),
    "loop with exact GELU": (lambda: module(loop, None, 6), FREE),
    "dense residual": (lambda: residual(L.Dense(6, use_bias=False), (6,)), ALL),
    "depthwise residual": (lambda: residual(L.DepthwiseConv2D(3, padding="same", use_bias=False), (5, 6, 3)), ALL),
    "attention of a free length": (lambda: attention(None, True), ALL),
    "GroupNormalization": (lambda: layers((6, 6, 4), L.GroupNormalization(2), L.Conv2D(3, 1)), ALL),
    "UnitNormalization": (lambda: layers((6, 4), L.UnitNormalization(), L.Dense(3)), ALL),
    "RMSNormalization": (lambda: layers((6, 4), L.RMSNormalization(), L.Dense(3)), ALL),
}


def opened(net, folder):
    keras.utils.set_random_seed(3)
    model = net()
    path = folder / "model"
    if isinstance(model, keras.Model):
        model.save(path := path.with_suffix(".keras"))
    elif hasattr(model, "layers"):
        model.save(path := path.with_suffix(".h5"))
    else:
        tf.saved_model.save(model, str(path), signatures=model.call)
    return open_source(path)


def interpreted(data, inputs):
    return Interpreter(model_content=data).get_signature_runner()(**inputs)


def answers(form, frozen, source, inputs, folder):
    if form == "tflite":
        return interpreted(lower(frozen.functional, source), inputs)
    if form == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(to_onnx(frozen.functional, source))
        return dict(zip([o.name for o in session.get_outputs()], session.run(None, inputs), strict=True))
    if importlib.util.find_spec("tensorflowjs") is None:
        pytest.skip("tensorflowjs is not installed: edgeloop setup tfjs")
    from edgeloop.browser.runners import TFJS

    to_tfjs(frozen.lowered, source, folder)
    with TFJS.open(folder, "model.json") as session:
        return session.infer(inputs, None)


def check(net, forms, folder):
    source = opened(net, folder)
    rng = np.random.default_rng(0)
    inputs = {}
    for spec in source.inputs:
        shape = [spec.shape[0] or 3, *(7 if size is None else size for size in spec.shape[1:])]
        whole = spec.dtype.startswith("int")
        inputs[spec.name] = (rng.integers(0, 9, shape) if whole else rng.standard_normal(shape)).astype(spec.dtype)
    expected, frozen = source.call(inputs), freeze(source)
    for form in forms:
        (folder / form).mkdir()
        got = answers(form, frozen, source, inputs, folder / form)
        for name, value in expected.items():
            np.testing.assert_allclose(got[name], value, atol=FLOAT32, err_msg=form)


@pytest.mark.parametrize("net", NETS)
def test_every_form_answers_as_the_source_does(net, tmp_path):
    check(*NETS[net], tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("net", MORE)
def test_every_form_of_more_nets_answers_as_the_source_does(net, tmp_path):
    check(*MORE[net], tmp_path)


def test_a_loop_traced_with_a_free_batch_becomes_tflite_at_a_fixed_one(tmp_path):
    keras.utils.set_random_seed(3)
    layers((5, 4), L.LSTM(3), L.Dense(2)).export(tmp_path / "saved", verbose=False)
    source = with_batch(open_source(tmp_path / "saved"), 2)
    x = np.random.default_rng(0).standard_normal((2, 5, 4), np.float32)
    got = interpreted(lower(at_batch(freeze(source), 2), source), {source.inputs[0].name: x})
    for name, value in source.call({source.inputs[0].name: x}).items():
        np.testing.assert_allclose(got[name], value, atol=FLOAT32)


def test_non_maximum_suppression_becomes_one_operator_and_keeps_its_shape(tmp_path):
    source = opened(lambda: module(suppressed, 1, 20, 5), tmp_path)
    x = np.random.default_rng(0).random((1, 20, 5), np.float32)
    x[..., 2:4] = x[..., :2] + 0.3
    data, expected = lower(freeze(source).composite, source), source.call({"x": x})
    got = interpreted(data, {"x": x})
    assert 1 <= expected["count"][0] <= 10
    assert {name: value.tolist() for name, value in got.items()} == {n: v.tolist() for n, v in expected.items()}
    assert len(read_tflite(data).graphs) == 1  # the loop would be two more


def test_a_keras_2_lstm_begins_every_call_anew(tmp_path):
    source = opened(NETS["Keras 2 LSTM, batch 1"][0], tmp_path)
    runner = Interpreter(model_content=lower(freeze(source).functional, source)).get_signature_runner()
    x = np.random.default_rng(0).standard_normal((1, 7, 4), np.float32)
    first, second = (next(iter(runner(x=x).values())) for _ in range(2))
    assert first.tolist() == second.tolist()  # UNIDIRECTIONAL_SEQUENCE_LSTM would go on from the first call's state


def test_the_names_in_an_onnx_loop_are_the_same_in_every_conversion(tmp_path):
    source = opened(NETS["GRU, free batch and length"][0], tmp_path)
    frozen = freeze(source)  # once: TensorFlow counts the functions of a process
    first, second = (to_onnx(frozen.functional, source) for _ in range(2))
    assert first == second
