"""Formats read and written with the real packages: what comes back is what went in, and what is damaged is named."""

import gzip
import hashlib

import numpy as np
import pytest

from edgeloop.cloud.input.damage import named_damage
from edgeloop.cloud.input.examples import LabelKind, Shard
from edgeloop.cloud.input.options import Cache, DataOptions, PipelineOptions
from edgeloop.cloud.input.pipeline import batches, evaluation_batches, steps_per_epoch
from edgeloop.cloud.input.readers import open_examples
from edgeloop.cloud.input.writers import WriteOptions, write_data
from edgeloop.cloud.train.data.data_config import DataConfig
from edgeloop.cloud.train.data.training_data import training_and_validation
from edgeloop.errors import DataError, OptionsError, WriteError

tf = pytest.importorskip("tensorflow")

N = 20
X = np.arange(N * 6, dtype=np.float32).reshape(N, 2, 3)
Y = np.arange(N) % 3


@pytest.fixture
def source(tmp_path):
    """20 examples of three features of different dtypes, and labels i % 3."""
    path = tmp_path / "d.npz"
    np.savez(path, x=X, small=np.arange(N, dtype=np.uint8)[:, None], wide=X[:, 0].astype(np.float64), y=Y)
    return path


def written(source, folder, **options):
    write_data(DataOptions(path=source), folder, WriteOptions(**options))
    return open_examples(DataOptions(path=folder))


def every(examples, batch=7):
    """All features and labels, by the label's position."""
    pieces = list(evaluation_batches(examples, PipelineOptions(batch=batch)))
    features = {name: np.concatenate([x[name] for x, _ in pieces]) for name in pieces[0][0]}
    return features, np.concatenate([y for _, y in pieces])


@pytest.mark.parametrize("packed", [False, True])
def test_what_is_written_as_tfrecord_comes_back_with_its_dtypes(source, tmp_path, packed):
    examples = written(source, tmp_path / "out", shards=3, gzip=packed)
    assert (examples.count, examples.class_count, examples.label_kind) == (N, 3, LabelKind.CLASSES)
    features, labels = every(examples)
    order = np.argsort(features["small"][:, 0])
    np.testing.assert_array_equal(features["x"][order], X)
    np.testing.assert_array_equal(features["wide"][order], X[:, 0])
    assert [str(features[name].dtype) for name in ("x", "small", "wide")] == ["float32", "uint8", "float64"]
    np.testing.assert_array_equal(labels[order], Y)


@pytest.mark.parametrize("packed", [False, True])
def test_the_same_examples_give_the_same_files(source, tmp_path, packed):
    def digests(name):
        written(source, tmp_path / name, shards=2, gzip=packed)
        return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (tmp_path / name).iterdir()}

    assert digests("a") == digests("b")


def stream(examples, **given):
    options = {"batch": 4, "shuffle_buffer": 5, **{k: v for k, v in given.items() if k not in ("start_step", "seed")}}
    dataset = batches(
        examples, PipelineOptions(**options), seed=given.get("seed", 3), epochs=2, start_step=given.get("start_step", 0)
    )
    return [x["small"][:, 0].numpy().tolist() for x, _ in dataset]


def test_a_stream_of_shards_is_a_function_of_seed_and_step(source, tmp_path):
    examples = written(source, tmp_path / "out", shards=3)
    whole = stream(examples)
    assert len(whole) == 10
    assert sorted(np.concatenate(whole[:5])) == sorted(np.concatenate(whole[5:])) == list(range(N))
    assert whole[:5] != whole[5:]
    assert stream(examples, seed=4) != whole
    for step in (2, 5, 7):
        assert stream(examples, start_step=step) == whole[step:]
    for same in ({"parallel_reads": 1}, {"parallel_reads": 3}, {"parallel_map": 1}, {"vectorised_map": False}):
        assert stream(examples, **same) == whole
    for seed in (0, 7):  # TensorFlow's own, which a training sets for its layers
        tf.random.set_seed(seed)
        assert stream(examples) == whole


def test_workers_read_different_shards_and_equally_many_steps(source, tmp_path):
    examples = written(source, tmp_path / "out", shards=3)
    assert steps_per_epoch(examples, 2, 2) == 3  # 7 + 6 examples in shards 0 and 2, 7 in shard 1
    seen = [
        [
            x["small"][:, 0].numpy()
            for x, _ in batches(examples, PipelineOptions(batch=2), epochs=1, shard=Shard(index=i, count=2))
        ]
        for i in range(2)
    ]
    assert [len(steps) for steps in seen] == [3, 3]
    assert not set(np.concatenate(seen[0])) & set(np.concatenate(seen[1]))
    with pytest.raises(DataError, match=r"has 3 shards for 4 workers\. Write at least one shard for each worker"):
        batches(examples, PipelineOptions(batch=1), shard=Shard(index=0, count=4))


@pytest.mark.parametrize("packed", [False, True])
def test_a_damaged_record_is_named_with_its_file(source, tmp_path, packed):
    examples = written(source, tmp_path / "out", shards=2, gzip=packed)
    file = sorted((tmp_path / "out").glob("*.tfrecord*"))[1]
    data = bytearray(gzip.decompress(file.read_bytes()) if packed else file.read_bytes())
    record = len(data) // 10  # all records have one size, and the shard holds 10
    data[3 * record + 20] ^= 1
    file.write_bytes(gzip.compress(bytes(data)) if packed else bytes(data))
    with (
        pytest.raises(DataError, match=rf"{file.name}: record 3 \(counted from 0\) is damaged"),
        named_damage(examples),
    ):
        every(examples)


def test_a_training_that_counts_packed_records_names_the_damaged_one(source, tmp_path):
    written(source, tmp_path / "out", shards=1, gzip=True)
    (file,) = (tmp_path / "out").glob("*.gz")
    data = bytearray(gzip.decompress(file.read_bytes()))
    data[5 * len(data) // N + 20] ^= 1
    file.write_bytes(gzip.compress(bytes(data)))
    config = DataConfig(path=tmp_path / "out", schema={"x": "float32[2,3]", "label": "int64[]"})
    with pytest.raises(DataError, match=r"record 5 \(counted from 0\) is damaged"):
        training_and_validation(config, PipelineOptions(), seed=0)


def test_a_file_that_ends_within_a_record_is_refused_before_the_first_step(source, tmp_path):
    written(source, tmp_path / "out", shards=1)
    (file,) = (tmp_path / "out").glob("*.tfrecord")
    file.write_bytes(file.read_bytes()[:-5])
    given = {"x": "float32[2,3]", "y": "int64[]"}
    with pytest.raises(DataError, match=r"record 19 .* is damaged"):
        open_examples(DataOptions(path=tmp_path / "out", schema=given, label="y"))


def test_records_of_others_are_read_by_a_schema(tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecord")) as writer:
        for name in ("dog", "cat"):
            image = tf.io.encode_png(np.full((2, 2, 1), 51, np.uint8)).numpy()
            feature = {
                "picture": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
                "name": tf.train.Feature(bytes_list=tf.train.BytesList(value=[name.encode()])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    with pytest.raises(DataError, match=r"its first record holds name \(bytes_list\), picture \(bytes_list\)"):
        open_examples(DataOptions(path=tmp_path))
    options = DataOptions(
        path=tmp_path,
        schema={"picture": "image", "name": "string[]"},
        label="name",
        classes=("cat", "dog"),
        image_size=(4, 3),
        channels=1,
    )
    ((x, y),) = evaluation_batches(open_examples(options), PipelineOptions())
    np.testing.assert_allclose(x, np.full((2, 4, 3, 1), 0.2), atol=1e-6)  # 51 / 255
    assert y.numpy().tolist() == [1, 0]


def test_what_a_record_lacks_is_named(source, tmp_path):
    written(source, tmp_path / "out", shards=1)
    examples = open_examples(DataOptions(path=tmp_path / "out", schema={"z": "float32[2]", "y": "int64[]"}, label="y"))
    with pytest.raises(DataError, match=r"record 0 .*is not what the schema says: Feature: y "), named_damage(examples):
        list(evaluation_batches(examples, PipelineOptions()))


def test_columns_of_csv_and_parquet_become_one_feature(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.csv
    import pyarrow.parquet

    table = pa.table({"a": [1, 2, 3], "b": [0.5, 1.5, 2.5], "kind": ["u", "v", "u"], "when": [10, 20, 30]})
    pyarrow.csv.write_csv(table, tmp_path / "t.csv")
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    for name in ("t.csv", "t.parquet"):
        options = DataOptions(path=tmp_path / name, label="kind", time="when")
        ((x, y),) = evaluation_batches(open_examples(options), PipelineOptions())
        np.testing.assert_array_equal(x, [[1, 0.5], [2, 1.5], [3, 2.5]])
        assert y.numpy().tolist() == [0, 1, 0]
        with pytest.raises(DataError, match="column kind holds no numbers"):
            open_examples(DataOptions(path=tmp_path / name, label="a"))
        with pytest.raises(DataError, match=r"no column 'kinds'\. Did you mean kind"):
            open_examples(DataOptions(path=tmp_path / name, label="kinds"))


def test_lists_in_parquet_keep_their_shape_and_must_be_equally_long(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    values = [[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]] * 2
    pyarrow.parquet.write_table(pa.table({"m": values, "label": [0, 1]}), tmp_path / "t.parquet")
    examples = open_examples(DataOptions(path=tmp_path / "t.parquet"))
    assert examples.features["m"].shape == (2, 3)
    pyarrow.parquet.write_table(pa.table({"m": [[1.0], [1.0, 2.0]], "label": [0, 1]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="lists in the column m differ in length"):
        open_examples(DataOptions(path=tmp_path / "t.parquet"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,label\n1,0\n2\n", "t.csv: CSV parse error"),
        ("a,label\n1,0\n,1\n", r"row 1 .* has no value in the column a"),
        ("a,label\ninf,0\n", "x of example 0 is NaN or infinite"),
    ],
)
def test_a_row_of_csv_that_cannot_be_learned_from_is_named(tmp_path, text, message):
    pytest.importorskip("pyarrow")
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        open_examples(DataOptions(path=tmp_path / "t.csv"))


def test_recent_examples_are_drawn_more_often(tmp_path):
    pytest.importorskip("pyarrow")
    rows = "".join(f"{i},0,{i}\n" for i in (0, 1, 2))
    (tmp_path / "t.csv").write_text("a,label,when\n" + rows)
    examples = open_examples(DataOptions(path=tmp_path / "t.csv", time="when"))
    drawn = batches(examples, PipelineOptions(batch=3, half_life=1.0), epochs=700, seed=1)
    counts = np.bincount(np.concatenate([x[:, 0].numpy() for x, _ in drawn]).astype(int))
    # weights 1/4, 1/2, 1 of 7/4: 2100 draws are 300, 600, 1200; four standard deviations are at most 94
    np.testing.assert_allclose(counts, [300, 600, 1200], atol=94)
    with pytest.raises(OptionsError, match="half-life is given, but the examples have no times"):
        batches(open_examples(DataOptions(path=tmp_path / "t.csv")), PipelineOptions(batch=3, half_life=1.0))


def test_validation_data_may_lack_the_times_that_training_draws_by(tmp_path):
    x, y, day = np.zeros((4, 2), np.float32), np.array([0, 1, 0, 1]), np.arange(4.0)
    np.savez(tmp_path / "timed.npz", x=x, y=y, day=day)
    np.savez(tmp_path / "plain.npz", x=x, y=y)
    for name in ("plain", "timed"):
        data = DataConfig(path=tmp_path / "timed.npz", validation=tmp_path / f"{name}.npz", time="day")
        training, validation = training_and_validation(data, PipelineOptions(half_life=1.0), seed=0)
        assert list(training.features) == list(validation.features) == ["x"]
    with pytest.raises(DataError, match="has no 'day'"):
        training_and_validation(DataConfig(path=tmp_path / "plain.npz", time="day"), PipelineOptions(), seed=0)


def test_nothing_is_overwritten_but_such_data(source, tmp_path):
    with pytest.raises(WriteError, match="holds other files"):
        write_data(DataOptions(path=source), tmp_path, WriteOptions())
    with pytest.raises(OptionsError, match="20 examples for 21 shards"):
        write_data(DataOptions(path=source), tmp_path / "out", WriteOptions(shards=21))
    assert not (tmp_path / "out").exists()
    written(source, tmp_path / "out", shards=4)
    assert len(list(written(source, tmp_path / "out", shards=2).source.files)) == 2


def test_a_cache_of_a_stream_is_a_set_that_is_shuffled_whole(source, tmp_path):
    examples = written(source, tmp_path / "out", shards=3)
    drawn = stream(examples, cache=Cache.MEMORY, shuffle_buffer=1)
    assert sorted(np.concatenate(drawn[:5])) == list(range(N))
    assert stream(examples, cache=Cache.MEMORY, start_step=3) == drawn[3:]


def test_beam_writes_the_same_examples(source, tmp_path):
    pytest.importorskip("apache_beam", reason="the extra beam is not installed")
    examples = written(source, tmp_path / "out", shards=2, gzip=True, runner="DirectRunner")
    assert (examples.count, len(examples.source.files)) == (N, 2)
    features, labels = every(examples)
    order = np.argsort(features["small"][:, 0])
    np.testing.assert_array_equal(features["x"][order], X)
    np.testing.assert_array_equal(labels[order], Y)
