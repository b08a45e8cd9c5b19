"""Every kind of source becomes a bundle whose variants answer as the source does, checked by runtimes run here."""

import json
from dataclasses import replace

import numpy as np
import pytest

from edgeloop.bundle import Format, Scheme, read_bundle
from edgeloop.convert.convert import convert
from edgeloop.convert.options import ConvertOptions
from edgeloop.convert.proof.verify import verify
from edgeloop.errors import DataError, IntegrityError, ModelError, OptionsError, ParityError, WriteError

# a reordered float32 sum of some hundred unit-scale terms: each rounds by at most 2^-24
FLOAT32 = 1e-5


def litert(path, signature=None, **inputs):
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(model_path=str(path)).get_signature_runner(signature)(**inputs)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with models of every kind the verbs take."""
    keras = pytest.importorskip("keras")
    tf = pytest.importorskip("tensorflow")
    keras.utils.set_random_seed(7)
    layers = keras.layers
    folder = tmp_path_factory.mktemp("models")

    image, extra = keras.Input((6, 6, 1), name="image"), keras.Input((3,), name="extra")
    h = layers.Flatten()(layers.Conv2D(4, 3, activation="relu", name="conv")(image))
    h = layers.Concatenate()([h, extra])
    both = keras.Model(
        [image, extra],
        [layers.Dense(3, activation="softmax", name="kind")(h), layers.Dense(1, name="size")(h)],
    )
    both.save(folder / "two_in_two_out.keras")

    one = keras.Sequential([keras.Input((4,), name="x"), layers.Dense(3, activation="softmax", name="p")])
    one.layers[0].set_weights([np.arange(12, dtype=np.float32).reshape(4, 3) / 10, np.zeros(3, np.float32)])
    one.save(folder / "linear.keras")
    one.save(folder / "linear.h5")

    class Scaler(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="a")])
        def double(self, a):
            return {"twice": 2.0 * a}

        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="a")])
        def shift(self, a):
            return {"shifted": a + 1.0}

    scaler = Scaler()
    tf.saved_model.save(scaler, folder / "scaler", signatures={"double": scaler.double, "shift": scaler.shift})
    return folder


@pytest.fixture(scope="module")
def two(models, tmp_path_factory):
    return convert(models / "two_in_two_out.keras", tmp_path_factory.mktemp("two") / "b").bundle


def test_without_data_a_model_becomes_float32_float16_dynamic_onnx_and_tfjs(two):
    assert [v.id for v in two.manifest.variants] == ["float32", "float16", "dynamic", "onnx", "tfjs"]


def test_without_data_one_line_says_what_int8_needs(models, tmp_path):
    made = convert(models / "linear.keras", tmp_path / "b", ConvertOptions(to=(Format.TFLITE,)))
    assert [note for note in made.notes if note.startswith("int8 was not written")] == [
        "int8 was not written: it needs real inputs. Pass --calibration F.npz with 16 or more samples of x."
    ]


def test_two_inputs_and_two_outputs_keep_their_names_and_values(models, two):
    import keras

    rng = np.random.default_rng(1)
    image, extra = rng.random((5, 6, 6, 1), np.float32), rng.random((5, 3), np.float32)
    kind, size = keras.models.load_model(models / "two_in_two_out.keras")([image, extra])
    got = litert(two.file("float32.tflite"), image=image, extra=extra)
    np.testing.assert_allclose(got["kind"], kind, atol=FLOAT32)
    np.testing.assert_allclose(got["size"], size, atol=FLOAT32)


def test_a_free_batch_stays_free_in_every_tflite_scheme(two):
    for scheme in ("float32", "float16", "dynamic"):
        for batch in (1, 7):
            got = litert(
                two.file(f"{scheme}.tflite"),
                image=np.ones((batch, 6, 6, 1), np.float32),
                extra=np.ones((batch, 3), np.float32),
            )
            assert got["kind"].shape == (batch, 3)


def test_onnx_carries_the_same_names_and_a_free_batch(two):
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(str(two.file("model.onnx")), providers=["CPUExecutionProvider"])
    assert [(i.name, i.shape) for i in session.get_inputs()] == [("image", ["batch", 6, 6, 1]), ("extra", ["batch", 3])]
    assert [o.name for o in session.get_outputs()] == ["kind", "size"]


def test_softmax_of_a_product_is_what_paper_and_pencil_give(models, tmp_path):
    bundle = convert(models / "linear.keras", tmp_path / "b", ConvertOptions(to=(Format.TFLITE,))).bundle
    # x @ W with W[i, j] = (3 i + j) / 10 and x = (1, 0, 0, 1): row 0 + row 3 = (.9, 1.1, 1.3)
    z = np.exp([0.9, 1.1, 1.3])
    got = litert(bundle.file("float32.tflite"), x=np.array([[1, 0, 0, 1]], np.float32))["p"]
    np.testing.assert_allclose(got[0], z / z.sum(), atol=1e-6)


def test_a_legacy_h5_gives_the_same_answers_as_the_keras_file(models, tmp_path):
    options = ConvertOptions(to=(Format.TFLITE,), schemes=(Scheme.FLOAT32,))
    x = np.eye(4, dtype=np.float32)
    answers = []
    for file in ("linear.keras", "linear.h5"):
        bundle = convert(models / file, tmp_path / file, options).bundle
        name = bundle.manifest.signatures["infer"].inputs[0].name
        answers.append(litert(bundle.file("float32.tflite"), **{name: x})["p"])
    np.testing.assert_array_equal(*answers)


@pytest.mark.parametrize(
    ("signature", "output", "expected"), [("double", "twice", [4, 6]), ("shift", "shifted", [3, 4])]
)
def test_any_signature_of_a_saved_model_is_converted_under_its_own_name(models, tmp_path, signature, output, expected):
    bundle = convert(models / "scaler", tmp_path / "b", ConvertOptions(signature=signature)).bundle
    assert list(bundle.manifest.signatures) == [signature]
    got = litert(bundle.file("float32.tflite"), signature, a=np.array([[2, 3]], np.float32))
    np.testing.assert_array_equal(got[output], [expected])


def test_a_missing_signature_is_named_with_those_that_exist(models, tmp_path):
    with pytest.raises(ModelError, match=r"no signature 'triple'. It has: double, shift"):
        convert(models / "scaler", tmp_path / "b", ConvertOptions(signature="triple"))


def test_a_tflite_is_requantized_and_becomes_onnx(two, tmp_path):
    # the name goes into the metadata of the file
    made = convert(two.file("float32.tflite"), tmp_path / "again", ConvertOptions(name=two.manifest.name))
    assert [v.id for v in made.bundle.manifest.variants] == ["float32", "float16", "dynamic", "onnx"]
    assert made.bundle.file("float32.tflite").read_bytes() == two.file("float32.tflite").read_bytes()
    assert any("tfjs was not written" in note for note in made.notes)


def test_int8_has_no_float_operator_and_float_ends(models, tmp_path):
    from edgeloop.files.flatbuffer import float_operators, read_tflite

    rng = np.random.default_rng(2)
    calibration = tmp_path / "c.npz"
    np.savez(calibration, image=rng.random((32, 6, 6, 1), np.float32), extra=rng.random((32, 3), np.float32))
    options = ConvertOptions(calibration=calibration, to=(Format.TFLITE,))
    bundle = convert(models / "two_in_two_out.keras", tmp_path / "b", options).bundle
    data = bundle.file("int8.tflite").read_bytes()
    assert float_operators(data) == []
    graph = read_tflite(data).graphs[0]
    assert {graph.tensors[i].dtype for i in (*graph.inputs, *graph.outputs)} == {"float32"}


def test_the_manifest_lists_weights_in_get_weights_order(models, two):
    import keras

    model = keras.models.load_model(models / "two_in_two_out.keras")
    assert [w.shape for w in two.manifest.weights] == [w.shape for w in model.get_weights()]
    assert [w.name for w in two.manifest.weights] == [f"w{i:03d}" for i in range(len(model.weights))]


def test_equal_input_gives_equal_manifest_bytes(models, two, tmp_path):
    again = convert(models / "two_in_two_out.keras", tmp_path / "b", ConvertOptions(cache=False)).bundle
    assert again.manifest_sha256 == two.manifest_sha256


def test_verify_passes_on_a_bundle_and_says_every_runtime(two):
    runtimes = {row.runtime for row in verify(two.path).parity}
    assert {"litert", "onnxruntime", "tfjs"} <= runtimes


def test_verify_finds_one_flipped_byte(models, tmp_path):
    bundle = convert(models / "linear.keras", tmp_path / "b", ConvertOptions(to=(Format.TFLITE,))).bundle
    data = bytearray(bundle.file("float32.tflite").read_bytes())
    data[len(data) // 2] ^= 1
    bundle.file("float32.tflite").write_bytes(data)
    with pytest.raises(IntegrityError, match=r"float32.tflite has sha256"):
        verify(bundle.path)


def test_verify_finds_a_variant_that_computes_something_else(models, tmp_path):
    """Hashes that fit do not help a file that answers wrongly: here, another model under the same name."""
    import keras

    from edgeloop.bundle import MANIFEST, PROOF, file_entries
    from edgeloop.canonical import canonical_json

    model = keras.models.load_model(models / "linear.keras")
    model.layers[0].set_weights([np.ones((4, 3), np.float32) * [1, 2, 3], np.zeros(3, np.float32)])
    model.save(tmp_path / "other.keras")
    options = ConvertOptions(to=(Format.TFLITE,), schemes=(Scheme.FLOAT32,))
    bundle = convert(models / "linear.keras", tmp_path / "b", options).bundle
    other = convert(tmp_path / "other.keras", tmp_path / "o", options).bundle
    bundle.file("float32.tflite").write_bytes(other.file("float32.tflite").read_bytes())
    manifest = json.loads(bundle.file(MANIFEST).read_bytes())
    manifest["files"] = {n: {"bytes": e.bytes, "sha256": e.sha256} for n, e in file_entries(bundle.path).items()}
    del manifest["proof_sha256"]
    bundle.file(MANIFEST).write_bytes(canonical_json(manifest))
    bundle.file(PROOF).unlink()
    with pytest.raises(ParityError, match="float32 on litert does not compute what the source model does"):
        verify(bundle.path)


def test_a_failed_variant_leaves_the_old_bundle_and_nothing_else(tmp_path):
    keras = pytest.importorskip("keras")
    # int4 has steps of a seventh of the largest weight: all of W but one entry a column rounds to nothing
    wide = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(3, name="y")])
    kernel = np.full((4, 3), 0.05, np.float32)
    kernel[3] = 1.0
    wide.layers[0].set_weights([kernel, np.zeros(3, np.float32)])
    wide.save(tmp_path / "wide.keras")
    x = np.ones((64, 4), np.float32) * np.arange(1, 65, dtype=np.float32)[:, None]
    x[:, 3] = 0.0  # only what was rounded away is asked for
    np.savez(tmp_path / "x.npz", x=x)
    options = ConvertOptions(to=(Format.TFLITE,), calibration=tmp_path / "x.npz", schemes=(Scheme.FLOAT16,))
    before = convert(tmp_path / "wide.keras", tmp_path / "b", options).bundle.manifest_sha256
    with pytest.raises(ParityError, match=r"int4 on litert does not compute what the source model does.*worst layer"):
        convert(tmp_path / "wide.keras", tmp_path / "b", replace(options, schemes=(Scheme.FLOAT32, Scheme.INT4)))
    assert read_bundle(tmp_path / "b").manifest_sha256 == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "wide.keras", "x.npz"]


def test_a_form_that_does_not_agree_is_left_out_unless_it_was_named(models, tmp_path):
    pytest.importorskip("keras")
    rng = np.random.default_rng(0)
    real = rng.random((64, 4), np.float32)
    # one broken record sets the range: a step of int8 is then 4,000, and every input of the evaluation is below it
    np.savez(tmp_path / "c.npz", x=np.concatenate([real, np.full((1, 4), 1e6, np.float32)]))
    np.savez(tmp_path / "e.npz", x=real)
    options = ConvertOptions(
        to=(Format.TFLITE, Format.ONNX), calibration=tmp_path / "c.npz", evaluation=tmp_path / "e.npz"
    )
    made = convert(models / "linear.keras", tmp_path / "b", options)
    assert [v.id for v in made.bundle.variants] == ["float32", "float16", "dynamic", "onnx"]
    assert {row.variant for row in made.parity} == {"float32", "float16", "dynamic", "onnx"}
    left = {out.id: out.reason for out in read_bundle(tmp_path / "b").manifest.left_out}
    assert list(left) == ["onnx-int8", "int8"]
    assert left["onnx-int8"].startswith("not smaller than the float32 file")
    assert "output 'p' has SNR" in left["int8"]
    said = [note for note in made.notes if note.startswith("int8 was not written: output 'p' has SNR")]
    assert said and said[0].endswith(
        "To ask for it: edgeloop convert linear.keras -o b --to tflite --schemes int8 --calibration F.npz"
    )
    assert not (tmp_path / "b/int8.tflite").exists() and verify(tmp_path / "b").parity
    for asked in ({"schemes": (Scheme.FLOAT32, Scheme.INT8)}, {"strict": True}):
        with pytest.raises(ParityError, match=r"int8 on litert does not compute what the source model does"):
            convert(models / "linear.keras", tmp_path / "n", replace(options, **asked))
    assert not (tmp_path / "n").exists()


def test_a_form_that_no_runtime_here_can_check_is_left_out_unless_it_was_named(models, tmp_path, monkeypatch):
    pytest.importorskip("keras")
    from edgeloop.convert.proof import prove as proving
    from edgeloop.errors import MissingExtra

    found = proving.places_of

    def without_onnx(formats, options):
        places, missing = found(formats, options)
        return places | {Format.ONNX: []}, missing | {Format.ONNX: MissingExtra("onnxruntime is not installed.")}

    monkeypatch.setattr(proving, "places_of", without_onnx)
    options = ConvertOptions(schemes=(Scheme.FLOAT32,), cache=False)
    made = convert(models / "linear.keras", tmp_path / "b", options)
    assert [v.id for v in made.bundle.variants if v.format is Format.ONNX] == []
    assert "onnx was not written: onnxruntime is not installed." in made.notes
    with pytest.raises(MissingExtra, match="onnxruntime is not installed"):
        convert(models / "linear.keras", tmp_path / "n", replace(options, to=(Format.TFLITE, Format.ONNX)))


CASES = {
    "a scheme without data": ({"schemes": (Scheme.INT8,)}, OptionsError, "int8 needs real inputs"),
    "release 0": ({"release": 0}, OptionsError, "--release is 0"),
    "release 2^53": ({"release": 2**53}, OptionsError, "at most 9007199254740991"),
    "trainable without tflite": ({"to": (Format.ONNX,), "schemes": (Scheme.FLOAT16,)}, OptionsError, "Add --to tflite"),
}


@pytest.mark.parametrize("case", CASES)
def test_options_that_contradict_each_other_are_refused_when_built(case):
    fields, error, message = CASES[case]
    with pytest.raises(error, match=message):
        ConvertOptions(**fields)


DATA = {
    "too few": ({"x": np.zeros((15, 4), np.float32)}, "at least 16 calibration samples, got 15"),
    "another dtype": ({"x": np.zeros((20, 4), np.uint8)}, "x is uint8, and the model takes float32"),
    "another shape": ({"x": np.zeros((20, 5), np.float32)}, r"shape \[20, 5\], and the model takes \[n, 4\]"),
    "not finite": ({"x": np.full((20, 4), np.nan, np.float32)}, "NaN, infinity or a number too large for float32"),
    "another name": ({"z": np.zeros((20, 4), np.float32)}, r"has the arrays \['z'\]"),
}


@pytest.mark.parametrize("case", DATA)
def test_calibration_that_does_not_fit_is_refused_by_what_is_wrong(models, tmp_path, case):
    arrays, message = DATA[case]
    np.savez(tmp_path / "c.npz", **arrays)
    with pytest.raises(DataError, match=message):
        convert(models / "linear.keras", tmp_path / "b", ConvertOptions(calibration=tmp_path / "c.npz"))
    assert not (tmp_path / "b").exists()


def test_a_lambda_layer_is_refused_before_it_could_run(models, tmp_path):
    import zipfile

    with zipfile.ZipFile(models / "linear.keras") as good, zipfile.ZipFile(tmp_path / "bad.keras", "w") as bad:
        for entry in good.infolist():
            data = good.read(entry)
            if entry.filename == "config.json":
                config = json.loads(data)
                config["config"]["layers"].append({"class_name": "Lambda", "config": {"name": "evil"}})
                data = json.dumps(config).encode()
            bad.writestr(entry, data)
    with pytest.raises(ModelError, match="Lambda layer 'evil', which is Python code"):
        convert(tmp_path / "bad.keras", tmp_path / "b")


def test_a_folder_that_is_no_bundle_is_never_replaced(models, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")
    with pytest.raises(WriteError, match="not a bundle"):
        convert(models / "linear.keras", tmp_path / "home")
    assert (tmp_path / "home" / "thesis.txt").read_text() == "years of work"
