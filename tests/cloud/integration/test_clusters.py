"""Trainings on clusters of real processes, some of which are killed: what they come to, and from where they go on.

All clusters of this file are forked from one process that imported TensorFlow once.
"""

import json
import math
import os
import shutil
import signal
from contextlib import nullcontext

import numpy as np
import pytest
from devices import descendants, eventually

from edgeloop.cloud.train.cluster import task
from edgeloop.cloud.train.cluster.cluster import Role
from edgeloop.cloud.train.cluster.evaluator import read_evaluations
from edgeloop.cloud.train.cluster.launching import FRAMEWORKS, fork_server, parse_tasks
from edgeloop.cloud.train.cluster.losses import SupervisionOptions
from edgeloop.cloud.train.cluster.supervise import Supervisor
from edgeloop.cloud.train.cluster.task import launch_run
from edgeloop.cloud.train.config.read_config import read_config
from edgeloop.cloud.train.config.write_config import to_toml
from edgeloop.errors import DataError, DeviceError
from edgeloop.progress import silent

tf = pytest.importorskip("tensorflow")
PROGRAM = "cloud_tasks:train"
BATCH, EXAMPLES, EVERY = 8, 400, 10  # 360 are trained on: 45 batches of 8, or 22 of 2 x 8
OPTIONS = SupervisionOptions(restarts=3, wait_s=0.05, hang_timeout_s=60, start_timeout_s=200)


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    before = set(descendants(os.getpid()))
    modules = (*FRAMEWORKS, "edgeloop.cloud.train.cluster.task")
    with fork_server(PROGRAM, {}, tmp_path_factory.mktemp("logs"), modules) as server:
        yield server
    assert eventually(lambda: set(descendants(os.getpid())) <= before)  # no task is left


@pytest.fixture(scope="module")
def toml(tmp_path_factory):
    """A training whose data two lines of numbers tell apart."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    x = random.normal(size=(EXAMPLES, 6)).astype(np.float32)
    np.savez(folder / "xy.npz", x=x, y=(x[:, 0] + x[:, 1] > 0).astype(np.int32))
    (folder / "train.toml").write_text(
        f"""
        [data]
        path = "xy.npz"
        [pipeline]
        batch = {BATCH}
        [model]
        name = "cloud_models:normalized"
        [optimizer]
        learning-rate = 0.01
        scaling = "none"
        [loop]
        epochs = 3
        patience = 0
        steps-per-call = 1
        [checkpoints]
        every-steps = {EVERY}
        """
    )
    return folder / "train.toml"


def train(imported, toml, out, tasks, *changes, signals=(), resume=False):
    """(result, what was said, steps at which signals were sent); `signals`: (step, task, number) of each."""
    folder = out / "signals"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "owner").write_text(str(os.getpid()))
    config = to_toml(read_config(toml, changes))
    arguments = {"config": config, "out": str(out / "run"), "resume": resume, "folder": str(folder), "signals": signals}
    said = []
    server = imported.running(PROGRAM, arguments, out / "run" / "tasks")
    result = Supervisor(server, parse_tasks(tasks), OPTIONS, said.append, silent).run()
    return result, said, [int(path.read_text()) for path in sorted(folder.glob("sent-*"))]


def resumed(said):
    """The steps after which attempts went on."""
    return [int(line.split()[-1].rstrip(".")) for line in said if line.startswith("Training goes on after step")]


def weights(out):
    """The arrays of the newest checkpoint of a run."""
    checkpoints = out / "run" / "checkpoints"
    folder = checkpoints / (checkpoints / "latest").read_text()
    reader = tf.train.load_checkpoint(str(folder / "variables"))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def same(left, right):
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)


@pytest.fixture(scope="module")
def unbroken(imported, toml, tmp_path_factory):
    """Two synchronous workers and an evaluator, undisturbed: (folder, result, what was said)."""
    out = tmp_path_factory.mktemp("unbroken")
    result, said, _ = train(imported, toml, out, "worker=2,evaluator=1")
    return out, result, said


def test_two_workers_share_each_step_and_only_the_first_writes(unbroken):
    out, result, said = unbroken
    assert (result["strategy"], result["replicas"], result["batch"]) == ("multi-worker-mirrored", 2, 2 * BATCH)
    assert [record["step"] for record in result["epochs"]] == [22, 44, 66]  # 360 // 16 = 22 steps each
    assert [line for line in said if line.startswith("Lost")] == []
    assert (out / "run" / "model.keras").is_file() and (out / "run" / "saved_model").is_dir()
    assert sorted(path.name for path in (out / "run" / "checkpoints").glob("step-*"))[-1] == "step-00000066"
    assert {path.name for path in (out / "run" / "tasks").iterdir()} == {
        "worker-0.log",
        "worker-1.log",
        "evaluator-0.log",
    }


def test_the_evaluator_measures_the_last_checkpoint_as_the_workers_do(unbroken):
    out, result, _ = unbroken
    records = read_evaluations(out / "run")
    assert [record.step for record in records] == sorted({record.step for record in records})
    last = records[-1]
    assert (last.step, last.metric, last.examples) == (66, "accuracy", EXAMPLES // 10)
    assert last.loss == pytest.approx(result["epochs"][-1]["validation_loss"], abs=1e-5)  # float32 means of 40
    assert last.score == pytest.approx(result["epochs"][-1]["score"], abs=1e-6)


def test_workers_that_are_killed_go_on_and_come_to_the_same_weights_bit_by_bit(unbroken, imported, toml, tmp_path):
    signals = [(17, "worker 1", signal.SIGKILL), (48, "worker 0", signal.SIGKILL)]
    result, said, killed = train(imported, toml, tmp_path, "2", signals=signals)
    assert result["epochs"][-1]["step"] == 66
    begins = resumed(said)
    assert len(begins) == len(killed) == 2
    assert all(0 <= step - begin <= EVERY for step, begin in zip(killed, begins, strict=True)), (killed, begins)
    losses = [line for line in said if line.startswith("Lost")]
    assert "worker 1 was ended by signal SIGKILL at step" in losses[0] and "all tasks start again" in losses[0]
    assert "worker 0 was ended by signal SIGKILL at step" in losses[1]
    assert same(weights(tmp_path), weights(unbroken[0]))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]


def test_a_worker_that_is_stopped_is_lost_and_all_go_on(unbroken, imported, toml, tmp_path):
    signals = [(30, "worker 1", signal.SIGSTOP)]
    _, said, _ = train(imported, toml, tmp_path, "2", "strategy.heartbeat-s=3", signals=signals)
    (lost,) = [line for line in said if line.startswith("Lost")]
    assert "worker 0 failed at step" in lost and "the connection to another task was lost" in lost
    assert same(weights(tmp_path), weights(unbroken[0]))


def test_a_worker_that_is_asked_to_end_takes_all_to_a_checkpoint_of_one_step(unbroken, imported, toml, tmp_path):
    signals = [(33, "worker 1", signal.SIGTERM)]
    _, said, (asked,) = train(imported, toml, tmp_path, "2", signals=signals)
    (begin,) = resumed(said)
    assert asked <= begin <= asked + 3  # the step that ran, the one after it, and one between looking and sending
    assert f"Training was asked to end: the checkpoint of step {begin} is kept. --resume goes on." in said
    found, expected = weights(tmp_path), weights(unbroken[0])
    # of a checkpoint more the replicas took the mean of their moving statistics once more: no weight depends on these
    slots = [name for name in expected if name.startswith("optimizer/")]
    assert all(np.array_equal(found[name], expected[name]) for name in slots)
    assert all(np.allclose(found[name], expected[name], atol=0.1) for name in expected)


def test_one_process_that_is_killed_or_asked_to_end_comes_to_the_same_weights(imported, toml, tmp_path):
    train(imported, toml, tmp_path / "unbroken", "1", "loop.epochs=1")
    signals = [(17, "worker 0", signal.SIGKILL), (30, "worker 0", signal.SIGTERM)]
    result, said, (killed, asked) = train(imported, toml, tmp_path / "broken", "1", "loop.epochs=1", signals=signals)
    begins = resumed(said)
    assert result["strategy"] == "one-device" and 0 <= killed - begins[0] <= EVERY and begins[1] >= asked
    assert same(weights(tmp_path / "broken"), weights(tmp_path / "unbroken"))


def test_a_checkpoint_of_two_workers_goes_on_in_one_process(unbroken, imported, toml, tmp_path, monkeypatch):
    shutil.copytree(unbroken[0] / "run", tmp_path / "run")
    before, said = weights(tmp_path), []
    started = lambda program, arguments, logs, modules: nullcontext(imported.running(program, arguments, logs))  # noqa: E731
    monkeypatch.setattr(task, "fork_server", started)
    config = read_config(toml, ["loop.epochs=4", "pipeline.batch=16"])
    result = launch_run(config, tmp_path / "run", "1", resume=True, progress=silent, say=said.append)
    assert "Training goes on after step 66." in said
    assert [record.step for record in result.epochs] == [22, 44, 66, 88]
    assert result.model == tmp_path / "run" / "model.keras" and result.model.is_file()
    assert not same(before, weights(tmp_path))


def test_wrong_data_in_one_task_ends_all_with_its_own_error(imported, toml, tmp_path):
    with pytest.raises(DataError, match=r"worker [01]: "):
        train(imported, toml, tmp_path, "2", "pipeline.batch=1000")


def counters(out):
    return {name.removeprefix("counters/"): v for name, v in weights(out).items() if name.startswith("counters/")}


def test_parameter_servers_train_asynchronously_and_a_lost_worker_or_server_comes_back(imported, toml, tmp_path):
    signals = [(15, "worker 1", signal.SIGKILL), (60, "ps 1", signal.SIGKILL), (100, "chief 0", signal.SIGKILL)]
    result, said, killed = train(imported, toml, tmp_path, "ps=2,worker=2", "loop.epochs=3", signals=signals)
    assert result["strategy"] == "parameter-server"
    assert [record["step"] for record in result["epochs"]] == [45, 90, 135]
    losses = [line.partition("Now ")[2] for line in said if line.startswith("Lost")]
    assert [line.partition(" again")[0] for line in losses] == [
        "worker 1 starts", "ps 1 and chief 0 start", "chief 0 starts"
    ]  # fmt: skip
    begins = resumed(said)
    assert all(0 <= step - begin <= EVERY for step, begin in zip(killed[1:], begins, strict=True)), (killed, begins)
    # a guess has ln 2; six runs ended at 0.15-0.22, and one epoch may be ahead of the next by chance
    assert result["epochs"][-1]["validation_loss"] < math.log(2) / 2
    assert int(counters(tmp_path)["taken"]) >= 135 - EVERY


@pytest.mark.faults
def test_a_worker_of_parameter_servers_that_is_stopped_is_lost_and_all_start_again(imported, toml, tmp_path):
    changes = ("loop.epochs=1", "strategy.hang-timeout-s=8")
    signals = [(25, "worker 1", signal.SIGSTOP)]
    result, said, _ = train(imported, toml, tmp_path, "ps=1,worker=2", *changes, signals=signals)
    (lost,) = [line for line in said if line.startswith("Lost")]
    assert "no worker finished a step for 8 s" in lost and "all tasks start again" in lost
    assert result["epochs"][-1]["step"] == 45 and resumed(said)[0] >= 15


def test_two_workers_train_on_images_that_each_of_them_decodes_first(imported, toml, tmp_path):
    """Decoding wakes TensorFlow, and synchronous workers can only be connected before."""
    for k in range(40):
        file = tmp_path / f"images/{k % 2}/{k}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(tf.io.encode_png(np.full((4, 4, 1), 200 * (k % 2), np.uint8)).numpy())
    changes = (f"data.path={tmp_path / 'images'}", "pipeline.cache=memory", "model.name=mlp", "loop.epochs=1")
    result, said, _ = train(imported, toml, tmp_path / "out", "2", *changes)
    assert (result["replicas"], result["epochs"][-1]["step"]) == (2, 2)  # 36 images // 16
    assert [line for line in said if line.startswith("Lost")] == []


def test_one_worker_at_a_time_leaves_no_gradient_stale(imported, toml, tmp_path):
    changes = ("loop.epochs=1", "parameter-server.one-worker-epochs=1")
    result, _, _ = train(imported, toml, tmp_path, "ps=1,worker=2", *changes)
    ages = counters(tmp_path)["ages"]
    assert ages[0] == ages.sum() == 45
    assert result["notes"][-1] == "Gradients by age in updates: 0: 45. 45 of 45 were applied."


def test_the_slowest_worker_is_not_waited_for_where_there_is_a_backup(imported, toml, tmp_path):
    """Worker 2 is stopped at step 10 and goes on at step 30: the rounds between are done without it, and what it
    computed of its old round comes too late."""
    changes = ("loop.epochs=1", "parameter-server.updates=synchronous", "parameter-server.backup-workers=1")
    signals = [(10, "worker 2", signal.SIGSTOP), (30, "worker 2", signal.SIGCONT)]
    result, said, sent = train(imported, toml, tmp_path, "ps=1,worker=3", *changes, signals=signals)
    assert len(sent) == 2 and [line for line in said if line.startswith("Lost")] == []
    assert result["epochs"][-1]["step"] == 45
    assert int(counters(tmp_path)["late"]) >= 1
    assert result["notes"][-1].startswith("Gradients that came after their round and were dropped: ")


def test_an_embedding_is_split_over_the_servers_and_its_checkpoint_comes_back_on_three(imported, toml, tmp_path):
    folder = tmp_path / "ids"
    folder.mkdir()
    ids = np.random.default_rng(0).integers(0, 9000, (EXAMPLES, 1)).astype(np.int32)
    np.savez(folder / "xy.npz", x=ids, y=(ids[:, 0] % 2).astype(np.int32))
    model = ("model.name=cloud_models:embedded", f"data.path={folder / 'xy.npz'}", "parameter-server.table-rate=5.0")
    out = tmp_path / "run"
    train(imported, toml, out, "ps=2,worker=2", "loop.epochs=1", *model)
    before = weights(out)
    assert before["tables/0000"].shape == (9000, 8)
    _, said, _ = train(imported, toml, out, "ps=3,worker=1", "loop.epochs=2", *model, resume=True)
    assert "Training goes on after step 45." in said
    after = weights(out)["tables/0000"]
    trained = set(ids[:, 0].tolist())
    untouched = [row for row in range(9000) if row not in trained]
    assert np.array_equal(before["tables/0000"][untouched], after[untouched])
    assert not np.array_equal(before["tables/0000"], after)


def test_a_worker_that_never_starts_is_named_and_nothing_hangs(imported, toml, tmp_path):
    class OneAbsent:
        """Adds the address of a worker that nobody starts to the cluster."""

        def __init__(self, server):
            self.server, self.signal, self.poll = server, server.signal, server.poll

        def start(self, task, cluster, attempt):
            self.server.start(task, {Role.WORKER: [*cluster[Role.WORKER], "127.0.0.1:1"]}, attempt)

    config = to_toml(read_config(toml, ["strategy.start-timeout-s=1.0"]))
    arguments = {
        "config": config,
        "out": str(tmp_path / "run"),
        "resume": False,
        "folder": str(tmp_path),
        "signals": [],
    }
    server = imported.running(PROGRAM, arguments, tmp_path / "run" / "tasks")
    options = SupervisionOptions(restarts=0)
    with pytest.raises(DeviceError, match=r"waited 1 s for worker 2 \(127\.0\.0\.1:1\), which did not start"):
        Supervisor(OneAbsent(server), parse_tasks("2"), options, lambda line: None, silent).run()


POINTS = sorted(np.random.default_rng(13).choice(np.arange(2, 65), 20, replace=False).tolist())


@pytest.mark.faults
def test_ctrl_c_ends_all_tasks_after_a_checkpoint_of_one_step(unbroken, imported, toml, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(imported, toml, tmp_path, "2", signals=[(33, "owner", signal.SIGINT)])
    _, said, (asked,) = train(imported, toml, tmp_path, "2", resume=True)
    (begin,) = resumed(said)
    assert begin >= asked
    slots = [name for name in weights(tmp_path) if name.startswith("optimizer/")]
    assert all(np.array_equal(weights(tmp_path)[name], weights(unbroken[0])[name]) for name in slots)


@pytest.mark.faults
@pytest.mark.parametrize("point", POINTS)
def test_at_any_step_a_kill_loses_one_interval_at_most(unbroken, imported, toml, tmp_path, point):
    signals = [(point, f"worker {point % 2}", signal.SIGKILL)]
    _, said, (killed,) = train(imported, toml, tmp_path, "2", signals=signals)
    assert killed - sum(resumed(said)) <= EVERY
    assert same(weights(tmp_path), weights(unbroken[0]))


@pytest.mark.parametrize("tasks", ["worker=2", "ps=1,worker=1"], ids=["multi-worker-mirrored", "parameter-server"])
def test_a_cluster_goes_on_from_the_weights_of_federated_rounds(imported, toml, tmp_path, tasks):
    keras = pytest.importorskip("keras")
    layers = [keras.Input((6,), name="x"), keras.layers.Dense(2, activation="softmax")]
    keras.Sequential(layers).save(tmp_path / "net.keras")
    averaged = [np.full(shape, 0.25, np.float32) for shape in ((6, 2), (2,))]
    np.savez(tmp_path / "round-3.npz", w000=averaged[0], w001=averaged[1])
    sgd = ("optimizer.name=sgd", "optimizer.learning-rate=1e-30", "loop.epochs=1")  # no step moves 0.25 by half a bit
    names = (f"model.name={tmp_path / 'net.keras'}", f"model.warm-start={tmp_path / 'round-3.npz'}")
    result, said, _ = train(imported, toml, tmp_path, tasks, *sgd, *names)
    assert result["epochs"][0]["step"] > 0 and any("starts from all 2 arrays" in line for line in said)
    found = keras.saving.load_model(result["model"]).get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(found, averaged, strict=True))
