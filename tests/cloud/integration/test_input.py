"""Examples read by TensorFlow: what a batch holds, in which order, on which worker."""

import gzip
import struct

import numpy as np
import pytest

from edgeloop.cloud.input.damage import named_damage
from edgeloop.cloud.input.examples import Shard
from edgeloop.cloud.input.options import Cache, DataOptions, PipelineOptions
from edgeloop.cloud.input.parts import hold_out
from edgeloop.cloud.input.pipeline import batches, evaluation_batches, steps_per_epoch
from edgeloop.cloud.input.readers import open_examples
from edgeloop.errors import DataError

tf = pytest.importorskip("tensorflow")

N = 20


@pytest.fixture
def rows(tmp_path):
    """20 examples x = [i, -i] with labels i % 3."""
    i = np.arange(N)
    np.savez(tmp_path / "d.npz", x=np.stack([i, -i], 1).astype(np.float32), y=i % 3)
    return open_examples(DataOptions(path=tmp_path / "d.npz"))


@pytest.fixture
def images(tmp_path):
    """Four 4x5 images of two classes whose pixels are all 10, 20, 30, 40."""
    for name, value in (("cat/a.png", 10), ("cat/b.bmp", 20), ("dog/a.gif", 30), ("dog/b.jpg", 40)):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        pixels = np.full((4, 5, 3), value, np.uint8)
        if file.suffix in (".png", ".jpg"):
            encode = tf.io.encode_png if file.suffix == ".png" else tf.io.encode_jpeg
            file.write_bytes(encode(pixels).numpy())
        else:
            import PIL.Image

            PIL.Image.fromarray(pixels).save(file)
    return tmp_path


def first_column(dataset):
    return [x[:, 0].numpy().astype(int).tolist() for x, _ in dataset]


def test_an_epoch_holds_every_example_once_and_the_next_one_in_another_order(rows):
    options = PipelineOptions(batch=5)
    assert steps_per_epoch(rows, 5) == 4
    drawn = first_column(batches(rows, options, seed=3, epochs=2))
    first, second = np.concatenate(drawn[:4]).tolist(), np.concatenate(drawn[4:]).tolist()
    assert sorted(first) == sorted(second) == list(range(N))
    assert first != second
    assert first_column(batches(rows, options, seed=3, epochs=2)) == drawn
    assert first_column(batches(rows, options, seed=4, epochs=2)) != drawn


def test_features_and_labels_stay_together_and_as_stored(rows):
    for x, y in batches(rows, PipelineOptions(batch=5), epochs=1):
        assert (x.dtype, y.dtype) == (tf.float32, tf.int64)
        np.testing.assert_array_equal(y, x[:, 0].numpy().astype(int) % 3)
        np.testing.assert_array_equal(x[:, 1], -x[:, 0])


@pytest.mark.parametrize("start", [1, 4, 7])
def test_a_resumed_training_sees_the_rest_of_the_same_stream(rows, start):
    options = PipelineOptions(batch=5)
    whole = first_column(batches(rows, options, seed=1, epochs=2))
    assert first_column(batches(rows, options, seed=1, epochs=2, start_step=start)) == whole[start:]


def test_workers_share_each_step_of_one_large_batch(rows):
    whole = first_column(batches(rows, PipelineOptions(batch=6), seed=1, epochs=2))
    parts = [
        first_column(batches(rows, PipelineOptions(batch=3), seed=1, epochs=2, shard=Shard(index=i, count=2)))
        for i in range(2)
    ]
    assert [a + b for a, b in zip(*parts, strict=True)] == whole


def test_an_evaluation_reads_all_in_the_stored_order_with_a_smaller_last_batch(rows):
    assert first_column(evaluation_batches(rows, PipelineOptions(batch=8))) == [
        list(range(8)),
        list(range(8, 16)),
        list(range(16, 20)),
    ]


def test_images_become_bytes_over_255_with_the_folder_as_label(images):
    examples = open_examples(DataOptions(path=images))
    assert examples.classes == ("cat", "dog")
    assert (examples.count, examples.features["image"].shape) == (4, (4, 5, 3))
    for x, y in evaluation_batches(examples, PipelineOptions(batch=4)):
        np.testing.assert_allclose(x[:, 0, 0, 0] * 255, [10, 20, 30, 40], atol=1e-4)
        assert y.numpy().tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("cache", [Cache.MEMORY, Cache.DISK])
@pytest.mark.parametrize("vectorised", [True, False])
def test_neither_cache_nor_vectorised_map_changes_a_batch(images, cache, vectorised):
    examples = open_examples(DataOptions(path=images))
    plain = batches(examples, PipelineOptions(batch=2, vectorised_map=False), seed=5, epochs=3)
    other = batches(examples, PipelineOptions(batch=2, cache=cache, vectorised_map=vectorised), seed=5, epochs=3)
    pairs = list(zip(plain, other, strict=True))
    assert len(pairs) == 6
    for (x, y), (cached_x, cached_y) in pairs:
        np.testing.assert_array_equal(x, cached_x)
        np.testing.assert_array_equal(y, cached_y)


def test_packed_and_plain_idx_files_read_alike(tmp_path):
    x, y = np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.array([7, 1], np.uint8)
    images = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2, 3, 4) + x.tobytes()
    labels = bytes([0, 0, 8, 1]) + struct.pack(">I", 2) + y.tobytes()
    for ending, pack in (("", bytes), (".gz", gzip.compress)):
        folder = tmp_path / f"f{ending}"
        folder.mkdir()
        (folder / f"a-images-idx3-ubyte{ending}").write_bytes(pack(images))
        (folder / f"a-labels-idx1-ubyte{ending}").write_bytes(pack(labels))
        ((values, classes),) = evaluation_batches(open_examples(DataOptions(path=folder)), PipelineOptions())
        np.testing.assert_allclose(values[..., 0] * 255, x, atol=1e-4)
        assert classes.numpy().tolist() == [7, 1]


def test_what_is_held_out_is_no_part_of_the_training_and_the_seed_decides(rows):
    def held(seed):
        parts = hold_out(rows, 0.25, seed)
        return [np.concatenate(first_column(evaluation_batches(p, PipelineOptions()))).tolist() for p in parts]

    training, validation = held(1)
    assert len(validation) == 5
    assert sorted(training + validation) == list(range(N))
    assert held(1) == [training, validation] != held(2)


def test_a_broken_image_is_named(images):
    broken = images / "cat" / "a.png"
    broken.write_bytes(broken.read_bytes()[:60])
    examples = open_examples(DataOptions(path=images))
    with pytest.raises(DataError, match=r"a\.png is damaged"), named_damage(examples):
        list(evaluation_batches(examples, PipelineOptions()))


def test_augmentation_of_a_step_is_the_same_when_the_training_is_resumed(images):
    examples = open_examples(DataOptions(path=images))
    options = PipelineOptions(batch=2, augment=("flip", "shift", "brightness"))
    whole = [x.numpy() for x, _ in batches(examples, options, seed=5, epochs=3)]
    rest = [x.numpy() for x, _ in batches(examples, options, seed=5, epochs=3, start_step=2)]
    np.testing.assert_array_equal(whole[2:], rest)
    plain = [x.numpy() for x, _ in batches(examples, PipelineOptions(batch=2), seed=5, epochs=3)]
    assert not np.allclose(whole, plain, atol=0.01)
    assert np.max(np.abs(np.array(whole) - plain)) <= 0.2 + 1e-6  # brightness; the pixels of an image are equal
