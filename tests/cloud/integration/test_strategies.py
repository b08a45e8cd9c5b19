"""Every synchronous strategy trains for real, each in processes of its own, to the weights of one device."""

import socket
from pathlib import Path

import numpy as np
import pytest
from forked_trainings import Forked, run_forked

from edgeloop.cloud.train.cluster.evaluator import read_evaluations
from edgeloop.errors import INTERRUPTED

TOML = """
model = "mlp"
[data]
path = "data.npz"
batch = 32
[optimizer]
name = "sgd"
learning-rate = 0.1
scaling = "none"
options.momentum = 0.9
[loop]
epochs = 2
"""
# Gradients of two halves are added in another order than those of the whole: each step moves a weight by at most some
# float32 roundings (6e-8) of the sum of gradients (about 1), times the rate 0.1 / (1 - 0.9); 32 steps: 2e-6.
ANOTHER_ORDER = 2e-6


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """571 points of three classes: held out are 57, one epoch is 16 steps of 32, and no part divides evenly."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(571, 6)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, y=(x @ rng.normal(size=(6, 3))).argmax(1))
    (folder / "train.toml").write_text(TOML)
    return folder


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def ended(data, tmp_path_factory):
    """Each case, trained from the same file; all at once."""
    out = tmp_path_factory.mktemp("runs")

    def case(name, *changes, **more):
        return Forked(data / "train.toml", out / name, changes, **more)

    adam = ("optimizer.name=adam", "optimizer.options={}", "optimizer.learning-rate=0.01")
    split = ("strategy.name=tensor-split", "strategy.virtual-cpus=2")
    halves = ("data.batch=16", "strategy.virtual-cpus=2")
    ports = free_ports(5)
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports[:2]]}
    cases = {
        "one": case("one"),
        "again": case("again"),
        "one-at-a-time": case("one-at-a-time", "loop.steps-per-call=1"),
        "mirrored": case("mirrored", "strategy.name=mirrored", *halves),
        "central": case("central", "strategy.name=central-storage", *halves),
        "mirrored-statistics": case("ms", "strategy.name=mirrored", "model.name=cloud_models:normalized", *halves),
        "central-statistics": case(
            "cs", "strategy.name=central-storage", "model.name=cloud_models:normalized", *halves
        ),
        "half": case("half", "strategy.name=mirrored", "memory.precision=float16", *halves),
        "central-half": case("ch", "strategy.name=central-storage", "memory.precision=float16", *halves),
        "pipeline": case(
            "pipeline",
            "strategy.name=pipeline",
            "strategy.virtual-cpus=4",
            "strategy.replicas=2",
            "strategy.micro-batches=3",
            "data.batch=16",
        ),
        "adam": case("adam", *adam),
        "split-adam": case("split-adam", *split, *adam),
        "split-one": case("split-sgd", *split),
        "tpu": case("tpu", "strategy.name=tpu"),
        "alone": case("alone", "strategy.name=mirrored"),
        "no-cluster": case("no-cluster", "strategy.name=multi-worker-mirrored"),
    }
    for k in (0, 1):
        task = {"cluster": cluster, "task": {"type": "worker", "index": k}}
        cases[f"worker-{k}"] = case(f"worker-{k}", "data.batch=16", tf_config=task)
    task = {"cluster": cluster, "task": {"type": "evaluator", "index": 0}}
    cases["evaluator"] = Forked(data / "train.toml", out / "worker-0", tf_config=task)
    servers = {"chief": [f"127.0.0.1:{ports[2]}"], "worker": [f"127.0.0.1:{ports[3]}"], "ps": [f"127.0.0.1:{ports[4]}"]}
    task = {"cluster": servers, "task": {"type": "ps", "index": 0}}
    cases["ps"] = Forked(data / "train.toml", out / "ps", tf_config=task)
    return run_forked(cases, tmp_path_factory.mktemp("scratch"))


def test_the_same_file_gives_the_same_weights_in_another_process_bit_for_bit(ended):
    for a, b in zip(ended["one"].weights, ended["again"].weights, strict=True):
        assert a.tobytes() == b.tobytes()


def test_eight_steps_of_one_call_are_the_same_as_one_at_a_time(ended):
    for a, b in zip(ended["one"].weights, ended["one-at-a-time"].weights, strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize(
    ("name", "strategy"),
    [
        ("mirrored", "mirrored"),
        ("central", "central-storage"),
        ("worker-0", "multi-worker-mirrored"),
        ("pipeline", "pipeline"),  # and each replica's model in two stages
    ],
)
def test_two_replicas_come_to_the_weights_of_one_device(ended, name, strategy):
    assert ended[name].error == ()
    result = ended[name].result
    assert (result["strategy"], result["replicas"], result["batch"]) == (strategy, 2, 32)
    for a, b in zip(ended["one"].weights, ended[name].weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=ANOTHER_ORDER)
    losses = [[epoch["validation_loss"] for epoch in ended[k].result["epochs"]] for k in ("one", name)]
    np.testing.assert_allclose(*losses, rtol=0, atol=1e-5)  # of all 57 examples, once each


def test_the_partition_and_the_bubble_of_a_pipeline_are_named(ended):
    notes = " ".join(ended["pipeline"].result["notes"])
    assert "divided into 2 stages" in notes and "A step has 2 replicas with 3 micro-batches each." in notes
    assert "(bubble); equal ones would wait 25%." in notes  # (2 - 1) / (3 + 2 - 1)


@pytest.mark.parametrize("name", ["adam", "one"])
def test_layers_split_over_two_devices_come_to_the_weights_of_one(ended, name):
    split = ended[f"split-{name}"]
    assert split.error == ()
    assert "Split over 2 devices: hidden_0 (" in " ".join(split.result["notes"])
    # Adam reads its moments after it has written them; a step that read the old ones ended at a loss 40 times as high
    for a, b in zip(ended[name].weights, split.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=ANOTHER_ORDER)  # the same bits were seen


def test_moving_statistics_are_those_of_all_replicas_and_random_layers_run_under_every_strategy(ended):
    mirrored, central = ended["mirrored-statistics"], ended["central-statistics"]
    assert mirrored.error == central.error == ()
    for a, b in zip(mirrored.weights, central.weights, strict=True):  # one averages after the epoch, one in each step
        np.testing.assert_allclose(a, b, rtol=0, atol=ANOTHER_ORDER)


def test_the_loss_is_scaled_on_two_replicas_and_trains_as_in_float32(ended):
    assert ended["half"].error == ()
    one, half = (np.array([e["validation_loss"] for e in ended[k].result["epochs"]]) for k in ("one", "half"))
    assert np.any(one != half)
    np.testing.assert_allclose(half, one, rtol=0.02)  # 11 bits of mantissa are 5e-4; 2e-3 was measured


def test_a_worker_that_does_not_save_reports_the_same_and_leaves_no_folder(ended):
    one, other = ended["worker-0"].result, ended["worker-1"].result
    assert [e["validation_loss"] for e in one["epochs"]] == [e["validation_loss"] for e in other["epochs"]]
    assert ended["worker-1"].weights == []


def test_an_evaluator_of_tf_config_measures_the_last_checkpoint_and_ends_with_the_run(ended):
    assert ended["evaluator"].result == {"exit": 0}
    result = ended["worker-0"].result
    records = read_evaluations(Path(result["out"]))
    assert records[-1].step == result["epochs"][-1]["step"] == 32
    assert records[-1].loss == pytest.approx(result["epochs"][-1]["validation_loss"], abs=1e-5)  # float32 means of 57


def test_a_parameter_server_of_tf_config_ends_when_it_is_asked_to(ended):
    assert ended["ps"].result == {"exit": INTERRUPTED}


def test_a_cluster_is_recognized_and_the_rule_is_named(ended):
    assert "all of them average their gradients" in ended["worker-0"].result["reason"]
    assert ended["one"].result["reason"] == "One host with one device."


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("tpu", "TargetError", "no TPU can be used here"),
        ("central-half", "OptionsError", "central-storage cannot change that scale within a step"),
        ("alone", "OptionsError", "needs two devices or more"),
        ("no-cluster", "OptionsError", "TF_CONFIG is not set"),
    ],
)
def test_a_strategy_that_cannot_run_here_is_one_clear_error(ended, name, error, said):
    assert ended[name].error[0] == error and said in ended[name].error[1]
    assert "\n" not in ended[name].error[1]
