"""What a device computes when it trains is what TensorFlow would have computed."""

import json
import subprocess

import numpy as np
import pytest

from edgeloop.errors import ModelError, OptionsError

STEPS, BATCH, RATE = 20, 8, 0.05
# One step differs by reordered float32 sums: some 1e-7 relative. They grow a little over 20 steps of a net whose
# batch norm divides by small deviations; measured 7e-7 after 60 steps on weights, 8e-6 on losses.
WEIGHT, LOSS = 1e-5, 1e-4

DEVICE = """
import json, sys
import numpy as np
runtime, model, data, out = sys.argv[1:]
if runtime == "litert":
    from ai_edge_litert.interpreter import Interpreter
else:
    from tflite_runtime.interpreter import Interpreter
run = Interpreter(model_path=model, num_threads=1)
train = run.get_signature_runner("train")
d = np.load(data)
losses = [float(train(image=x, y=y, lr=np.float32(d["rate"]))["loss"]) for x, y in zip(d["x"], d["y"])]
np.savez(out, **run.get_signature_runner("get_weights")(dummy=np.float32(0)))
print(json.dumps({"losses": losses, "tensorflow": "tensorflow" in sys.modules}))
"""


def small_net():
    import keras

    keras.utils.set_random_seed(3)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((9, 8, 2), name="image"),
            layers.Conv2D(6, 3, strides=2, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(6.0),
            layers.DepthwiseConv2D(3, padding="valid"),
            layers.Conv2D(4, (2, 1), activation="relu"),
            layers.AveragePooling2D((2, 2)),
            layers.Flatten(),
            layers.Dense(8, activation="tanh"),
            layers.Dense(3, activation="softmax", name="p"),
        ]
    )


def one_step(model, x, y):
    """One step of SGD in Keras: its loss; the weights are the model's."""
    import keras
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = keras.losses.SparseCategoricalCrossentropy()(y, model(x, training=True))
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    keras.optimizers.SGD(RATE).apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    return float(loss)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the .tflite and the batches, Keras's own losses, and its weights after the last step."""
    pytest.importorskip("keras")
    from edgeloop.convert.training.trainable import TrainableOptions, to_trainable

    folder = tmp_path_factory.mktemp("trainable")
    model = small_net()
    with pytest.MonkeyPatch.context() as patch:  # of a small cache: kernels spread over variables, groups of images
        patch.setattr("edgeloop.convert.training.products.CACHED", 50)
        patch.setattr("edgeloop.convert.training.convolution_forms.CACHED", 50)
        (folder / "t.tflite").write_bytes(to_trainable(model, TrainableOptions(batch=BATCH)))
    rng = np.random.default_rng(5)
    x = rng.random((STEPS, BATCH, 9, 8, 2), np.float32)
    y = rng.integers(0, 3, (STEPS, BATCH), np.int32)
    np.savez(folder / "data.npz", x=x, y=y, rate=np.float32(RATE))
    losses = [one_step(model, *batch) for batch in zip(x, y, strict=True)]
    return folder, losses, model.get_weights()


@pytest.mark.parametrize("runtime", ["litert", "tflite-runtime"])
def test_twenty_steps_on_a_device_give_keras_own_losses_and_weights(trained, device_python, tmp_path, runtime):
    folder, losses, weights = trained
    command = [device_python, "-I", "-c", DEVICE, runtime, folder / "t.tflite", folder / "data.npz", tmp_path / "w.npz"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if runtime == "tflite-runtime" and "No module named 'tflite_runtime'" in done.stderr:
        pytest.skip("tflite-runtime has no wheel for this Python")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert not said["tensorflow"]
    np.testing.assert_allclose(said["losses"], losses, atol=LOSS)
    with np.load(tmp_path / "w.npz") as got:
        assert sorted(got.files) == [f"w{i:03d}" for i in range(len(weights))]
        for name, want in zip(sorted(got.files), weights, strict=True):
            np.testing.assert_allclose(got[name], want, atol=WEIGHT, err_msg=name)


def test_the_file_has_five_signatures_and_only_builtin_operators(trained):
    from edgeloop.files.flatbuffer import read_tflite

    model = read_tflite((trained[0] / "t.tflite").read_bytes())
    assert sorted(s.name for s in model.signatures) == ["evaluate", "get_weights", "infer", "set_weights", "train"]
    assert not [op.name for g in model.graphs for op in g.operators if op.name.startswith(("Flex", "UNKNOWN"))]


def test_set_weights_then_get_weights_returns_them_to_the_bit(trained):
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(model_path=str(trained[0] / "t.tflite"))
    weights = {f"w{i:03d}": w for i, w in enumerate(trained[2])}
    run.get_signature_runner("set_weights")(**weights)
    back = run.get_signature_runner("get_weights")(dummy=np.float32(0))
    for name, value in weights.items():
        np.testing.assert_array_equal(back[name], value)


def on_device_and_in_keras(model, x, y):
    """The answer before one step, and all weights after it: LiteRT's, and Keras's."""
    from ai_edge_litert.interpreter import Interpreter

    from edgeloop.convert.training.trainable import TrainableOptions, to_trainable

    run = Interpreter(model_content=to_trainable(model, TrainableOptions(batch=len(x))))
    weights = {f"w{i:03d}": w for i, w in enumerate(model.get_weights())}
    run.get_signature_runner("set_weights")(**weights)
    (answer,) = run.get_signature_runner("infer")(x=x).values()
    run.get_signature_runner("train")(x=x, y=y, lr=np.float32(RATE))
    moved = run.get_signature_runner("get_weights")(dummy=np.float32(0))
    own = model(x).numpy()
    one_step(model, x, y)
    return [answer, *(moved[name] for name in weights)], [own, *model.get_weights()]


def test_large_dense_kernels_train_as_in_keras_at_rank_3_and_rank_4(monkeypatch):
    keras = pytest.importorskip("keras")
    L, rng = keras.layers, np.random.default_rng(0)
    monkeypatch.setattr("edgeloop.convert.training.products.CACHED", 8)  # every kernel is spread over variables
    keras.utils.set_random_seed(0)
    four, three = L.Dense(6, activation="tanh"), L.Dense(5, use_bias=False)
    last = [L.Flatten(), L.Dense(3, activation="softmax")]
    model = keras.Sequential([keras.Input((2, 3, 4), name="x"), four, L.Reshape((6, 6)), three, *last])
    pairs = on_device_and_in_keras(model, rng.random((4, 2, 3, 4), np.float32), np.array([0, 1, 2, 1], np.int32))
    for found, want in zip(*pairs, strict=True):
        np.testing.assert_allclose(found, want, atol=WEIGHT)


def test_windows_wider_than_the_image_train_as_in_keras():
    keras = pytest.importorskip("keras")
    L, rng = keras.layers, np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    x = keras.Input((10, 4), name="x")
    image = L.Reshape((4, 4, 1))(L.Dense(16)(L.Flatten()(L.Conv1D(4, 3, dilation_rate=16, padding="same")(x))))
    pools = [
        kind(13, padding="same", strides=strides)(image)
        for kind in (L.MaxPooling2D, L.AveragePooling2D)
        for strides in (1, 2)
    ]
    pixel = L.Conv2D(3, 5, padding="same")(L.GlobalAveragePooling2D(keepdims=True)(image))
    y = L.Dense(3, activation="softmax")(L.Concatenate()([L.Flatten()(part) for part in (*pools, pixel)]))
    pairs = on_device_and_in_keras(
        keras.Model(x, y), rng.random((4, 10, 4), np.float32), np.array([0, 1, 2, 1], np.int32)
    )
    for found, want in zip(*pairs, strict=True):
        np.testing.assert_allclose(found, want, atol=WEIGHT)


# size, window, stride, dilation, channels: each form of convolution_forms.py and convolution_tiles.py, with rests
SHAPES = [
    *((5, 3, 1, 1, 3, "same"), (6, 3, 2, 1, 3, "same"), (6, 3, 2, 1, 3, "valid"), (7, 2, 3, 1, 3, "valid")),
    *((4, 1, 2, 1, 3, "same"), (8, 5, 3, 1, 3, "valid"), (9, 3, 1, 2, 2, "same")),
    *((6, 2, 1, 1, 5, "same"), (7, 3, 1, 1, 5, "same"), (7, 3, 1, 1, 5, "valid"), (7, 4, 1, 1, 5, "valid")),
    *((8, 5, 1, 1, 5, "same"), (9, 5, 1, 1, 5, "valid"), (5, 1, 1, 1, 5, "valid")),
    *((8, 3, 2, 1, 5, "same"), (4, 1, 3, 1, 5, "same"), (7, 6, 1, 1, 5, "valid"), (9, 3, 1, 2, 5, "same")),
    # taps farther outside than the image is long
    *((3, 3, 1, 4, 3, "same"), (3, 3, 1, 4, 5, "same"), (1, 5, 1, 1, 1, "same"), (1, 5, 1, 1, 5, "same")),
]


@pytest.mark.parametrize(("size", "window", "stride", "dilation", "channels", "padding"), SHAPES)
def test_convolution_gradients_equal_tensorflows_for_every_form(
    monkeypatch, size, window, stride, dilation, channels, padding
):
    tf = pytest.importorskip("tensorflow")
    from edgeloop.convert.training import convolutions

    monkeypatch.setattr("edgeloop.convert.training.convolution_forms.CACHED", 100)  # groups of images
    rng = np.random.default_rng(size * 100 + window * 10 + stride)
    image, named = (size, size + 1), padding.upper()

    def random(*shape):
        return tf.constant(rng.normal(size=shape), tf.float32)

    x, thin = random(3, *image, channels), random(window, window, channels, 1) / window
    full = random(window, window, channels, 4) / (window * channels**0.5)  # outputs of size 1
    y = tf.nn.conv2d(x, full, stride, named, dilations=dilation)
    pairs = [
        (
            [x, full],
            lambda x, w: convolutions.conv2d(x, w, (stride,) * 2, padding, (dilation,) * 2),
            lambda x, w: tf.nn.conv2d(x, w, stride, named, dilations=dilation),
        ),
        (
            [random(*y.shape), full],
            lambda x, w: convolutions.conv2d_transpose(x, w, image, (stride,) * 2, padding, (dilation,) * 2),
            lambda x, w: tf.nn.conv2d_transpose(x, w, (3, *image, channels), stride, named, dilations=dilation),
        ),
        (
            [x, thin],
            lambda x, w: convolutions.depthwise_conv2d(x, w, (stride,) * 2, padding, (dilation,) * 2),
            lambda x, w: tf.nn.depthwise_conv2d(x, w, [1, stride, stride, 1], named, dilations=[dilation] * 2),
        ),
    ]
    for given, ours, theirs in pairs:
        if theirs is pairs[1][2] and dilation > 1:
            continue  # TensorFlow's own has no dilation on a CPU
        results = []
        for f in (ours, theirs):
            with tf.GradientTape() as tape:
                tape.watch(given)
                y = f(*given)
                total = tf.reduce_sum(y * tf.cos(y))  # another slope for every output
            results.append((y, *tape.gradient(total, given)))
        for mine, real in zip(*results, strict=True):
            # gradients of size 50 at most; (2, 5) of toom_cook.py makes a rounding 64 times larger: 50 * 64 * 2^-24
            np.testing.assert_allclose(mine, real, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("window", "stride", "padding"),
    [((2, 2), (2, 2), "valid"), ((3, 1), (3, 1), "same"), ((3, 3), (2, 1), "same"), ((2, 5), (3, 2), "valid")],
)
def test_max_pooling_gives_a_tie_to_its_first_maximum_as_tensorflow_does(window, stride, padding):
    tf = pytest.importorskip("tensorflow")
    from edgeloop.convert.training.pooling import max_pool

    x = tf.constant(np.random.default_rng(0).integers(-2, 1, (2, 6, 8, 3)), tf.float32)  # many ties, some with 0
    slopes = []
    for pool in (
        lambda x: max_pool(x, window, stride, padding),
        lambda x: tf.nn.max_pool2d(x, window, stride, padding.upper()),
    ):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = pool(x)
            total = tf.reduce_sum(y * tf.reshape(tf.range(tf.size(y), dtype=tf.float32), y.shape))
        slopes.append(tape.gradient(total, x))
    np.testing.assert_array_equal(*slopes)


def test_average_pooling_spreads_its_gradient_evenly():
    tf = pytest.importorskip("tensorflow")
    from edgeloop.convert.training.pooling import average_pool

    x = tf.ones((1, 2, 4, 1))
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(average_pool(x, (2, 2), (2, 2), "valid") * tf.constant([[[[4.0], [8.0]]]]))
    # each of the 4 pixels of a window gets a quarter: 4/4 = 1 on the left, 8/4 = 2 on the right
    np.testing.assert_array_equal(tape.gradient(total, x)[0, ..., 0], [[1, 1, 2, 2], [1, 1, 2, 2]])


def mine(x):
    return x * x


mine.__name__ = "relu"
REFUSED = {
    "a layer without device gradients": (lambda L: L.GaussianNoise(0.1), "GaussianNoise, which has no device"),
    "an unknown activation": (lambda L: L.Conv2D(2, 3, activation="sparsemax"), "activation sparsemax"),
    "a function that is only called relu": (lambda L: L.Conv2D(2, 3, activation=mine), "activation relu"),
    "a layer as activation": (lambda L: L.Conv2D(2, 3, activation=L.ReLU(3.0)), "neither ReLU"),
    "groups": (lambda L: L.Conv2D(2, 3, groups=2), "2 groups"),
    "half precision": (lambda L: L.Conv2D(2, 3, dtype="mixed_float16"), "computes in float16"),
    "batch norm of rows": (lambda L: L.BatchNormalization(axis=1), "axis 1"),
    "layer norm of rows": (lambda L: L.LayerNormalization(axis=1), r"axes \[1\] of 4"),
    "softmax of rows": (lambda L: L.Softmax(axis=1), "over axis 1"),
    "a clipped relu": (lambda L: L.ReLU(3.0), "neither ReLU"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_unsupported_layer_is_refused_by_its_path(case):
    keras = pytest.importorskip("keras")
    from edgeloop.convert.training.trainable import to_trainable

    make, message = REFUSED[case]
    layer = make(keras.layers)
    first, rest = keras.layers.Conv2D(2, 1), [keras.layers.Flatten(), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((9, 8, 2)), first, layer, *rest])
    with pytest.raises(ModelError, match=message) as refused:
        to_trainable(model)
    assert "\n" not in str(refused.value) and (layer.path or layer.name) in str(refused.value)


SEQUENCES = {
    "masked": (lambda L: [L.Embedding(5, 2, mask_zero=True), L.Flatten()], "masks zeros"),
    "stateful": (lambda L: [L.Embedding(5, 2), L.LSTM(2, stateful=True)], "uses stateful"),
    "dropout within": (lambda L: [L.Embedding(5, 2), L.GRU(2, recurrent_dropout=0.1)], "uses recurrent_dropout"),
}


@pytest.mark.parametrize("case", SEQUENCES)
def test_an_unsupported_option_of_a_sequence_layer_is_refused(case):
    keras = pytest.importorskip("keras")
    from edgeloop.convert.training.trainable import to_trainable

    make, message = SEQUENCES[case]
    layers = [keras.Input((4,), batch_size=16), *make(keras.layers), keras.layers.Dense(3)]
    with pytest.raises(ModelError, match=message):
        to_trainable(keras.Sequential(layers))


def test_an_operation_without_device_gradient_is_refused_by_its_name():
    keras = pytest.importorskip("keras")
    from edgeloop.convert.training.trainable import to_trainable

    x = keras.Input((4,))
    model = keras.Model(x, keras.layers.Dense(2)(keras.ops.erf(keras.layers.Dense(3)(x))))
    with pytest.raises(ModelError, match=r"operation 'erf.*' is keras.ops.Erf, which has no device gradient"):
        to_trainable(model)


def test_one_error_names_everything_unsupported_and_how_many_last_layers_can_train():
    keras = pytest.importorskip("keras")
    from edgeloop.convert.training.trainable import TrainableOptions, check_options

    L, x = keras.layers, keras.Input((8, 8, 2), name="x")
    y = L.Conv2D(4, 3, groups=2, name="grouped")(L.GaussianNoise(0.1, name="noise")(L.Conv2D(2, 3)(x)))
    y = L.Dense(4)(L.Flatten()(keras.ops.erf(L.Activation("sparsemax", name="sparse")(y))))
    model = keras.Model(x, L.Dense(3)(y))
    with pytest.raises(ModelError) as refused:
        check_options(model, TrainableOptions(), [])
    text = str(refused.value)
    for found in ("'noise' is a GaussianNoise", "'grouped' has 2 groups", "activation sparsemax", "is keras.ops.Erf"):
        assert found in text
    assert "pass --train-last 2, which trains no such layer" in text
    assert check_options(model, TrainableOptions(train_last=2), []) == ()


def test_a_mask_that_reaches_a_trained_layer_is_refused():
    keras = pytest.importorskip("keras")
    from edgeloop.convert.training.trainable import to_trainable

    layers = [keras.Input((4, 3)), keras.layers.Masking(), keras.layers.LSTM(2, name="lstm"), keras.layers.Dense(3)]
    with pytest.raises(ModelError, match="lstm' gets a mask"):
        to_trainable(keras.Sequential(layers))


def test_a_free_dimension_beside_the_batch_is_refused():
    keras = pytest.importorskip("keras")
    from edgeloop.convert.training.trainable import to_trainable

    layers = [keras.Input((None, None, 1), name="image"), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)]
    with pytest.raises(ModelError, match=r"input 'image' has the shape \[None, None, None, 1\]"):
        to_trainable(keras.Sequential(layers))


def test_only_what_the_converter_raises_is_called_a_failed_lowering(monkeypatch):
    keras = pytest.importorskip("keras")
    from edgeloop.convert.training.trainable import to_trainable

    def broken(blob):
        raise ZeroDivisionError

    monkeypatch.setattr("edgeloop.convert.training.trainable.in_training_order", broken)
    with pytest.raises(ZeroDivisionError):
        to_trainable(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))


def test_a_batch_below_one_is_refused():
    from edgeloop.convert.training.trainable import TrainableOptions

    with pytest.raises(OptionsError, match="--train-batch is 0"):
        TrainableOptions(batch=0)
