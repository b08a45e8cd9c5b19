"""Models that are fine and unusual, and what happens to each."""

import numpy as np
import pytest

from edgeloop.bundle import Format, Scheme, read_bundle
from edgeloop.convert.convert import convert
from edgeloop.convert.options import ConvertOptions
from edgeloop.convert.proof.verify import verify
from edgeloop.convert.sources.custom_objects import import_layers
from edgeloop.convert.training.trainable import TrainableOptions
from edgeloop.errors import DataError, ModelError, OptionsError

TFLITE = (Format.TFLITE,)


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Save a functional model and give its path."""
    keras = pytest.importorskip("keras")
    folder = tmp_path_factory.mktemp("odd")

    def save(name, inputs, outputs):
        keras.utils.set_random_seed(1)
        keras.Model(inputs, outputs(keras.layers, inputs)).save(folder / f"{name}.keras")
        return folder / f"{name}.keras"

    return save


@pytest.fixture(scope="module")
def plain(make, tmp_path_factory):
    """A bundle of a small classifier with float, float16, dynamic and int8 files."""
    import keras

    x = keras.Input((4,), name="my-in")
    path = make("plain", x, lambda L, x: L.Dense(3, activation="softmax", name="p")(L.Dense(64, activation="relu")(x)))
    data = path.with_suffix(".npz")
    np.savez(data, x=np.random.default_rng(0).random((32, 4), np.float32))
    options = ConvertOptions(to=TFLITE, calibration=data, trainable=TrainableOptions(batch=4))
    return convert(path, tmp_path_factory.mktemp("plain") / "b", options).bundle


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import sys\nsys.exit('no GPU')", r"SystemExit: no GPU"),
        ("raise SystemExit", "SystemExit"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_an_import_that_ends_or_fails_is_refused_by_its_name(tmp_path, code, why):
    (tmp_path / "layers.py").write_text(code)
    with pytest.raises(OptionsError, match=rf"--import layers\.py cannot be run \({why}.*Run it with Python first"):
        import_layers(tmp_path / "layers.py")


def test_a_name_that_is_no_identifier_is_the_same_clean_one_in_every_variant(plain):
    assert plain.manifest.signatures["infer"].inputs[0].name == "my_in"
    assert "my_in" in {t.name for t in plain.manifest.signatures["train"].inputs}


@pytest.mark.parametrize("scheme", ["dynamic", "int8"])
def test_a_tflite_with_integer_weights_is_taken_as_it_is_under_its_true_scheme(plain, tmp_path, scheme):
    made = convert(plain.file(f"{scheme}.tflite"), tmp_path / "b").bundle
    assert [(v.id, v.scheme.value) for v in made.manifest.variants] == [(scheme, scheme)]
    assert made.file(f"{scheme}.tflite").read_bytes() == plain.file(f"{scheme}.tflite").read_bytes()


def test_a_quantized_tflite_does_not_become_another_scheme_by_name(plain, tmp_path):
    with pytest.raises(ModelError, match="copied unchanged"):
        convert(plain.file("int8.tflite"), tmp_path / "b", ConvertOptions(schemes=(Scheme.FLOAT16,)))


def test_a_trainable_tflite_is_proved_by_its_infer_signature(plain, tmp_path):
    made = convert(plain.file("trainable.tflite"), tmp_path / "b")
    assert {row.output for row in made.parity} == {"p"} and len(made.bundle.manifest.variants) == 1


def test_a_device_that_holds_one_variant_verifies_that_one(plain, tmp_path):
    import shutil

    for name in ("manifest.json", "proof.json", "reference.npz", "int8.tflite"):
        shutil.copy(plain.file(name), tmp_path)
    assert {row.variant for row in verify(tmp_path).parity} == {"int8"}


def test_int8_of_a_model_with_a_fixed_batch_is_calibrated_in_that_batch(make, tmp_path):
    import keras

    path = make("fixed", keras.Input(batch_shape=(3, 4), name="x"), lambda L, x: L.Dense(5, name="y")(x))
    np.savez(tmp_path / "c.npz", x=np.random.default_rng(0).random((17, 4), np.float32))
    made = convert(path, tmp_path / "b", ConvertOptions(to=TFLITE, calibration=tmp_path / "c.npz"))
    assert "int8" in {row.variant for row in made.parity if row.passed}


def test_an_input_that_is_also_an_output_is_handed_through_in_every_form(make, tmp_path):
    import keras

    path = make("through", keras.Input((4,), name="x"), lambda L, x: [L.Dense(2, name="y")(x), x])
    np.savez(tmp_path / "c.npz", x=np.random.default_rng(0).random((32, 4), np.float32))
    made = convert(path, tmp_path / "b", ConvertOptions(to=(*TFLITE, Format.ONNX), calibration=tmp_path / "c.npz"))
    exact = {(row.variant, row.runtime) for row in made.parity if row.output == "x_out" and row.snr_db is None}
    assert exact >= {("float32", "litert"), ("int8", "litert"), ("onnx", "onnxruntime")}


def test_several_outputs_share_no_accuracy(make, tmp_path):
    import keras

    path = make(
        "two", keras.Input((4,), name="x"), lambda L, x: [L.Softmax(name="p")(L.Dense(3)(x)), L.Dense(8, name="e")(x)]
    )
    np.savez(tmp_path / "e.npz", x=np.random.default_rng(0).random((20, 4), np.float32), y=np.zeros(20, np.int32))
    made = convert(path, tmp_path / "b", ConvertOptions(to=TFLITE, evaluation=tmp_path / "e.npz"))
    assert {row.accuracy for row in made.parity} == {None}


def test_a_dict_of_outputs_trains_like_a_plain_one(make, tmp_path):
    import keras

    path = make(
        "named", keras.Input((4,), name="x"), lambda L, x: {"probs": L.Dense(3, activation="softmax", name="p")(x)}
    )
    made = convert(path, tmp_path / "b", ConvertOptions(to=TFLITE, trainable=TrainableOptions(batch=2)))
    assert "trainable" in {row.variant for row in made.parity if row.passed}


@pytest.mark.parametrize("batch", [None, 3])
def test_a_recurrent_layer_with_a_free_batch_gets_a_fixed_one_as_tflite_alone(make, tmp_path, batch):
    import keras

    path = make(f"lstm{batch}", keras.Input((None, 3), name="x"), lambda L, x: L.LSTM(4, name="y")(x))
    options = ConvertOptions(to=(Format.TFLITE, Format.ONNX), schemes=(Scheme.FLOAT32,), batch=batch)
    made = convert(path, tmp_path / "b", options)
    assert made.bundle.manifest.signatures["infer"].inputs[0].shape == (None, None, 3)
    shapes = {v.id: v.shapes for v in read_bundle(made.bundle.path).variants}
    own = batch or 1
    assert shapes == {"float32": {"x": (own, None, 3), "y": (own, 4)}, "onnx": {}}
    assert {(row.variant, row.passed) for row in made.parity} == {("float32", True), ("onnx", True)}
    assert any("fixed batch of 1" in note for note in made.notes) is (batch is None)  # what was asked for is no news
    assert all(row.passed for row in verify(made.bundle.path).parity)


def test_behind_a_recurrent_layer_the_operator_that_tflite_lacks_is_named(make, tmp_path):
    import keras

    path = make("erfinv", keras.Input((5, 4), name="x"), lambda L, x: keras.ops.erfinv(L.LSTM(3)(x) / 2))
    with pytest.raises(ModelError, match=r"builtin TFLite operators: .*Erfinv"):  # and not the loop's free batch
        convert(path, tmp_path / "b", ConvertOptions(to=TFLITE))


def test_a_batch_that_the_model_fixes_otherwise_is_refused(make, tmp_path):
    import keras

    path = make("two", keras.Input((4,), batch_size=2, name="x"), lambda L, x: L.Dense(3)(x))
    with pytest.raises(OptionsError, match=r"no free batch.*x \[2, 4\]"):
        convert(path, tmp_path / "b", ConvertOptions(to=TFLITE, batch=3))


def test_a_shape_fixes_free_sizes_in_every_format(make, tmp_path):
    import keras

    path = make("sizes", keras.Input((None, None, 3), name="x"), lambda L, x: L.Conv2D(2, 3, name="y")(x))
    shapes = (("x", (1, None, 9, None)),)
    options = ConvertOptions(to=(Format.TFLITE, Format.ONNX), schemes=(Scheme.FLOAT32,), shapes=shapes)
    manifest = convert(path, tmp_path / "b", options).bundle.manifest
    ends = manifest.signatures["infer"]
    assert (ends.inputs[0].shape, ends.outputs[0].shape) == ((1, None, 9, 3), (1, None, 7, 2))
    with pytest.raises(OptionsError, match=r"--shape x=1,8 does not fit"):
        convert(path, tmp_path / "b", ConvertOptions(to=TFLITE, shapes=(("x", (1, 8)),)))
    with pytest.raises(OptionsError, match="names the input 'z'"):
        convert(path, tmp_path / "b", ConvertOptions(to=TFLITE, shapes=(("z", (1, 8)),)))


@pytest.mark.parametrize("layer", ["crop", "long"])
def test_made_up_inputs_have_a_size_that_the_model_answers_to(make, tmp_path, layer):
    import keras
    import numpy

    build = {"crop": lambda L, x: L.Cropping1D(20)(x), "long": lambda L, x: L.Conv1D(2, 41)(x)}[layer]
    path = make(layer, keras.Input((None, 2), name="x"), build)
    bundle = convert(path, tmp_path / "b", ConvertOptions(to=(Format.ONNX,))).bundle
    with numpy.load(bundle.file("reference.npz")) as reference:
        assert reference["in/x"].shape == (16, 64, 2)  # 32 is too short: 32 - 40 and 32 - 41 + 1 are below 1


def test_an_upsampling_of_a_free_size_answers_as_it_does_in_keras(make):
    """Keras 3.15 runs it only where its size is known, or outside of a graph. By hand: 0 and 4 four times as wide."""
    import keras

    from edgeloop.convert.sources.source import open_source

    x = keras.Input((None, None, 1), name="x")
    path = make("free", x, lambda L, x: L.UpSampling2D((1, 4), interpolation="bilinear", name="y")(x))
    (answer,) = open_source(path).call({"x": np.float32([[[[0], [4]]]])}).values()
    np.testing.assert_allclose(answer.ravel(), [0, 0, 0.5, 1.5, 2.5, 3.5, 4, 4])


def test_a_source_that_answers_nan_is_blamed_and_not_its_variants(tmp_path):
    tf = pytest.importorskip("tensorflow")

    class Log(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
        def serve(self, x):
            return {"y": tf.math.log(x - 2.0)}

    module = Log()
    tf.saved_model.save(module, tmp_path / "log", signatures={"serve": module.serve})
    with pytest.raises(DataError, match="the source model itself returns NaN"):
        convert(tmp_path / "log", tmp_path / "b", ConvertOptions(to=TFLITE))


def test_a_tensor_of_text_is_refused_by_its_name(tmp_path):
    tf = pytest.importorskip("tensorflow")

    class Odd(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="rate")])
        def serve(self, rate):
            return {"y": tf.zeros([1, 2])}

    module = Odd()
    tf.saved_model.save(module, tmp_path / "odd", signatures={"serve": module.serve})
    with pytest.raises(ModelError, match=r"'rate' is text, .*Look words up before the model"):
        convert(tmp_path / "odd", tmp_path / "b")


def test_the_folder_we_stand_in_can_be_the_target(plain, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    convert(plain.file("int8.tflite"), ".")
    assert read_bundle(tmp_path / "here").manifest.name == "int8"


def test_labels_must_fit_the_output(plain, tmp_path):
    with pytest.raises(OptionsError, match="there are 2 labels"):
        convert(plain.file("float32.tflite"), tmp_path / "b", ConvertOptions(to=TFLITE, labels=("a", "b")))


LAYERS = """
import keras

class Twice(keras.layers.Layer):
    def call(self, x):
        return x * 2
"""


def test_layers_of_ones_own_are_loaded_with_their_file_and_odd_names_and_doubled_outputs_are_converted(tmp_path):
    keras = pytest.importorskip("keras")
    (tmp_path / "twice.py").write_text(LAYERS)
    space: dict = {"__name__": "twice"}
    exec(LAYERS, space)  # the class as the file defines it
    x = keras.Input((4,), name="größe")
    y = keras.layers.Dense(3, name="my dense")(space["Twice"](name=".twice")(x))
    keras.Model(x, [y, y], name="my net").save(tmp_path / "m.keras")
    with pytest.raises(ModelError, match=r"model.export\(\).* or pass --import F.py"):
        convert(tmp_path / "m.keras", tmp_path / "b", ConvertOptions(to=TFLITE))
    made = convert(tmp_path / "m.keras", tmp_path / "b", ConvertOptions(to=TFLITE, imports=(tmp_path / "twice.py",)))
    assert any("--import: the Python code of twice.py was run" in note for note in made.notes)
    assert {row.output for row in made.parity if row.passed} == {"my_dense_0", "my_dense_1"}


def test_a_table_of_words_inside_the_model_is_refused_with_what_to_do(tmp_path):
    tf = pytest.importorskip("tensorflow")
    from edgeloop.convert.forms.freeze import freeze
    from edgeloop.convert.sources.source import open_source

    words = tf.lookup.KeyValueTensorInitializer(["10", "20"], tf.constant([1, 2], tf.int64))

    class Words(tf.Module):
        def __init__(self):
            self.table = tf.lookup.StaticHashTable(words, -1)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, name="ids")])
        def serve(self, ids):
            return {"y": self.table.lookup(tf.strings.as_string(ids))}

    module = Words()
    tf.saved_model.save(module, tmp_path / "words", signatures={"serve": module.serve})
    with pytest.raises(ModelError, match=r"looks values up in the table .*get_vocabulary\(\)"):
        freeze(open_source(tmp_path / "words"))


def test_a_saved_model_of_a_grouped_convolution_has_no_call_left(tmp_path):
    """Keras compiles it with XLA, in a function that a function of the SavedModel calls."""
    keras = pytest.importorskip("keras")
    from edgeloop.convert.forms.freeze import freeze
    from edgeloop.convert.sources.source import open_source

    x = keras.Input((5, 5, 4), name="x")
    keras.Model(x, keras.layers.Conv2D(6, 3, groups=2, name="y")(x)).export(str(tmp_path / "s"), verbose=False)
    frozen = freeze(open_source(tmp_path / "s"))
    for graph in (frozen.functional.graph, frozen.lowered.graph, frozen.composite.graph):
        assert "Conv2D" in {node.op for node in graph.node} and not graph.library.function
