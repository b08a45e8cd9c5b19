"""Each supported layer, one SGD step on the device runtimes against Keras; the table in docs/trainable.md is that.

EDGELOOP_WRITE_LAYERS=1 pytest -m 'soak or not soak' tests/convert/integration/test_trainable_layers.py
writes the tables anew.
"""

import os
import subprocess

import numpy as np
import pytest

BATCH, RATE = 4, 0.1
# Weights of size 1 moved by a few sums of 1e2 terms: reordered float32 sums differ by 1e2 * 2^-24 = 6e-6 at worst
BOUND = 1e-5
MARK, END = "<!-- {}: written by tests/convert/integration/test_trainable_layers.py -->", "<!-- end of {} -->"
GROUPS = ["layers", *(pytest.param(group, marks=pytest.mark.soak) for group in ("rarer", "operations"))]  # a table each
RARER = frozenset(
    [
        "Attention",
        "MultiHeadAttention",
        "SimpleRNN",
        "Bidirectional",
        "Dot",
        "Average",
        "Subtract",
        "Maximum",
        "Minimum",
        "Permute",
        "RepeatVector",
        "Identity",
        "ActivityRegularization",
        "GroupNormalization",
        "RMSNormalization",
        "UnitNormalization",
        "ELU",
        "GlobalAveragePooling3D",
        "GlobalMaxPooling3D",
        "Cropping1D",
        "Cropping2D",
        "ZeroPadding1D",
        "UpSampling1D",
        "UpSampling2D",
        "DepthwiseConv1D",
        "SeparableConv1D",
        "MaxPooling1D",
        "AveragePooling1D",
    ]
)
RUNTIMES = "litert", "tflite-runtime"
SHAPES = {"image": (7, 8, 3), "series": (5, 4), "ids": (6,)}

DEVICE = """
import sys
import numpy as np
runtime, model, data, out = sys.argv[1:]
if runtime == "litert":
    from ai_edge_litert.interpreter import Interpreter, OpResolverType
else:
    from tflite_runtime.interpreter import Interpreter, OpResolverType
d, found = np.load(data), {}
x = {name[3:]: d[name] for name in d.files if name.startswith("in/")}
for resolver in (OpResolverType.AUTO, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES):
    run = Interpreter(model_path=model, num_threads=1, experimental_op_resolver_type=resolver)
    answers = run.get_signature_runner("infer")(**x)
    run.get_signature_runner("train")(**x, y=d["y"], lr=np.float32(d["lr"]))
    weights = run.get_signature_runner("get_weights")(dummy=np.float32(0))
    found.update({f"{resolver.name}/{name}": value for name, value in {**answers, **weights}.items()})
assert "tensorflow" not in sys.modules
np.savez(out, **found)
"""


def cases(L):
    """Row of the table: input, and what a branch does to it; at least one a layer, an activation, a line of code."""
    image = {
        "Activation": L.Activation("gelu"),
        "ReLU": L.ReLU(),
        "ReLU, max_value 6": L.ReLU(6.0),
        "ReLU, negative_slope": L.ReLU(negative_slope=0.1),
        "LeakyReLU": L.LeakyReLU(),
        "Conv2D": L.Conv2D(5, 3, activation="relu"),
        "Conv2D, strides, same": L.Conv2D(5, (3, 2), strides=(2, 3), padding="same", use_bias=False),
        "Conv2D, dilation": L.Conv2D(5, 3, dilation_rate=(2, 1)),
        "Conv2D, dilation, same": L.Conv2D(5, 3, dilation_rate=2, padding="same"),
        "Conv2D, activation LeakyReLU": L.Conv2D(5, 3, activation=L.LeakyReLU()),
        "Conv2DTranspose": L.Conv2DTranspose(5, 3, activation="relu"),
        "Conv2DTranspose, strides": L.Conv2DTranspose(5, (2, 3), strides=(3, 2), use_bias=False),
        "Conv2DTranspose, strides, same": L.Conv2DTranspose(5, 3, strides=2, padding="same"),
        "Conv2DTranspose, output_padding": L.Conv2DTranspose(5, 3, strides=2, padding="same", output_padding=1),
        "Conv2DTranspose, dilation": L.Conv2DTranspose(5, 2, dilation_rate=2),
        "UpSampling2D": L.UpSampling2D((1, 2)),
        "UpSampling2D, bilinear": L.UpSampling2D(2, interpolation="bilinear"),
        "Cropping2D": L.Cropping2D(((1, 2), (0, 1))),
        "Permute": L.Permute((3, 1, 2)),
        "PReLU": L.PReLU(alpha_initializer="glorot_uniform"),
        "PReLU, shared_axes": L.PReLU(alpha_initializer="glorot_uniform", shared_axes=[1, 2]),
        "ELU": L.ELU(0.7),
        "GroupNormalization": L.GroupNormalization(3),
        "Rescaling": L.Rescaling(1 / 2, offset=-1),
        "Normalization": L.Normalization(mean=0.5, variance=4.0),
        "Normalization, adapted": lambda x: adapted(L.Normalization(), x),
        "TimeDistributed": L.TimeDistributed(L.Conv1D(4, 3)),
        "GlobalAveragePooling3D": lambda x: L.GlobalAveragePooling3D()(L.Reshape((7, 4, 2, 3))(x)),
        "GlobalMaxPooling3D": lambda x: L.GlobalMaxPooling3D()(L.Reshape((7, 4, 2, 3))(x)),
        "Average": lambda x: L.Average()([x, L.Conv2D(3, 1)(x)]),
        "Subtract": lambda x: L.Subtract()([x, L.Conv2D(3, 1)(x)]),
        "Maximum": lambda x: L.Maximum()([x, L.Conv2D(3, 1)(x), L.Conv2D(3, 1)(x)]),
        "Minimum": lambda x: L.Minimum()([x, L.Conv2D(3, 1)(x)]),
        "x * 3": lambda x: x * 3,
        "x[:, ::2, 1:]": lambda x: x[:, ::2, 1:],
        "x[:, None, -1, 1:-1:3]": lambda x: x[:, None, -1, 1:-1:3],
        "DepthwiseConv2D": L.DepthwiseConv2D(3, activation="tanh"),
        "DepthwiseConv2D, strides, same": L.DepthwiseConv2D(3, strides=2, padding="same"),
        "DepthwiseConv2D, dilation": L.DepthwiseConv2D(3, dilation_rate=2, padding="same"),
        "DepthwiseConv2D, depth_multiplier": L.DepthwiseConv2D(3, depth_multiplier=2),
        "SeparableConv2D": L.SeparableConv2D(5, 3, strides=2, padding="same", depth_multiplier=2),
        "SeparableConv2D, dilation": L.SeparableConv2D(5, 2, dilation_rate=2),
        "Dense, rank 4": L.Dense(6, use_bias=False),
        "BatchNormalization": L.BatchNormalization(momentum=0.9),
        "LayerNormalization, several axes": L.LayerNormalization(axis=[1, 2, 3]),
        "MaxPooling2D": L.MaxPooling2D((1, 2)),
        "MaxPooling2D, rest": L.MaxPooling2D(3),
        "MaxPooling2D, overlapping": L.MaxPooling2D(3, strides=2),
        "MaxPooling2D, overlapping, same": L.MaxPooling2D(3, strides=2, padding="same"),
        "AveragePooling2D": L.AveragePooling2D((7, 2)),
        "AveragePooling2D, overlapping": L.AveragePooling2D(3, strides=(1, 2)),
        "AveragePooling2D, overlapping, same": L.AveragePooling2D(3, strides=2, padding="same"),
        "GlobalAveragePooling2D": L.GlobalAveragePooling2D(),
        "GlobalMaxPooling2D": L.GlobalMaxPooling2D(keepdims=True),
        "ZeroPadding2D": L.ZeroPadding2D(((1, 0), (0, 2))),
        "Flatten": L.Flatten(),
        "Reshape": L.Reshape((8, -1)),
        "Dense": lambda x: L.Dense(6)(L.Flatten()(x)),
        "BatchNormalization, rank 2": lambda x: L.BatchNormalization(axis=1, scale=False)(L.Flatten()(x)),
        "Add": lambda x: L.Add()([x, L.Conv2D(3, 1)(x)]),
        "Concatenate": lambda x: L.Concatenate(axis=1)([x, L.Conv2D(3, 1)(x)]),
        "Multiply": lambda x: L.Multiply()([x, L.Conv2D(3, 1)(x)]),
        "Multiply, broadcast": lambda x: L.Multiply()([x, L.GlobalAveragePooling2D(keepdims=True)(x)]),
    }
    series = {
        "Softmax": L.Softmax(),
        "Dense, rank 3": L.Dense(6),
        "LayerNormalization": L.LayerNormalization(),
        "GlobalAveragePooling1D": L.GlobalAveragePooling1D(),
        "GlobalMaxPooling1D": L.GlobalMaxPooling1D(),
        "RMSNormalization": L.RMSNormalization(),
        "UnitNormalization": L.UnitNormalization(),
        "Conv1D": L.Conv1D(5, 3),
        "Conv1D, strides, same": L.Conv1D(5, 3, strides=2, padding="same"),
        "Conv1D, dilation": L.Conv1D(5, 2, dilation_rate=3, use_bias=False),
        "Conv1D, dilation, causal": L.Conv1D(5, 2, dilation_rate=2, padding="causal"),
        "Conv1DTranspose": L.Conv1DTranspose(5, 3, strides=2),
        "Conv1DTranspose, same": L.Conv1DTranspose(5, 2, strides=3, padding="same", activation="relu"),
        "DepthwiseConv1D": L.DepthwiseConv1D(3, padding="same"),
        "SeparableConv1D": L.SeparableConv1D(5, 3, depth_multiplier=2),
        "MaxPooling1D": L.MaxPooling1D(2),
        "AveragePooling1D": L.AveragePooling1D(3, strides=2, padding="same"),
        "UpSampling1D": L.UpSampling1D(3),
        "Cropping1D": L.Cropping1D((1, 2)),
        "ZeroPadding1D": L.ZeroPadding1D((1, 2)),
        "RepeatVector": lambda x: L.RepeatVector(2)(L.Flatten()(x)),
        "Identity": L.Identity(),
        "ActivityRegularization": L.ActivityRegularization(),
        "TimeDistributed, Dense": L.TimeDistributed(L.Dense(3, activation="relu")),
        "Dot": lambda x: L.Dot(axes=(2, 2), normalize=True)([x, L.Dense(4)(x)]),
        "Attention": lambda x: L.Attention(use_scale=True)([x, L.Dense(4)(x)]),
        "MultiHeadAttention": lambda x: L.MultiHeadAttention(2, 3)(x, x),
        "MultiHeadAttention, causal": lambda x: L.MultiHeadAttention(1, 3)(x, x, use_causal_mask=True),
        "SimpleRNN": L.SimpleRNN(3, return_sequences=True),
        "Bidirectional": L.Bidirectional(L.LSTM(2, return_sequences=True)),
        "Bidirectional, initial_state": lambda x: L.Bidirectional(L.GRU(2))(
            x, initial_state=[L.Dense(2)(L.Flatten()(x)) for _ in "hh"]
        ),
        "Bidirectional, sum": L.Bidirectional(L.GRU(2), merge_mode="sum"),
        "LSTM": L.LSTM(3),
        "LSTM, return_sequences, go_backwards": L.LSTM(3, return_sequences=True, go_backwards=True),
        "LSTM, initial_state": lambda x: L.LSTM(3)(x, initial_state=[L.Dense(3)(L.Flatten()(x)) for _ in "hc"]),
        "GRU": L.GRU(3),
        "GRU, relu, without bias": L.GRU(3, return_sequences=True, activation="relu", use_bias=False),
        "GRU, reset_after False": L.GRU(3, reset_after=False),
    }
    yield from ((row, "image", build) for row, build in image.items())
    yield from ((row, "series", build) for row, build in series.items())
    yield "Embedding", "ids", L.Embedding(9, 4)


def operations(L):
    """As `cases`, for functions of keras.ops and activations."""
    from keras import ops

    # of `x` and `y`, two series
    on_tensors = {
        "ops.add": lambda x, y: ops.add(x, y),
        "ops.subtract": lambda x, y: 1 - x - y,
        "ops.multiply": lambda x, y: x * y,
        "ops.divide": lambda x, y: ops.divide(x, ops.exp(y) + 1.0),
        "ops.true_divide": lambda x, y: ops.true_divide(x, 3.0),
        "ops.negative": lambda x, y: -x,
        "ops.reciprocal": lambda x, y: ops.reciprocal(ops.exp(x) + 1.0),
        "ops.square": lambda x, y: ops.square(x),
        "ops.sqrt": lambda x, y: ops.sqrt(ops.square(x) + 1.0),
        "ops.rsqrt": lambda x, y: ops.rsqrt(ops.square(x) + 1.0),
        "ops.power": lambda x, y: x**3,
        "ops.exp": lambda x, y: ops.exp(x),
        "ops.log": lambda x, y: ops.log(ops.square(x) + 1.0),
        "ops.sin": lambda x, y: ops.sin(x),
        "ops.cos": lambda x, y: ops.cos(x),
        "ops.logsumexp": lambda x, y: ops.logsumexp(x, axis=-1, keepdims=True),
        "ops.mean": lambda x, y: x - ops.mean(x, axis=1, keepdims=True),
        "ops.sum": lambda x, y: ops.sum(x, axis=1),
        "ops.max": lambda x, y: ops.max(x, axis=1),
        "ops.min": lambda x, y: ops.min(x, axis=1),
        "ops.amax": lambda x, y: ops.amax(x, axis=-1, keepdims=True),
        "ops.amin": lambda x, y: ops.amin(x, axis=-1, keepdims=True),
        "ops.var": lambda x, y: ops.var(x, axis=1),
        "ops.std": lambda x, y: ops.std(x, axis=1),
        "ops.cumsum": lambda x, y: ops.cumsum(x, axis=1),
        "ops.matmul": lambda x, y: ops.matmul(x, ops.transpose(y, (0, 2, 1))),
        "ops.einsum": lambda x, y: ops.einsum("bij,bkj->bik", x, y),
        "ops.reshape": lambda x, y: ops.reshape(x, (-1, 2, 10)),
        "ops.transpose": lambda x, y: ops.transpose(x, (0, 2, 1)),
        "ops.swapaxes": lambda x, y: ops.swapaxes(x, 1, 2),
        "ops.moveaxis": lambda x, y: ops.moveaxis(x, 1, 2),
        "ops.expand_dims": lambda x, y: ops.expand_dims(x, 1),
        "ops.squeeze": lambda x, y: ops.squeeze(x[:, :1], 1),
        "ops.pad": lambda x, y: ops.pad(x, ((0, 0), (1, 2), (0, 0))),
        "ops.flip": lambda x, y: x * ops.flip(x, axis=1),
        "ops.roll": lambda x, y: x * ops.roll(x, 1, axis=1),
        "ops.repeat": lambda x, y: ops.repeat(x, 2, axis=1),
        "ops.tile": lambda x, y: ops.tile(x, (1, 2, 1)),
        "ops.concatenate": lambda x, y: ops.concatenate([x, y], axis=1),
        "ops.stack": lambda x, y: ops.stack([x, y], axis=1),
        "ops.split": lambda x, y: ops.multiply(*ops.split(x, 2, axis=-1)),
        "ops.unstack": lambda x, y: ops.multiply(*ops.unstack(x, axis=1)[:2]),
        "ops.cast": lambda x, y: ops.cast(x, "float32"),
        "ops.where": lambda x, y: ops.where(x > y, x, 2.0 * y),
        "ops.greater_equal": lambda x, y: x * ops.cast(x >= 0.1, "float32"),
        "ops.less": lambda x, y: x * ops.cast(x < y, "float32") + y,
        "ops.less_equal": lambda x, y: x * ops.cast(x <= y, "float32") + y,
        "ops.maximum": lambda x, y: ops.maximum(x, y),
        "ops.minimum": lambda x, y: ops.minimum(x, 0.1),
        "ops.clip": lambda x, y: ops.clip(x, -0.3, 0.4),
        "ops.abs": lambda x, y: ops.abs(x),
        **{
            f"ops.{name}": lambda x, y, name=name: getattr(ops, name)(x)
            for name in (
                *("relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "glu", "silu", "hard_silu", "sigmoid"),
                *("hard_sigmoid", "log_sigmoid", "softplus", "softsign", "softmax", "log_softmax", "tanh", "hard_tanh"),
                "tanh_shrink",
            )
        },
        "ops.gelu, approximate False": lambda x, y: ops.gelu(x, approximate=False),
    }
    for row, f in on_tensors.items():
        yield row, "series", lambda x, f=f: f(x, L.Dense(4)(x))
    for activation in activations():
        yield f"activation {activation.__name__}", "series", L.Dense(6, activation=activation)


def adapted(layer, x):
    layer.adapt(np.random.default_rng(4).normal(0.5, 2.0, (50, *x.shape[1:])).astype(np.float32))
    return layer(x)


def activations():
    from edgeloop.convert.training.activations import ACTIVATIONS

    return ACTIVATIONS


def rows_of(group, L):
    if group == "operations":
        return operations(L)
    return (row for row in cases(L) if (row[0].split(",")[0] in RARER) == (group == "rarer"))


def every_layer(group):
    """One model of a group, a branch a row: weights before the layer, whose gradient passes it, and after it."""
    import keras

    L = keras.layers
    keras.utils.set_random_seed(1)
    rows = list(rows_of(group, L))
    used = [n for n in SHAPES if n in {name for _, name, _ in rows}]
    inputs = {n: keras.Input(SHAPES[n], name=n, dtype="int32" if n == "ids" else "float32") for n in used}
    heads = {}
    for row, name, build in rows:
        x = inputs[name] if name == "ids" else L.Dense(inputs[name].shape[-1], use_bias=False)(inputs[name])
        heads[row] = L.Dense(3, use_bias=False)(L.Flatten()(build(x)))
    model = keras.Model(list(inputs.values()), L.Softmax(name="p")(L.Add()(list(heads.values()))))
    place = {id(v): f"w{i:03d}" for i, v in enumerate(model.weights)}
    return model, {
        row: [place[id(v)] for v in keras.Model(list(inputs.values()), head).weights] for row, head in heads.items()
    }


@pytest.fixture(scope="module", params=GROUPS)
def group(request):
    return request.param


@pytest.fixture(scope="module")
def stepped(group, tmp_path_factory, device_python):
    """Weight names by row, Keras's weights and answers, and those of each runtime and resolver, after one step."""
    keras = pytest.importorskip("keras")
    tf = pytest.importorskip("tensorflow")
    from edgeloop.convert.training.trainable import TrainableOptions, to_trainable

    folder = tmp_path_factory.mktemp("layers")
    model, rows = every_layer(group)
    (folder / "t.tflite").write_bytes(to_trainable(model, TrainableOptions(batch=BATCH)))
    rng = np.random.default_rng(2)
    x = {n: rng.normal(size=(BATCH, *s)).astype(np.float32) for n, s in SHAPES.items()}
    x["ids"] = rng.integers(0, 9, (BATCH, *SHAPES["ids"]), np.int32)
    x = {t.name: x[t.name] for t in model.inputs}
    y = np.array([0, 1, 2, 1], np.int32)
    np.savez(folder / "data.npz", y=y, lr=np.float32(RATE), **{f"in/{n}": v for n, v in x.items()})
    want = {"p": model(list(x.values()), training=False).numpy()}
    with tf.GradientTape() as tape:
        loss = keras.losses.SparseCategoricalCrossentropy()(y, model(list(x.values()), training=True))
    slopes = tape.gradient(loss, [v.value for v in model.trainable_variables])
    keras.optimizers.SGD(RATE).apply_gradients(zip(slopes, model.trainable_variables, strict=True))
    want.update({f"w{i:03d}": v.numpy() for i, v in enumerate(model.weights)})
    found = {}
    for runtime in RUNTIMES:
        out = folder / f"{runtime}.npz"
        command = [device_python, "-I", "-c", DEVICE, runtime, folder / "t.tflite", folder / "data.npz", out]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if runtime == "tflite-runtime" and "No module named 'tflite_runtime'" in done.stderr:
            pytest.skip("tflite-runtime has no wheel for this Python")
        assert done.returncode == 0, done.stderr
        with np.load(out) as arrays:
            found[runtime] = {name: arrays[name] for name in arrays.files}
    return rows, want, found


def worst(names, want, found):
    """Largest difference over `names`, with default delegates and without."""
    modes = {name.split("/")[0] for name in found}
    assert len(modes) == 2
    return max(float(np.abs(found[f"{mode}/{name}"] - want[name]).max()) for mode in modes for name in names)


def table(rows, want, found):
    """Markdown: what the runtimes did within BOUND."""
    lines = ["| layer | " + " | ".join(RUNTIMES) + " |", "|---|" + "---|" * len(RUNTIMES)]
    for row, names in sorted(rows.items(), key=lambda item: item[0].lower()):
        said = ["yes" if worst(names, want, found[r]) <= BOUND else "**no**" for r in RUNTIMES]
        lines.append(f"| {row} | " + " | ".join(said) + " |")
    return "\n".join(lines)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_one_step_of_every_layer_leaves_keras_own_weights(stepped, runtime):
    rows, want, found = stepped
    differences = {row: worst(names, want, found[runtime]) for row, names in rows.items()}
    assert {row: d for row, d in differences.items() if not d <= BOUND} == {}
    assert worst(["p"], want, found[runtime]) <= BOUND


def test_every_layer_moves_its_weights(group, stepped):
    model, _ = every_layer(group)  # the same seed: the weights before the step
    _, want, _ = stepped
    still = [v.path for i, v in enumerate(model.weights) if np.array_equal(v.numpy(), want[f"w{i:03d}"])]
    fixed = ("/mean", "/variance", "/count")  # of Normalization
    assert [path for path in still if not path.endswith(fixed)] == []


def test_every_activation_has_keras_own_gradient_where_it_bends():
    tf = pytest.importorskip("tensorflow")
    bends = tf.constant([-6.0, -3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 6.0, 7.0])  # an even number, for glu

    def slopes(function):
        with tf.GradientTape() as tape:
            tape.watch(bends)
            y = function(bends[None])
        return tape.gradient(y, bends).numpy()

    pairs = {keras_own.__name__: (slopes(keras_own), slopes(ours)) for keras_own, ours in activations().items()}
    differing = {name for name, (want, found) in pairs.items() if not np.allclose(found, want, atol=1e-5)}
    assert differing == {"celu"}  # Keras's slope at 0 is 2, of a maximum and a minimum that meet there; ours is 1
    np.testing.assert_allclose(np.delete(pairs["celu"][1], 4), np.delete(pairs["celu"][0], 4), atol=1e-5)


def test_every_supported_layer_has_a_row():
    keras = pytest.importorskip("keras")
    from edgeloop.convert.training.layers import AUGMENTATIONS, LAYERS

    tried = {row.split(",")[0] for row, *_ in cases(keras.layers)} | {"InputLayer"}
    tried |= {"Dropout", "SpatialDropout1D", "SpatialDropout2D"}  # a mask is random: tested apart
    assert {kind.__name__ for kind in LAYERS} - {kind.__name__ for kind in AUGMENTATIONS} - tried == set()


def test_every_supported_operation_on_tensors_has_a_row():
    from edgeloop.convert.training.operations import OPERATIONS

    model, _ = every_layer("operations")
    tried = {type(op).__name__ for op in model.operations}
    assert set(OPERATIONS) - tried == set()


def test_the_table_in_the_documentation_is_what_was_found(group, stepped, root):
    page = root / "docs" / "trainable.md"
    mark, end = MARK.format(group), END.format(group)
    before, _, rest = page.read_text().partition(mark)
    _, _, after = rest.partition(end)
    wanted = f"{before}{mark}\n{table(*stepped)}\n{end}{after}"
    if os.environ.get("EDGELOOP_WRITE_LAYERS"):
        page.write_text(wanted)
    assert page.read_text() == wanted


MASKS = """
import sys
import numpy as np
runtime, model, out = sys.argv[1:]
if runtime == "litert":
    from ai_edge_litert.interpreter import Interpreter
else:
    from tflite_runtime.interpreter import Interpreter
run, moved = Interpreter(model_path=model), []
for _ in range(2):
    run.get_signature_runner("set_weights")(w000=np.zeros((1000, 1), np.float32))
    run.get_signature_runner("train")(x=np.ones((1, 1000), np.float32), y=np.ones(1, np.float32), lr=np.float32(0.1))
    moved.append(run.get_signature_runner("get_weights")(dummy=np.float32(0))["w000"][:, 0])
np.save(out, moved)
"""
# the shape of 1,000 values, and the axes of it that one mask is for
DROPOUTS = {
    "Dropout": ((1000,), ()),
    "SpatialDropout1D": ((2, 500), (0,)),
    "SpatialDropout2D": ((2, 1, 500), (0, 1)),
}


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("kind", DROPOUTS)
def test_dropout_scales_what_it_keeps_and_draws_a_new_mask_each_step(kind, runtime, device_python, tmp_path):
    keras = pytest.importorskip("keras")
    from edgeloop.convert.training.trainable import TrainableOptions, to_trainable

    L, (shape, together) = keras.layers, DROPOUTS[kind]
    dropout = [L.Reshape(shape), getattr(L, kind)(0.5), L.Flatten()]
    layers = [keras.Input((1000,), name="x"), *dropout, L.Dense(1, use_bias=False)]
    model, out = tmp_path / "t.tflite", tmp_path / "moved.npy"
    model.write_bytes(to_trainable(keras.Sequential(layers), TrainableOptions(batch=1)))
    done = subprocess.run([device_python, "-I", "-c", MASKS, runtime, model, out], capture_output=True, text=True)
    if runtime == "tflite-runtime" and "No module named 'tflite_runtime'" in done.stderr:
        pytest.skip("tflite-runtime has no wheel for this Python")
    assert done.returncode == 0, done.stderr
    moved = np.load(out).reshape(2, *shape)
    # from zero weights, (0 - 1)^2 has the slope -2 by z, and 2 * mask by the kernel: a step of 0.1 moves it by 0.4
    for kernel in moved:
        np.testing.assert_allclose(np.unique(kernel), [0.0, 0.4], atol=1e-6)
        kept = (kernel > 0).any(together)
        np.testing.assert_array_equal((kernel > 0).all(together), kept)
        assert abs(kept.sum() - kept.size / 2) < 5 * np.sqrt(kept.size / 4)  # five standard deviations
    assert not np.array_equal(*moved)
