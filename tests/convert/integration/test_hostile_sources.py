"""Sources that real frameworks wrote: what is hostile never runs, what is odd is loaded, what keeps state is named."""

import json
import zipfile

import hostile_files as made
import numpy as np
import pytest

from edgeloop.convert.sources.identify import identify
from edgeloop.convert.sources.safety import check_safety
from edgeloop.convert.sources.source import SourceKind, open_source
from edgeloop.errors import ModelError

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")
X = np.array([[1.0, -2.0]], np.float32)


def module(folder, **functions):
    """A SavedModel with one signature for each function of x [n, 2]; `w` is a variable [[1, 2], [3, 4]]."""

    class Module(tf.Module):
        pass

    made_ = Module()
    made_.w = tf.Variable([[1.0, 2.0], [3.0, 4.0]], name="w")
    spec = tf.TensorSpec([None, 2], tf.float32, name="x")

    def traced(function):
        return tf.function(lambda x: {"y": function(made_, x)}, input_signature=[spec], autograph=False)

    made_.functions = {name: traced(function) for name, function in functions.items()}
    tf.saved_model.save(made_, folder, signatures=made_.functions)
    return folder


def product(self, x):
    return x @ self.w


def test_a_signature_that_writes_a_file_is_refused_and_the_file_is_not_there(tmp_path):
    def write(self, x):
        with tf.control_dependencies([tf.io.write_file(str(tmp_path / "evil"), "x")]):
            return tf.identity(x)

    path = module(tmp_path / "m", serve=product, other=write)
    with pytest.raises(ModelError, match=r"WriteFile in the function '__inference_.*', which writes files"):
        open_source(path, "serve")
    source = open_source(path, "other", allow_unsafe=True)
    assert not (tmp_path / "evil").exists()
    assert [note.split(" has ")[0] for note in source.notes] == ["--allow-unsafe: m"]
    source.call({"x": X})
    assert (tmp_path / "evil").exists()


def test_what_tensorflow_and_keras_save_themselves_is_legal(tmp_path):
    net = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 3), keras.layers.BatchNormalization()])
    net.export(tmp_path / "exported", verbose=False)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, [None, 2], "x")
        w = tf.compat.v1.get_variable("w", initializer=tf.constant([[1.0, 2.0], [3.0, 4.0]]))
        y = tf.matmul(x, w)
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.saved_model.simple_save(session, str(tmp_path / "one"), {"x": x}, {"y": y})
    assert check_safety(tmp_path / "exported", SourceKind.SAVEDMODEL) == ()
    answer = open_source(tmp_path / "one").call({"x": X})  # 1*1 - 2*3, 1*2 - 2*4
    np.testing.assert_array_equal(answer["y"], [[-5, -6]])


def test_a_signature_is_chosen_by_name_where_there_are_several(tmp_path):
    path = module(tmp_path / "m", product=product, twice=lambda self, x: 2 * x)
    with pytest.raises(ModelError, match=r"has the signatures product, twice\. Choose one with --signature NAME"):
        open_source(path)
    with pytest.raises(ModelError, match=r"has no signature 'thrice'\. It has: product, twice"):
        open_source(path, "thrice")
    np.testing.assert_array_equal(open_source(path, "twice").call({"x": X})["y"], [[2, -4]])
    np.testing.assert_array_equal(open_source(path, "product").call({"x": X})["y"], [[-5, -6]])


def test_the_only_signature_needs_no_name(tmp_path):
    assert open_source(module(tmp_path / "m", product=product)).signature == "product"


def test_free_sizes_several_inputs_and_several_outputs_stay_so(tmp_path):
    class Two(tf.Module):
        @tf.function(
            input_signature=[
                tf.TensorSpec([None, None, None, 3], tf.float32, name="image"),
                tf.TensorSpec([None, 1], tf.float32, name="age"),
            ]
        )
        def serve(self, image, age):
            return {"mean": tf.reduce_mean(image, [1, 2]), "older": age + 1}

    two = Two()
    tf.saved_model.save(two, tmp_path / "m", signatures=two.serve)
    source = open_source(tmp_path / "m")
    assert {t.name: t.shape for t in source.inputs} == {"image": (None, None, None, 3), "age": (None, 1)}
    assert [t.name for t in source.outputs] == ["mean", "older"]
    answer = source.call({"image": np.ones((2, 5, 7, 3), np.float32), "age": np.ones((2, 1), np.float32)})
    np.testing.assert_array_equal(answer["mean"], np.ones((2, 3)))
    np.testing.assert_array_equal(answer["older"], [[2], [2]])


def test_a_signature_that_keeps_state_is_refused_and_one_beside_it_is_not(tmp_path):
    def count(self, x):
        return x + self.w.assign_add(tf.ones([2, 2]))[0]

    path = module(tmp_path / "m", count=count, product=product)
    with pytest.raises(ModelError, match=r"the signature 'count' keeps state .*\(AssignAddVariableOp\)"):
        open_source(path, "count")
    assert open_source(path, "product").kind is SourceKind.SAVEDMODEL


def test_a_stateful_layer_is_refused_by_its_name(tmp_path):
    x = keras.Input(batch_shape=(1, 3, 2), name="x")
    inner = keras.Sequential([keras.layers.GRU(2, stateful=True, name="memory")])
    keras.Model(x, inner(x)).save(tmp_path / "m.keras")
    with pytest.raises(ModelError, match="keeps state between calls in the layer 'memory'"):
        open_source(tmp_path / "m.keras")


def test_weights_that_are_no_numbers_are_refused_by_the_variables_name(tmp_path):
    net = keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(2, name="broken")])
    net.layers[0].bias.assign([0.0, np.nan])
    for name in ("m.keras", "m.h5"):
        net.save(tmp_path / name)
        with pytest.raises(ModelError, match=r"the weight '(.*/)?broken/bias' holds 1 NaN among 2"):
            open_source(tmp_path / name)
    net.export(tmp_path / "exported", verbose=False)
    with pytest.raises(ModelError, match=r"the weight '(.*/)?broken/bias(:0)?' holds 1 NaN"):
        open_source(tmp_path / "exported")


def depthwise_h5(path):
    """What tf_keras of today writes and Keras 3 cannot load: a DepthwiseConv2D with `groups`."""
    tf_keras = pytest.importorskip("tf_keras")
    x = tf_keras.Input((5, 5, 2), name="x")
    h = tf_keras.layers.DepthwiseConv2D(3, name="depthwise")(x)
    h = tf_keras.layers.Flatten()(h)
    net = tf_keras.Model(x, [tf_keras.layers.Dense(3, name="a")(h), tf_keras.layers.Dense(1, name="b")(h)])
    net.save(path)
    return net


def test_an_h5_that_keras_3_cannot_load_is_loaded_by_tf_keras(tmp_path):
    from edgeloop.convert.forms.freeze import freeze

    net = depthwise_h5(tmp_path / "m.h5")
    with pytest.raises(Exception, match="DepthwiseConv2D"):
        keras.models.load_model(tmp_path / "m.h5", compile=False)
    source = open_source(tmp_path / "m.h5")
    assert (source.model, source.notes) == (None, ("m.h5 was read by tf_keras, because Keras 3 cannot load it.",))
    assert [(t.name, t.shape, t.dtype) for t in source.inputs] == [("x", (None, 5, 5, 2), "float32")]
    x = np.random.default_rng(0).random((2, 5, 5, 2), np.float32)
    for name, expected in zip("ab", net(x), strict=True):
        np.testing.assert_array_equal(source.call({"x": x})[name], expected)
    # the graph computes the same with its weights as constants; float32 sums of 18 terms below 1: 18 * 2^-24
    frozen = freeze(source).functional
    imported = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(frozen.graph, name=""), [])
    answers = imported.prune(list(frozen.inputs), list(frozen.outputs))(tf.constant(x))
    for answer, expected in zip(answers, net(x), strict=True):
        np.testing.assert_allclose(answer, expected, atol=2e-6)


def lambda_h5(path, evil):
    """An .h5 that only tf_keras loads, with a Lambda that writes a file as soon as it is called."""
    tf_keras = pytest.importorskip("tf_keras")
    x = tf_keras.Input((5, 5, 2), name="x")
    h = tf_keras.layers.DepthwiseConv2D(3)(x)
    target = str(evil)
    spy = tf_keras.layers.Lambda(lambda t, target=target: (open(target, "w").close(), t)[1], name="evil")  # noqa: PTH123
    tf_keras.Model(x, spy(h)).save(path)
    evil.unlink()


def test_a_lambda_never_runs_unless_it_is_allowed_and_then_it_is_said(tmp_path):
    evil = tmp_path / "evil"
    lambda_h5(tmp_path / "m.h5", evil)
    with pytest.raises(ModelError, match="has the Lambda layer 'evil', which is Python code"):
        open_source(tmp_path / "m.h5")
    assert not evil.exists()
    notes = open_source(tmp_path / "m.h5", allow_unsafe=True).notes
    assert evil.exists()
    assert notes[0] == "--allow-unsafe: m.h5 has the Lambda layer 'evil', which is Python code."


def test_a_lambda_in_a_keras_file_is_loaded_where_it_is_allowed(tmp_path):
    x = keras.Input((2,), name="x")
    keras.Model(x, keras.layers.Lambda(lambda t: t * 3.0, name="triple")(x)).save(tmp_path / "m.keras")
    with pytest.raises(ModelError, match="Lambda layer 'triple'"):
        open_source(tmp_path / "m.keras")
    answer = open_source(tmp_path / "m.keras", allow_unsafe=True).call({"x": X})
    np.testing.assert_array_equal(answer["triple"], 3 * X)


def test_layers_that_keras_saves_are_not_taken_for_code(tmp_path):
    layers = keras.layers
    x = keras.Input((8, 8, 3), name="x")
    h = layers.Rescaling(1 / 255.0)(x)
    h = layers.SeparableConv2D(4, 3, activation="gelu", depthwise_regularizer="l2", pointwise_constraint="max_norm")(h)
    h = layers.LayerNormalization()(layers.Activation(keras.activations.relu)(h))
    h = keras.ops.mean(h, axis=(1, 2)) + 1.0
    h = layers.Dropout(0.5, seed=1)(h)
    net = keras.Model(x, layers.Dense(2, dtype=keras.DTypePolicy("float32"))(h))
    net.compile(keras.optimizers.Adam(), loss=lambda y, p: keras.ops.mean(y - p), metrics=["accuracy"])
    net.save(tmp_path / "m.keras")
    assert check_safety(tmp_path / "m.keras", identify(tmp_path / "m.keras")) == ()


def test_an_onnx_file_has_one_signature(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(made.onnx(made.onnx_tensor(raw=made.ONE)))
    with pytest.raises(ModelError, match="whose only signature is 'infer'; --signature is 'serve'"):
        open_source(path, "serve")


def test_a_graph_that_cannot_run_is_a_model_error(tmp_path):
    path = module(tmp_path / "m", serve=lambda self, x: tf.reshape(x, [7, 8]))
    with pytest.raises(ModelError, match="m cannot be run"):
        open_source(path).call({"x": X})


def test_keras_refuses_what_only_it_can_see_in_one_line(tmp_path):
    net = keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(2)])
    net.save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(entries["config.json"])
    config["config"]["layers"][1]["config"]["units"] = 3
    entries["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    with pytest.raises(ModelError, match="cannot be loaded by Keras 3") as refused:
        open_source(tmp_path / "m.keras")
    assert "\n" not in str(refused.value)


def test_third_party_models_pass(shared):
    files = [*shared.glob("models/*/*.tflite"), *shared.glob("models/*/*.h5")]
    passed = {
        file.name for file in files if "edgetpu.tflite" not in file.name and check_safety(file, identify(file)) == ()
    }
    assert {"pretrainedResnet.h5", "pretrainedResnet_quant.tflite", "conv_fc_mnist_srq_a8w8.tflite"} <= passed
