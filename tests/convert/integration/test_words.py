"""Models that take words: converted behind their lookup layers, with the words in the bundle."""

import json

import numpy as np
import pytest

from edgeloop.bundle import Format, Scheme
from edgeloop.convert.convert import convert
from edgeloop.convert.look_up import look_up
from edgeloop.convert.options import ConvertOptions
from edgeloop.convert.read_samples import LabelPolicy, read_samples
from edgeloop.convert.sources.source import open_source
from edgeloop.edge.on_device.releases.staged_bundle import device_files
from edgeloop.errors import DataError, ModelError

keras = pytest.importorskip("keras")
L = keras.layers
WORDS = ["cat", "dog", "größe"]


def saved(folder, inputs, outputs):
    keras.utils.set_random_seed(1)
    model = keras.Model(inputs, outputs)
    model.save(folder / "m.keras")
    return model


def with_numbers(folder):
    text, more = keras.Input((1,), dtype="string", name="text"), keras.Input((2,), name="more")
    layer = L.TextVectorization(output_sequence_length=4, vocabulary=WORDS)
    y = L.Flatten()(L.Embedding(5, 3)(layer(text)))
    return saved(folder, [text, more], L.Dense(2)(L.Concatenate()([y, more]))), layer


def test_a_model_of_text_begins_behind_its_vectorization_and_answers_as_before(tmp_path):
    model, layer = with_numbers(tmp_path)
    source = open_source(tmp_path / "m.keras")
    assert [(spec.name, spec.shape, spec.dtype) for spec in source.inputs] == [
        ("text", (None, 4), "int64"),
        ("more", (None, 2), "float32"),
    ]
    text, more = np.array([["A cat, a DOG!"], ["größe"]]), np.array([[0.5, -1.0], [2.0, 3.0]], np.float32)
    tokens = np.asarray(layer(text))
    assert tokens.tolist() == [[1, 2, 1, 3], [4, 0, 0, 0]]  # 0: nothing, 1: unknown
    expected = np.asarray(model([keras.ops.convert_to_tensor(array) for array in (text, more)]))
    (got,) = source.call({"text": tokens, "more": more}).values()
    np.testing.assert_allclose(got, expected, atol=1e-6)
    words = json.loads(source.files["vocabulary-text.json"])
    assert words["words"] == ["", "[UNK]", *WORDS]
    settings = {key: words[key] for key in ("layer", "standardize", "split", "output_mode", "output_sequence_length")}
    assert settings == {
        "layer": "TextVectorization",
        "standardize": "lower_and_strip_punctuation",
        "split": "whitespace",
        "output_mode": "int",
        "output_sequence_length": 4,
    }
    assert any("Look words up before the model; vocabulary-text.json in the bundle" in note for note in source.notes)


def test_the_words_lie_in_the_bundle_and_words_of_the_user_are_looked_up(tmp_path):
    x = keras.Input((6,), dtype="string", name="tag")
    layer = L.StringLookup(vocabulary=WORDS)
    model = saved(tmp_path, x, L.Dense(2)(L.Flatten()(L.Embedding(5, 4)(layer(x)))))
    text = np.random.default_rng(0).choice([*WORDS, "bird"], (40, 6))
    expected = np.asarray(model(keras.ops.convert_to_tensor(text)))
    y = expected.argmax(axis=1)
    y[:10] = 1 - y[:10]  # of 40: the model is right in 75%
    np.savez(tmp_path / "e.npz", tag=text, y=y)
    options = ConvertOptions(to=(Format.TFLITE,), schemes=(Scheme.FLOAT32,), evaluation=tmp_path / "e.npz", cache=False)
    made = convert(tmp_path / "m.keras", tmp_path / "b", options)
    manifest = made.bundle.manifest
    assert [row.accuracy for row in made.parity] == [0.75] * len(made.parity)
    assert "The words in e.npz were looked up as the model does, and every form was given their numbers." in made.notes
    reference = np.load(tmp_path / "b" / "reference.npz")
    np.testing.assert_array_equal(reference["in/tag"], np.asarray(layer(text[:16])))
    assert json.loads((tmp_path / "b" / "vocabulary-tag.json").read_bytes())["words"] == ["[UNK]", *WORDS]
    assert sorted(device_files(manifest, manifest.variant("float32"))) == [
        "float32.tflite",
        "reference.npz",
        "vocabulary-tag.json",
    ]


SENTENCES = np.array(["A cat, a DOG!", "größe", "dog cat dog cat bird", ""])


@pytest.mark.parametrize("length", [4, None])
def test_texts_are_looked_up_as_the_model_does_from_all_files_of_a_folder(tmp_path, length):
    x = keras.Input((), dtype="string", name="x")
    y = L.Embedding(5, 3)(L.TextVectorization(output_sequence_length=length, vocabulary=WORDS)(x))
    model = exported(tmp_path, x, L.Dense(2)(L.GlobalMaxPooling1D()(y)))
    model.save(tmp_path / "m.keras")
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "a.npz", x=SENTENCES[:1], y=[1])
    np.savez(tmp_path / "data" / "b.npz", x=np.char.encode(SENTENCES[1:], "utf-8"), y=[2, 3, 4])
    expected = np.asarray(model(keras.ops.convert_to_tensor(SENTENCES)))
    for name in ("m.keras", "m"):
        source = open_source(tmp_path / name)
        made = look_up(tmp_path / "data", source, tmp_path / f"{name} numbers")
        samples = read_samples(made, source.inputs, labels=LabelPolicy.NEEDED)
        assert samples.inputs["x"].tolist()[2] == [3, 2, 3, 2, 1][:length]  # 1: a word that is none of the vocabulary
        assert samples.labels.tolist() == [1, 2, 3, 4]
        (got,) = source.call(samples.inputs).values()
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_numbers_stay_as_they_are_and_words_of_another_shape_are_refused(tmp_path):
    x = keras.Input((3,), dtype="string", name="x")
    saved(tmp_path, x, L.Embedding(5, 2)(L.StringLookup(vocabulary=WORDS)(x)))
    source = open_source(tmp_path / "m.keras")
    np.savez(tmp_path / "numbers.npz", x=np.zeros((2, 3), np.int64))
    assert look_up(tmp_path / "numbers.npz", source, tmp_path / "n") == tmp_path / "numbers.npz"
    np.savez(tmp_path / "words.npz", x=SENTENCES)
    with pytest.raises(DataError, match=r"the words of x have shape \[4\], and the model takes \[n, 3\]"):
        look_up(tmp_path / "words.npz", source, tmp_path / "w")


@pytest.mark.parametrize("kind", [L.TextVectorization, L.StringLookup])
def test_the_words_of_tf_idf_have_the_weights_that_the_layer_learned(tmp_path, kind):
    layer = kind(output_mode="tf_idf")
    layer.adapt(np.array([["cat"], ["cat"], ["dog"]]))
    x = keras.Input((1,), dtype="string", name="x")
    saved(tmp_path, x, L.Dense(2)(layer(x)))
    words = json.loads(open_source(tmp_path / "m.keras").files["vocabulary-x.json"])
    assert words["words"] == ["[UNK]", "cat", "dog"]
    # ln(1 + documents / (1 + those with the word)); of an unknown word their mean
    weights = np.log([1 + 3 / 3, 1 + 3 / 2])
    np.testing.assert_allclose(words["idf_weights"], [weights.mean(), *weights], rtol=1e-6)


def exported(folder, inputs, outputs):
    keras.utils.set_random_seed(1)
    model = keras.Model(inputs, outputs)
    model.export(str(folder / "m"), verbose=False)
    return model


def test_a_saved_model_of_text_begins_behind_its_table_and_says_what_came_before(tmp_path):
    text, more = keras.Input((1,), dtype="string", name="text"), keras.Input((2,), name="more")
    layer = L.TextVectorization(output_sequence_length=4, vocabulary=WORDS)
    y = L.Flatten()(L.Embedding(5, 3)(layer(text)))
    model = exported(tmp_path, [text, more], L.Dense(2)(L.Concatenate()([y, more])))
    source = open_source(tmp_path / "m")
    ends = {spec.name: (spec.shape, spec.dtype) for spec in source.inputs}
    assert ends == {"text": ((None, 4), "int64"), "more": ((None, 2), "float32")}
    text, more = (keras.ops.convert_to_tensor(a) for a in ([["A cat, a DOG!"], ["größe"]], [[0.5, -1.0], [2.0, 3.0]]))
    expected = np.asarray(model([text, more]))
    (got,) = source.call({"text": np.asarray(layer(text)), "more": np.asarray(more)}).values()
    np.testing.assert_allclose(got, expected, atol=1e-6)
    found = json.loads(source.files["vocabulary-text.json"])
    assert (found["words"], found["unknown"]) == (["", "[UNK]", *WORDS], 1)
    assert [step["operation"] for step in found["operations"]] == ["StringLower", "StaticRegexReplace", "StringSplitV2"]


LOOKUPS = {
    "numbers": ({}, ["[UNK]", *WORDS]),
    "hashed": (
        {"num_oov_indices": 2, "mask_token": ""},
        ["", "", "", *WORDS],
    ),  # 0 for nothing, 1 and 2 for the unknown
    "counted": ({"output_mode": "multi_hot"}, ["[UNK]", *WORDS]),
}


@pytest.mark.parametrize("kind", LOOKUPS)
def test_a_lookup_of_a_saved_model_is_done_before_the_model(tmp_path, kind):
    options, words = LOOKUPS[kind]
    x = keras.Input((6,), dtype="string", name="tag")
    y = L.StringLookup(vocabulary=WORDS, **options)(x)
    model = exported(tmp_path, x, L.Dense(2)(y if "output_mode" in options else L.Flatten()(L.Embedding(8, 3)(y))))
    source = open_source(tmp_path / "m")
    assert [(spec.shape, spec.dtype) for spec in source.inputs] == [((None, 6), "int64")]
    assert json.loads(source.files["vocabulary-tag.json"])["words"] == words
    text = keras.ops.convert_to_tensor([["cat", "dog", "größe", "bird", "cat", "zebra"]])
    numbers = L.StringLookup(vocabulary=WORDS, **{k: v for k, v in options.items() if k != "output_mode"})(text)
    (got,) = source.call({"tag": np.asarray(numbers)}).values()
    np.testing.assert_allclose(got, np.asarray(model(text)), atol=1e-6)


def test_what_is_added_to_the_numbers_of_a_table_stays_in_the_model(tmp_path):
    """The file of words says 2 for c; the row of c is 3."""
    tf = pytest.importorskip("tensorflow")
    rows = np.arange(5, dtype=np.float32)

    class Lookup(tf.Module):
        def __init__(self):
            super().__init__()
            words = tf.lookup.KeyValueTensorInitializer(["a", "b", "c"], tf.range(3, dtype=tf.int64))
            self.table = tf.lookup.StaticHashTable(words, 3)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="s")])
        def serve(self, s):
            return {"y": tf.gather(rows, self.table.lookup(s) + 1)}

    module = Lookup()
    tf.saved_model.save(module, str(tmp_path / "m"), signatures={"serving_default": module.serve})
    source = open_source(tmp_path / "m")
    assert json.loads(source.files["vocabulary-s.json"])["words"] == ["a", "b", "c", "[UNK]"]
    assert source.call({"s": np.int64([2, 3, 0])})["y"].tolist() == [3, 4, 1]


def test_a_table_of_words_with_other_values_than_whole_numbers_is_refused_as_text(tmp_path):
    tf = pytest.importorskip("tensorflow")

    class Lookup(tf.Module):
        def __init__(self):
            super().__init__()
            words = tf.lookup.KeyValueTensorInitializer(["a", "b"], tf.constant([0.5, 1.5]))
            self.table = tf.lookup.StaticHashTable(words, -1.0)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="s")])
        def serve(self, s):
            return {"y": tf.cast(tf.cast(self.table.lookup(s), tf.int64), tf.float32) * 2.0}

    module = Lookup()
    tf.saved_model.save(module, str(tmp_path / "m"), signatures={"serving_default": module.serve})
    with pytest.raises(ModelError, match=r"the tensor 's' is text"):
        open_source(tmp_path / "m")


def hashed(x):
    return L.Embedding(5, 2)(L.Hashing(5)(x))


def twice(x):
    return L.Concatenate()([L.Embedding(5, 2)(L.StringLookup(vocabulary=words)(x)) for words in (WORDS, WORDS[:2])])


@pytest.mark.parametrize("layers", [hashed, twice])
def test_text_that_goes_anywhere_else_is_refused_with_what_to_do(tmp_path, layers):
    x = keras.Input((3,), dtype="string", name="x")
    saved(tmp_path, x, layers(x)).export(str(tmp_path / "m"), verbose=False)
    for path in (tmp_path / "m.keras", tmp_path / "m"):
        with pytest.raises(ModelError, match=r"the tensor 'x' is text, .* Look words up before the model"):
            open_source(path)
