"""Checkpoints of real variables: what is written is what the values were when asked, and it comes back."""

import os
import resource
from types import SimpleNamespace

import numpy as np
import pytest

from edgeloop.cloud.train.checkpoints.checkpoint_files import FILES
from edgeloop.cloud.train.checkpoints.checkpoints import CheckpointOptions, Checkpoints
from edgeloop.errors import IntegrityError, WriteError

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")
OPTIONS = CheckpointOptions(keep=2)


def trained(seed, steps=0):
    """A small net with Adam's slots, and the named values of both."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16), keras.layers.BatchNormalization()])
    optimizer = keras.optimizers.Adam(0.1)
    optimizer.build(model.trainable_variables)
    values = {f"{k:04d}": v.value for k, v in enumerate(model.variables + optimizer.variables)}

    @tf.function
    def step():
        optimizer.apply_gradients([(tf.ones_like(v.value), v) for v in model.trainable_variables])

    for _ in range(steps):
        step()
    return values, step


def arrays(values):
    return {name: value.numpy().copy() for name, value in values.items()}


def equal(left, right):
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)


def quiet(line):
    raise AssertionError(line)


def test_a_checkpoint_holds_the_values_of_its_step_though_training_goes_on_meanwhile(tmp_path):
    values, step = trained(0, steps=3)
    at_save = arrays(values)
    with Checkpoints(tmp_path, OPTIONS, quiet) as checkpoints:
        checkpoints.save(3, values, {"epoch": 1})
        for _ in range(3):
            step()
    assert not equal(at_save, arrays(values))
    restored = Checkpoints(tmp_path, OPTIONS, quiet).restore(values)
    assert (restored.step, restored.state) == (3, {"epoch": 1})
    assert equal(at_save, arrays(values))


def test_the_newest_are_kept_and_a_place_without_any_restores_nothing(tmp_path):
    values, _ = trained(0)
    with Checkpoints(tmp_path / "kept", OPTIONS, quiet) as checkpoints:
        assert checkpoints.restore(values) is None
        for step in (10, 20, 30):
            checkpoints.save(step, values, {})
    assert sorted(os.listdir(tmp_path / "kept")) == ["latest", "step-00000020", "step-00000030"]


def test_large_values_are_split_over_files_and_a_second_writer_writes_nothing(tmp_path):
    # 3 values of 0.8 MB, at most 1 MB a file: 3 files
    values = {name: tf.Variable(tf.random.stateless_normal((200_000,), (0, k))) for k, name in enumerate("abc")}
    options = CheckpointOptions(shard_mb=1, wait_until_written=True)
    before = arrays(values)
    with Checkpoints(tmp_path, options, quiet) as checkpoints:
        checkpoints.save(1, values, {})
    Checkpoints(tmp_path, options, quiet, writes=False).save(2, values, {})
    assert len(list(tmp_path.glob(f"step-*/{FILES}.data-*"))) == 3
    for value in values.values():
        value.assign(tf.zeros_like(value))
    assert checkpoints.restore(values).step == 1
    assert equal(before, arrays(values))


def sharded(rows, columns, cuts):
    """A value in parts, as ParameterServerStrategy makes it."""
    table = np.arange(rows * columns, dtype=np.float32).reshape(rows, columns)
    return SimpleNamespace(shape=[rows, columns], variables=[tf.Variable(part) for part in np.split(table, cuts)])


def test_a_table_in_two_parts_comes_back_in_three(tmp_path):
    table = sharded(9, 4, [5])
    with Checkpoints(tmp_path, OPTIONS, quiet) as checkpoints:
        checkpoints.save(1, {"table": table}, {})
    other = sharded(9, 4, [3, 6])
    for part in other.variables:
        part.assign(tf.zeros_like(part))
    checkpoints.restore({"table": other})
    # the numbers 0 .. 35 in order
    assert np.array_equal(np.concatenate([part.numpy() for part in other.variables]).ravel(), np.arange(36))


@pytest.mark.parametrize("harm", ["cut", "changed", "missing", "manifest"])
def test_a_damaged_newest_checkpoint_is_left_out_and_named(tmp_path, harm):
    values, step = trained(0)
    with Checkpoints(tmp_path, OPTIONS, quiet) as checkpoints:
        checkpoints.save(10, values, {})
        at_ten = arrays(values)
        step()
        checkpoints.save(20, values, {})
    data = next((tmp_path / "step-00000020").glob("variables.data*"))
    if harm == "cut":
        data.write_bytes(data.read_bytes()[:-1])
    elif harm == "changed":
        data.write_bytes(bytes([data.read_bytes()[0] ^ 1]) + data.read_bytes()[1:])
    elif harm == "missing":
        data.unlink()
    else:
        (data.parent / "manifest.json").write_bytes(b"{")
    said = []
    restored = Checkpoints(tmp_path, OPTIONS, said.append).restore(values)
    assert (restored.step, equal(at_ten, arrays(values))) == (10, True)
    (line,) = said
    assert line.startswith("A damaged checkpoint is left out (step-00000020: ")
    assert line.endswith("Training goes on from step-00000010.")


def test_where_all_are_damaged_or_of_another_model_training_does_not_begin_anew_silently(tmp_path):
    values, _ = trained(0)
    with Checkpoints(tmp_path, OPTIONS, quiet) as checkpoints:
        checkpoints.save(10, values, {})
        with pytest.raises(IntegrityError, match="of another model or optimizer: 0000 has the shape"):
            checkpoints.restore({**values, "0000": tf.Variable(tf.zeros((8, 3)))})
        with pytest.raises(IntegrityError, match="more is missing"):
            checkpoints.restore({**values, "more": tf.Variable(1.0)})
        with pytest.raises(IntegrityError, match="0000 is there, expected no such value"):
            checkpoints.restore({name: value for name, value in values.items() if name != "0000"})
    next((tmp_path / "step-00000010").glob("variables.data*")).unlink()
    with pytest.raises(IntegrityError, match="no sound checkpoint is left"):
        checkpoints.restore(values)


def test_a_full_disk_is_one_line_and_the_last_checkpoint_stays(tmp_path):
    small, large = {"a": tf.Variable(tf.zeros(10))}, {"a": tf.Variable(tf.zeros(1_000_000))}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    checkpoints = Checkpoints(tmp_path, OPTIONS, quiet)
    checkpoints.save(1, small, {})
    checkpoints.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # EFBIG, as a full disk's ENOSPC
    try:
        checkpoints.save(2, large, {})
        with pytest.raises(WriteError, match=f"a checkpoint cannot be written to {tmp_path}: .*File too large"):
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(os.listdir(tmp_path)) == ["latest", "step-00000001"]
    assert checkpoints.restore(small).step == 1


def test_checkpoints_in_an_object_store(tmp_path, monkeypatch):
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://{host}:{port}", "NO_PROXY": "127.0.0.1",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        import s3fs

        s3fs.S3FileSystem().mkdir("bucket")
        values, step = trained(0)
        with Checkpoints("s3://bucket/run", OPTIONS, quiet) as checkpoints:
            for number in (10, 20, 30):
                step()
                checkpoints.save(number, values, {"epoch": number})
            at_save = arrays(values)
            step()
        assert checkpoints.place.names() == ["step-00000020", "step-00000030"]
        assert checkpoints.restore(values).state == {"epoch": 30}
        assert equal(at_save, arrays(values))
    finally:
        server.stop()


def test_a_damaged_newest_checkpoint_does_not_outlive_the_good_one_written_after_it(tmp_path):
    values, _ = trained(0)
    options = CheckpointOptions(keep=1)
    (tmp_path / "step-00000020").mkdir()
    (tmp_path / "step-00000020" / "manifest.json").write_bytes(b"{")
    with Checkpoints(tmp_path, options, quiet) as checkpoints:
        checkpoints.save(15, values, {})
    assert checkpoints.place.names() == ["step-00000015"]
    assert checkpoints.restore(values).step == 15
