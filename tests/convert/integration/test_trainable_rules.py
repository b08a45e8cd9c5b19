"""Optimizers, losses and frozen layers of a trainable .tflite, on both runtimes, against Keras."""

import subprocess
from functools import cache

import numpy as np
import pytest

from edgeloop.errors import ModelError, OptionsError

STEPS, BATCH, RATE = 6, 4, 0.05
# Six steps, each moves a weight by at most 0.5 (Adam: RATE) with sums of some 30 float32 terms: 6 * 30 * 2^-24 = 1e-5
BOUND = 1e-5
RUNTIMES = "litert", "tflite-runtime"
DEVICE = """
import sys
import numpy as np
runtime, model, data, out = sys.argv[1:]
if runtime == "litert":
    from ai_edge_litert.interpreter import Interpreter, OpResolverType
else:
    from tflite_runtime.interpreter import Interpreter, OpResolverType
d, found = np.load(data), {}
plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
for mode, resolver in (("auto", OpResolverType.AUTO), ("plain", plain)):
    run = Interpreter(model_path=model, num_threads=1, experimental_op_resolver_type=resolver)
    call = {name: run.get_signature_runner(name) for name in run.get_signature_list()}
    start = call["get_weights"](dummy=np.float32(0))
    for turn in ("first", "again"):  # set_weights brings weights and optimizer back to where they began
        steps = [call["train"](x=x, y=y, lr=np.float32(d["lr"])) for x, y in zip(d["x"], d["y"])]
        said = {f"train/{key}": np.array([step[key] for step in steps]) for key in steps[0]}
        said.update({f"evaluate/{key}": v for key, v in call["evaluate"](x=d["x"][0], y=d["y"][0]).items()})
        said.update({f"infer/{key}": v for key, v in call["infer"](x=d["x"][0]).items()})
        said.update(call["get_weights"](dummy=np.float32(0)))
        found.update({f"{mode}/{turn}/{key}": value for key, value in said.items()})
        call["set_weights"](**start)
np.savez(out, **found)
"""


def net(units, end, *first):
    import keras

    keras.utils.set_random_seed(4)
    L = keras.layers
    layers = [
        L.Dense(6, activation="tanh"),
        L.BatchNormalization(momentum=0.9),
        L.Dense(5, activation="relu"),
        L.Dense(units, activation=end, name="out"),
    ]
    return keras.Sequential([keras.Input((5,), name="x"), *first, *layers])


def run(model, data, python, folder, runtime):
    """What `DEVICE` found, by "MODE/TURN/NAME"."""
    (folder / "t.tflite").write_bytes(model)
    np.savez(folder / "d.npz", **data)
    files = [folder / "t.tflite", folder / "d.npz", folder / "out.npz"]
    done = subprocess.run([python, "-I", "-c", DEVICE, runtime, *files], capture_output=True, text=True, timeout=120)
    if runtime == "tflite-runtime" and "No module named 'tflite_runtime'" in done.stderr:
        pytest.skip("tflite-runtime has no wheel for this Python")
    assert done.returncode == 0, done.stderr
    with np.load(folder / "out.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


def keras_run(model, data, optimizer, loss):
    """Losses before each step, and the weights after the last, by Keras's own optimizer and loss."""
    import tensorflow as tf

    losses = []
    for x, y in zip(data["x"], data["y"], strict=True):
        with tf.GradientTape() as tape:
            z = model(x, training=True)
            value = loss(y if y.ndim > 1 or z.shape[-1] > 1 else y[:, None], z)
        slopes = tape.gradient(value, [v.value for v in model.trainable_variables])
        optimizer.apply_gradients(zip(slopes, model.trainable_variables, strict=True))
        losses.append(float(value))
    return losses, {f"w{i:03d}": w for i, w in enumerate(model.get_weights())}


def compare(found, losses, weights):
    for mode in ("auto", "plain"):
        for turn in ("first", "again"):
            np.testing.assert_allclose(found[f"{mode}/{turn}/train/loss"], losses, atol=BOUND)
            for name, want in weights.items():
                np.testing.assert_allclose(found[f"{mode}/{turn}/{name}"], want, atol=BOUND, err_msg=name)


def inputs(rng, y):
    return {"x": rng.normal(size=(STEPS, BATCH, 5)).astype(np.float32), "y": y, "lr": np.float32(RATE)}


@cache  # one conversion for both runtimes
def optimized(name):
    """The trainable file of an optimizer, data, and what Keras's own does with them."""
    import keras

    from edgeloop.convert.training.trainable import Optimizer, TrainableOptions, to_trainable

    optimizers = {"momentum": keras.optimizers.SGD(RATE, momentum=0.9), "adam": keras.optimizers.Adam(RATE)}
    model, rng = net(3, "softmax"), np.random.default_rng(0)
    made = to_trainable(model, TrainableOptions(batch=BATCH, optimizer=Optimizer(name)))
    data = inputs(rng, rng.integers(0, 3, (STEPS, BATCH), np.int32))
    return made, data, *keras_run(model, data, optimizers[name], keras.losses.SparseCategoricalCrossentropy())


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_six_steps_of_an_optimizer_are_keras_own_and_set_weights_starts_it_anew(name, runtime, device_python, tmp_path):
    pytest.importorskip("keras")
    made, data, losses, weights = optimized(name)
    compare(run(made, data, device_python, tmp_path, runtime), losses, weights)


LOSSES = {  # end of the model, units, what keras calls the loss, the shape of y
    "one sigmoid": ("sigmoid", 1, "BinaryCrossentropy", ()),
    "several sigmoids": ("sigmoid", 3, "BinaryCrossentropy", (3,)),
    "logits": (None, 3, "SparseCategoricalCrossentropy", ()),
    "one number": (None, 1, "MeanSquaredError", ()),
    "several numbers": ("tanh", 2, "MeanSquaredError", (2,)),
}


@cache
def lost(case):
    """The trainable file of a loss, data, what Keras does with them, its answers then, and what it calls the loss."""
    import keras

    from edgeloop.convert.training.trainable import Loss, TrainableOptions, to_trainable

    end, units, name, shape = LOSSES[case]
    model, rng, mse = net(units, end), np.random.default_rng(1), name == "MeanSquaredError"
    loss = getattr(keras.losses, name)(**({} if mse else {"from_logits": end is None}))
    options = TrainableOptions(batch=BATCH, loss=Loss.MSE if case == "several numbers" else None)
    made = to_trainable(model, options)
    y = rng.normal(size=(STEPS, BATCH, *shape)).astype(np.float32) if mse else None
    data = inputs(
        rng, rng.integers(0, 3 if name[0] == "S" else 2, (STEPS, BATCH, *shape), np.int32) if y is None else y
    )
    losses, weights = keras_run(model, data, keras.optimizers.SGD(RATE), loss)
    return made, data, losses, weights, model(data["x"][0], training=False).numpy(), loss


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("case", LOSSES)
def test_six_steps_of_a_loss_are_keras_own_and_evaluate_says_what_keras_says(case, runtime, device_python, tmp_path):
    pytest.importorskip("keras")
    name = LOSSES[case][2]
    made, data, losses, weights, answer, loss = lost(case)
    found = run(made, data, device_python, tmp_path, runtime)
    compare(found, losses, weights)
    y = data["y"][0]
    np.testing.assert_allclose(found["auto/first/infer/out"], answer, atol=BOUND)
    shaped = y.reshape(answer.shape) if name[0] != "S" else y
    np.testing.assert_allclose(found["auto/first/evaluate/loss"], float(loss(shaped, answer)), atol=BOUND)
    if name == "MeanSquaredError":
        np.testing.assert_allclose(found["auto/first/evaluate/mae"], np.abs(shaped - answer).mean(), atol=BOUND)
    else:
        guess = answer.argmax(-1) if name[0] == "S" else answer > 0.5
        assert found["auto/first/evaluate/correct"] == (guess == shaped).sum()


@cache
def frozen():
    """The trainable file of a net whose first two layers stay, data, its weights before, and what Keras does with it
    without the Dropout: before a frozen layer it drops nothing."""
    import keras

    from edgeloop.convert.training.trainable import Optimizer, TrainableOptions, to_trainable, weight_table

    model, rng = net(3, "softmax", keras.layers.Dropout(0.5)), np.random.default_rng(2)
    before, reference = model.get_weights(), net(3, "softmax")
    reference.set_weights(before)
    made = to_trainable(model, TrainableOptions(batch=BATCH, train_last=2, optimizer=Optimizer.ADAM))
    assert [w.trainable for w in weight_table(model, 2)] == [False] * 6 + [True] * 4  # dense, batch norm; dense, dense
    data = inputs(rng, rng.integers(0, 3, (STEPS, BATCH), np.int32))
    for layer in reference.layers[:2]:
        layer.trainable = False
    loss = keras.losses.SparseCategoricalCrossentropy()
    return made, data, before, *keras_run(reference, data, keras.optimizers.Adam(RATE), loss)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_frozen_layers_keep_every_bit_and_the_last_ones_learn_as_in_keras(runtime, device_python, tmp_path):
    pytest.importorskip("keras")
    from edgeloop.files.flatbuffer import read_tflite

    made, data, before, losses, weights = frozen()
    file = read_tflite(made)
    (graph,) = [s.graph for s in file.signatures if s.name == "set_weights"]
    assigned = [op.name for op in file.graphs[graph].operators].count("ASSIGN_VARIABLE")
    assert assigned == 10 + 2 * 4 + 1  # the weights, Adam's two slots of each that learns, its count of steps
    found = run(made, data, device_python, tmp_path, runtime)
    for i in range(6):
        np.testing.assert_array_equal(found[f"auto/first/w{i:03d}"], before[i])
    compare(found, losses, weights)


def test_a_model_within_a_model_trains_and_its_softmax_is_found(tmp_path, device_python):
    keras = pytest.importorskip("keras")
    from edgeloop.convert.training.trainable import TrainableOptions, to_trainable

    x, rng = keras.Input((5,), name="x"), np.random.default_rng(3)
    model = keras.Model(x, net(3, "softmax")(keras.layers.Dense(5)(x)))
    data = inputs(rng, rng.integers(0, 3, (STEPS, BATCH), np.int32))
    made = to_trainable(model, TrainableOptions(batch=BATCH))
    found = run(made, data, device_python, tmp_path, "litert")
    loss = keras.losses.SparseCategoricalCrossentropy()
    compare(found, *keras_run(model, data, keras.optimizers.SGD(RATE), loss))


def test_an_input_may_have_any_name_that_the_signatures_leave():
    keras = pytest.importorskip("keras")
    from edgeloop.convert.training.trainable import TrainableOptions, to_trainable
    from edgeloop.runtime.agent.trainer import Trainer

    model = keras.Sequential([keras.Input((5,), name="f"), keras.layers.Dense(2, activation="softmax")])
    assert Trainer(to_trainable(model, TrainableOptions(batch=BATCH)), "litert").inputs == ("f",)


def test_preprocessing_comes_first_in_every_signature(tmp_path, device_python):
    keras = pytest.importorskip("keras")
    from edgeloop.bundle import TensorSpec
    from edgeloop.convert.training.trainable import TrainableOptions, to_trainable

    model, rng = net(3, "softmax"), np.random.default_rng(4)
    raw = [TensorSpec("x", (None, 5), "float32")]
    made = to_trainable(
        model, TrainableOptions(batch=BATCH), preprocess=lambda given: {"x": given["x"] * 0.5 - 1.0}, inputs=raw
    )
    data = inputs(rng, rng.integers(0, 3, (STEPS, BATCH), np.int32))
    found = run(made, data, device_python, tmp_path, "litert")
    seen = {**data, "x": data["x"] * np.float32(0.5) - 1}
    compare(found, *keras_run(model, seen, keras.optimizers.SGD(RATE), keras.losses.SparseCategoricalCrossentropy()))
    np.testing.assert_allclose(found["auto/first/infer/out"], model(seen["x"][0], training=False), atol=BOUND)


@pytest.mark.parametrize(
    ("units", "end", "options", "error", "says"),
    [
        (3, "sigmoid", {"loss": "sparse"}, ModelError, "loss sparse does not fit .* Use binary"),
        (3, "softmax", {"loss": "binary"}, ModelError, "loss binary does not fit .* Use sparse"),
        (1, None, {"loss": "sparse"}, ModelError, "1 units .* Use mse"),
        (3, None, {"train_last": 5}, OptionsError, "has 4 layers with weights"),
    ],
)
def test_options_that_do_not_fit_the_model_are_refused(units, end, options, error, says):
    pytest.importorskip("keras")
    from edgeloop.convert.training.trainable import Loss, TrainableOptions, to_trainable

    if "loss" in options:
        options = {"loss": Loss(options["loss"])}
    with pytest.raises(error, match=says):
        to_trainable(net(units, end), TrainableOptions(**options))


def test_training_no_layer_at_all_is_refused():
    from edgeloop.convert.training.trainable import TrainableOptions

    with pytest.raises(OptionsError, match="--train-last is 0"):
        TrainableOptions(train_last=0)
