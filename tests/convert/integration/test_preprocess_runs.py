"""Preprocessing inside a model: values by hand, TensorFlow's own resize, and every format's own runtime."""

from importlib.util import find_spec

import numpy as np
import pytest
from signal_to_noise import snr_db

from edgeloop.browser.runners import TFJS
from edgeloop.bundle import Scheme
from edgeloop.convert.forms.freeze import freeze
from edgeloop.convert.forms.onnx import to_onnx
from edgeloop.convert.forms.preprocess import Preprocessing, preprocess_tensors, with_preprocessing
from edgeloop.convert.forms.tfjs import to_tfjs
from edgeloop.convert.forms.tflite import calibrate, lower, quantize
from edgeloop.convert.samples import Samples
from edgeloop.convert.sources.source import open_source
from edgeloop.files.flatbuffer import float_operators, read_tflite

FULL = Preprocessing(input_range=(0, 255), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), resize=(24, 20))


def litert(data, **inputs):
    from ai_edge_litert.interpreter import Interpreter

    (answer,) = Interpreter(model_content=data).get_signature_runner("infer")(**inputs).values()
    return answer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """same.keras gives back its [2, 2, 3] image times 1; net.keras is a small classifier of [16, 16, 3]."""
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(3)
    layers = keras.layers
    folder = tmp_path_factory.mktemp("preprocess")
    image, other = keras.Input((2, 2, 3), name="image"), keras.Input((1,), name="other")
    keras.Model([image, other], [layers.Rescaling(1.0)(image), layers.Rescaling(1.0)(other)]).save(
        folder / "same.keras"
    )
    net = keras.Sequential(
        [
            keras.Input((16, 16, 3), name="image"),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(16, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5, activation="softmax"),
        ]
    )
    net.save(folder / "net.keras")
    return folder


@pytest.fixture(scope="module")
def photos():
    """48 smooth images of 24 x 20 pixels, 0..255."""
    tf = pytest.importorskip("tensorflow")
    coarse = np.random.default_rng(0).integers(0, 256, (48, 6, 5, 3)).astype(np.float32)
    return np.asarray(tf.image.resize(coarse, (24, 20)))


@pytest.fixture(scope="module")
def net(folder):
    return open_source(folder / "net.keras")


@pytest.fixture(scope="module")
def frozen(net):
    return freeze(with_preprocessing(net, FULL)).functional


@pytest.fixture(scope="module")
def float32(net, frozen):
    return lower(frozen, with_preprocessing(net, FULL))


def test_a_two_by_two_image_by_hand(folder):
    p = Preprocessing(input_range=(0, 255), mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
    source = with_preprocessing(open_source(folder / "same.keras"), p)
    image = np.zeros((1, 2, 2, 3), np.float32)
    image[0, 0, 0] = 255
    image[0, 1, 1] = 51  # a fifth
    got = source.call({"image": image, "other": np.array([[7]], np.float32)})
    black, white, fifth = [0, -1, -4], [1, 1, 0], [0.2, -0.6, -3.2]  # (x / 255 - mean) / std
    expected = [[[white, black], [black, fifth]]]
    first, second = got.values()
    np.testing.assert_allclose(first, expected, atol=1e-6)
    np.testing.assert_array_equal(second, [[7]])  # the other input passes through


def test_a_column_is_normalised_like_a_channel(folder):
    source = with_preprocessing(open_source(folder / "same.keras"), Preprocessing(mean=(40,), std=(8,), input="other"))
    _, other = source.call({"image": np.ones((1, 2, 2, 3), np.float32), "other": np.array([[60]], np.float32)}).values()
    np.testing.assert_array_equal(other, [[2.5]])


def test_two_pixels_become_four_with_half_pixel_centres(folder):
    # centres of 2 out of 4 pixels lie at (i + .5) * 2 - .5 = .5 and 2.5: the means of neighbours
    source = with_preprocessing(open_source(folder / "same.keras"), Preprocessing(resize=(4, 2)))
    column = np.array([0, 10, 20, 40], np.float32)
    image = np.broadcast_to(column[None, :, None, None], (1, 4, 2, 3))
    first, _ = source.call({"image": image, "other": np.zeros((1, 1), np.float32)}).values()
    np.testing.assert_array_equal(first[0, :, 0, 0], [5, 30])


@pytest.mark.parametrize("size", [(24, 20), (7, 33)])
def test_the_resize_is_that_of_tensorflow(net, size):
    tf = pytest.importorskip("tensorflow")
    image = np.random.default_rng(1).uniform(0, 255, (3, *size, 3)).astype(np.float32)
    got = preprocess_tensors(Preprocessing(resize=size), {"image": image}, net.inputs)["image"]
    np.testing.assert_array_equal(got, tf.image.resize(image, (16, 16), antialias=False))


def test_the_wrapped_source_answers_what_the_model_answers_to_prepared_images(net, photos):
    import keras
    import tensorflow as tf

    prepared = np.asarray(tf.image.resize(photos, (16, 16))) / 255
    prepared = (prepared - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    (got,) = with_preprocessing(net, FULL).call({"image": photos}).values()
    # inputs within 3 carry some 2^-22 of rounding; the net is about a Lipschitz constant of 10
    np.testing.assert_allclose(got, keras.models.load_model(net.path)(prepared), atol=1e-5)


def test_it_lowers_to_three_builtin_ops_with_a_free_batch(float32):
    graph = read_tflite(float32).graphs[0]
    assert [op.name for op in graph.operators][:4] == ["RESIZE_BILINEAR", "MUL", "ADD", "CONV_2D"]
    assert graph.tensors[graph.inputs[0]].shape == (None, 24, 20, 3)


def test_the_float32_file_answers_as_the_wrapped_source_at_any_batch(net, float32, photos):
    (expected,) = with_preprocessing(net, FULL).call({"image": photos}).values()
    for batch in (1, 48):
        np.testing.assert_allclose(litert(float32, image=photos[:batch]), expected[:batch], atol=1e-5)


def test_int8_holds_the_preprocessing_and_loses_little_by_it(net, float32, photos):
    (expected,) = with_preprocessing(net, FULL).call({"image": photos}).values()
    inside = quantize(
        float32, Scheme.INT8, calibrate(float32, with_preprocessing(net, FULL), Samples(inputs={"image": photos}))
    )
    assert float_operators(inside) == []

    prepared = np.asarray(preprocess_tensors(FULL, {"image": photos}, net.inputs)["image"])
    bare = lower(freeze(net).composite, net)
    outside = quantize(bare, Scheme.INT8, calibrate(bare, net, Samples(inputs={"image": prepared})))
    cost = snr_db(expected, litert(outside, image=prepared)) - snr_db(expected, litert(inside, image=photos))
    # Four roundings to 8 bits (input, resize, product, sum) where there was one: at most 4 times its noise, 6 dB,
    # if the layers behind it added none. Measured: 0.3 dB here, -0.1 to 0.6 on photographs.
    assert cost < 6


def test_onnx_carries_the_preprocessing(net, frozen, photos):
    ort = pytest.importorskip("onnxruntime")
    source = with_preprocessing(net, FULL)
    session = ort.InferenceSession(to_onnx(frozen, source), providers=["CPUExecutionProvider"])
    (expected,) = source.call({"image": photos}).values()
    np.testing.assert_allclose(session.run(None, {"image": photos})[0], expected, atol=1e-5)


def test_tfjs_carries_the_preprocessing(net, frozen, photos, tmp_path):
    if find_spec("tensorflowjs") is None:  # it loads behind stubs only
        pytest.skip("tensorflowjs is not installed: run edgeloop setup tfjs")
    source, images = with_preprocessing(net, FULL), photos[:2]
    to_tfjs(frozen, source, tmp_path)
    with TFJS.open(tmp_path, "model.json") as session:
        (got,) = session.infer({"image": images}, None).values()
    (expected,) = source.call({"image": images}).values()
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_a_training_graph_uses_the_hook_alone(net, photos):
    """As trainable.py does: a traced function of a fixed batch, preprocessing first, no wrapped source."""
    tf = pytest.importorskip("tensorflow")

    @tf.function(input_signature=[tf.TensorSpec([16, 24, 20, 3], tf.float32)])
    def prepare(image):
        return preprocess_tensors(FULL, {"image": image, "y": 1}, net.inputs)["image"]

    assert prepare.get_concrete_function().structured_outputs.shape == [16, 16, 16, 3]
    expected = preprocess_tensors(FULL, {"image": photos[:16]}, net.inputs)["image"]
    np.testing.assert_allclose(prepare(photos[:16]), expected, atol=1e-6)


def test_a_model_of_the_right_size_gets_no_resize(net):
    frozen = freeze(with_preprocessing(net, Preprocessing(resize=(16, 16), std=(2.0,)))).functional
    assert "ResizeBilinear" not in {node.op for node in frozen.graph.node}


def test_the_original_is_left_as_it_was(net):
    wrapped = with_preprocessing(net, FULL)
    assert wrapped.model is net.model
    assert (wrapped.inputs[0].shape, net.inputs[0].shape) == ((None, 24, 20, 3), (None, 16, 16, 3))
