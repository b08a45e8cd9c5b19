"""Models that compute in another float than devices do, read as models that compute in float32."""

import re

import numpy as np
import pytest

from edgeloop.bundle import Scheme
from edgeloop.convert.forms.freeze import freeze
from edgeloop.convert.forms.half import check_half, values_beyond
from edgeloop.convert.forms.tflite import lower, quantize
from edgeloop.convert.sources.source import open_source
from edgeloop.errors import ModelError
from edgeloop.files.flatbuffer import read_tflite

RNG = np.random.default_rng(0)
X = RNG.standard_normal((5, 6)).astype(np.float32)
W = RNG.standard_normal((6, 4))


@pytest.fixture(scope="module", params=["mixed_float16", "float64", "tf_keras", "SavedModel"])
def other(request, tmp_path_factory):
    """A model of tanh(x W) that computes in another float, and which."""
    keras, tf = pytest.importorskip("keras"), pytest.importorskip("tensorflow")
    folder = tmp_path_factory.mktemp("floats")
    if request.param == "SavedModel":
        module = tf.Module()
        specs = [tf.TensorSpec([None, 6], tf.float64, name="x")]
        module.f = tf.function(lambda x: {"y": tf.tanh(x @ tf.constant(W))}, input_signature=specs)
        tf.saved_model.save(module, folder / "m", signatures=module.f)
        return folder / "m", "float64"
    kind = "mixed_float16" if request.param == "tf_keras" else request.param
    if request.param == "tf_keras":
        keras = pytest.importorskip("tf_keras")
    keras.mixed_precision.set_global_policy(kind)
    x = keras.Input((6,), name="x")
    model = keras.Model(x, keras.layers.Dense(4, activation="tanh", use_bias=False, name="y")(x))
    keras.mixed_precision.set_global_policy("float32")
    model.set_weights([W])
    path = folder / ("m.h5" if request.param == "tf_keras" else "m.keras")
    model.save(path)
    return path, kind.removeprefix("mixed_")


def test_it_is_computed_in_float32_and_says_how_far_that_is_from_its_own(other):
    path, kind = other
    source = open_source(path)
    assert {spec.dtype for spec in (*source.inputs, *source.outputs)} == {"float32"}
    (y,) = source.call({"x": X}).values()
    np.testing.assert_allclose(y, np.tanh(X @ W), atol=1e-6)  # float16 would be 1e-4 off
    (note,) = [note for note in source.notes if "converted in float32" in note]
    assert note.startswith(f"The model computes in {kind}, and devices in float32")
    # NumPy on generated inputs: float16 rounds to 2^-11, float64 not at all
    assert bool(re.search(r"SNR 1\d\d\.\d dB", note)) is (kind == "float64")
    assert lower(freeze(source).composite, source)


def saved(folder, function, dtype):
    tf = pytest.importorskip("tensorflow")
    module = tf.Module()
    module.f = tf.function(function, input_signature=[tf.TensorSpec([None, 6], dtype, name="x")])
    tf.saved_model.save(module, folder / "m", signatures=module.f)
    return folder / "m"


def test_a_loops_body_is_computed_in_float32_too(tmp_path):
    """Its nodes name each other's outputs as their operations do, and those change where a cast becomes nothing."""
    tf = pytest.importorskip("tensorflow")

    def loop(x):
        def body(i, h):
            half = tf.cast(tf.cast(h, tf.float32) * 0.5, tf.float64)
            return i + 1, tf.tanh(half + 1.0)

        return {"y": tf.while_loop(lambda i, h: i < 4, body, [tf.constant(0), x])[1]}

    y = X
    for _ in range(4):
        y = np.tanh(y * 0.5 + 1.0)
    source = open_source(saved(tmp_path, loop, "float64"))
    np.testing.assert_allclose(source.call({"x": X})["y"], y, atol=1e-6)


def test_a_model_that_float32_makes_nan_of_is_refused(tmp_path):
    tf = pytest.importorskip("tensorflow")
    path = saved(tmp_path, lambda x: {"y": tf.exp(x * 500) / tf.exp(x * 500) * x}, "float64")  # float32: inf / inf
    with pytest.raises(ModelError, match=r"computes in float64, and in float32 its answers differ \(SNR -200.0 dB\)"):
        open_source(path)


@pytest.mark.parametrize(
    "scale, message",
    [(1e6, r"reaches [\d.]+e\+0[56], and float16 ends at 65504"), (1e-10, r"only, and float16 loses 100% of it")],
)
def test_weights_that_float16_cannot_hold_are_named(tmp_path, scale, message):
    keras = pytest.importorskip("keras")
    x = keras.Input((6,), name="x")
    model = keras.Model(x, keras.layers.Dense(4, name="y")(x))
    model.set_weights([W * scale, np.zeros(4)])
    model.save(tmp_path / "m.keras")
    source = open_source(tmp_path / "m.keras")
    float32 = lower(freeze(source).composite, source)
    with pytest.raises(ModelError, match=message):
        check_half(float32, quantize(float32, Scheme.FLOAT16))


def test_a_masks_constant_stays_float32_and_is_no_weight(tmp_path):
    keras = pytest.importorskip("keras")
    x = keras.Input((8, 16), name="x")
    keras.Model(x, keras.layers.MultiHeadAttention(2, 8)(x, x, use_causal_mask=True)).save(tmp_path / "m.keras")
    source = open_source(tmp_path / "m.keras")
    float32 = lower(freeze(source).composite, source)
    constants = [t for t in read_tflite(float32).graphs[0].tensors if t.constant_bytes and t.dtype == "float32"]
    assert "Const" in " ".join(t.name for t in constants)  # -2.4e38
    check_half(float32, quantize(float32, Scheme.FLOAT16))


def test_an_embeddings_table_that_float16_cannot_hold_is_named(tmp_path):
    keras = pytest.importorskip("keras")
    ids, table = keras.Input((5,), name="ids", dtype="int32"), keras.layers.Embedding(500, 16, name="table")
    model = keras.Model(ids, table(ids))
    table.set_weights([np.full((500, 16), 7e4)])
    model.save(tmp_path / "m.keras")
    source = open_source(tmp_path / "m.keras")
    float32 = lower(freeze(source).composite, source)
    with pytest.raises(ModelError, match=r"the weight '.*table.*' reaches 7e\+04, and float16 ends at 65504"):
        check_half(float32, quantize(float32, Scheme.FLOAT16))


def test_values_that_float16_cannot_hold_are_named_with_where_that_matters():
    def ranges(**spans):
        return {name: {"min": np.array([low]), "max": np.array([high])} for name, (low, high) in spans.items()}

    (said,) = values_beyond(ranges(a=(-7e4, 1.0), b=(0.0, 65000.0)), {})
    assert said.startswith("values reach 7e+04 in 'a', and float16 ends at 65504") and "GPU" in said
    (said,) = values_beyond({}, {"y": np.array([[1.0, 1e5, np.nan]]), "ids": np.array([10**9])})  # NaN fills up
    assert said.startswith("values reach 1e+05 in 'y'")
    assert values_beyond(ranges(mask=(-2.4e38, 0.0), b=(-65504.0, 65504.0)), {}) == values_beyond({}, {}) == ()
