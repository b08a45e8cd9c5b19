"""Real Flower processes on loopback: what a run computes, how it fails, and that nothing outlives it."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny_bundle import CLASSES, write_tiny_bundle

from edgeloop.bundle import read_bundle
from edgeloop.convert.forms.flatbuffer_tree import read_tree
from edgeloop.errors import DataError, ModelError, OptionsError
from edgeloop.federated.device.compression.codec import Codec
from edgeloop.federated.network.network import network
from edgeloop.federated.rounds.buffered.options import BufferedOptions
from edgeloop.federated.rounds.compression_options import CompressionOptions
from edgeloop.federated.rounds.evaluation import evaluator, read_evaluation
from edgeloop.federated.rounds.keras_result import write_keras
from edgeloop.federated.rounds.options import RoundsOptions
from edgeloop.federated.rounds.privacy.options import PrivacyMode, PrivacyOptions
from edgeloop.federated.rounds.run_rounds import run_rounds
from edgeloop.federated.rounds.trained_bundle import weight_variables, with_weights, write_trained_bundle
from edgeloop.leftovers import PREFIX
from edgeloop.runtime.agent.trainer import Trainer
from edgeloop.runtime.device import Device

pytest.importorskip("flwr")

BATCH, LR, SEED = 8, 0.2, 11
EXAMPLES = (40, 25)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle"), BATCH)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> tuple[Path, ...]:
    folder = tmp_path_factory.mktemp("shards with 'quotes' and spaces")
    generator = np.random.default_rng(0)
    for index, n in enumerate(EXAMPLES):
        x = generator.normal(size=(n, 8)).astype("f4")
        np.savez(folder / f"{index}.npz", x=x, y=np.argmax(x[:, :CLASSES], axis=1) if index else np.arange(n) % CLASSES)
    return tuple(folder / f"{index}.npz" for index in range(len(EXAMPLES)))


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    """Where temporary folders go, so that the processes of a test are known by their FLWR_HOME."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def living(folder: Path) -> list[str]:
    """Command lines of the processes whose FLWR_HOME lies in `folder`. A zombie has no environment: it is dead."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"FLWR_HOME={folder}" in (process / "environ").read_text(errors="replace"):
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:  # ended between glob and read, or not ours
            continue
    return found


def nothing_is_left(folder: Path) -> bool:
    return living(folder) == [] and not list(folder.glob(f"{PREFIX}*"))


HALF = CompressionOptions(upload=Codec.TOP_K, share=0.5)


def options(shards, device_python, out, **more) -> RoundsOptions:
    device = Device("local:device", device_python)
    return RoundsOptions(shards=shards, out=out, devices=(device,), lr=LR, seed=SEED, **more)


def fedavg_by_hand(bundle, shards, rounds: int, share: float = 1.0, examples=EXAMPLES) -> list[dict[str, np.ndarray]]:
    """McMahan et al. 2017 (arXiv:1602.05629), algorithm 1: each device trains from the average, weights by n_k / n.
    Where it sends a share of its values, the rest is added to its next update: Stich et al. 2018 (arXiv:1809.07599)."""
    trainer, averages = Trainer((bundle / "trainable.tflite").read_bytes()), []
    weights, left = trainer.get_weights(), [0.0] * len(shards)
    shapes = [array.shape for array in weights.values()]
    ends = np.cumsum([array.size for array in weights.values()])
    for number in range(1, rounds + 1):
        before = np.concatenate([array.ravel().astype(np.float64) for array in weights.values()])
        total = np.zeros_like(before)
        for device, shard in enumerate(shards):
            data = np.load(shard)
            trainer.set_weights(weights)
            trainer.train(
                {"features": data["x"]}, data["y"], epochs=2, lr=LR * 0.5 ** (number - 1), seed=(SEED, number, device)
            )
            update = np.concatenate([array.ravel() for array in trainer.get_weights().values()]) - before + left[device]
            sent = np.where(np.argsort(np.argsort(-abs(update))) < np.ceil(share * update.size), update, 0)
            left[device] = update - sent
            total += (before + sent) * examples[device] / sum(examples)
        parts = [part.reshape(shape) for part, shape in zip(np.split(total, ends[:-1]), shapes, strict=True)]
        weights = {name: part.astype(np.float32) for name, part in zip(weights, parts, strict=True)}
        averages.append(weights)
    return averages


def test_two_rounds_on_two_devices_give_the_average_computed_by_hand(bundle, shards, device_python, temporary):
    arguments = ["run", bundle, "--shard", shards[0], "--shard", shards[1], "--on", f"local:{device_python}"]
    numbers = [
        "--eval",
        shards[1],
        "--rounds",
        2,
        "--epochs",
        2,
        "--lr",
        LR,
        "--lr-decay",
        0.5,
        "--seed",
        SEED,
        "-o",
        temporary / "out",
        "--json",
    ]
    command = [sys.executable, "-m", "edgeloop", "federate", *arguments, *numbers]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert nothing_is_left(temporary)
    document, written = json.loads(done.stdout), json.loads((temporary / "out" / "rounds.json").read_text())
    out = temporary / "out"
    evaluation = document.pop("evaluation")
    rest = {"state": "finished", "out": str(out), "bundle": str(out / "bundle")}
    assert document == {"rounds": written["rounds"], **rest}
    assert sorted(evaluation["values"]) == ["0", "1", "2"] and evaluation["metric"] == "accuracy"
    best = evaluation["best"]
    assert best, "two rounds of training on these very samples help"
    started = Trainer(read_bundle(out / "bundle").file("trainable.tflite").read_bytes()).get_weights()
    with np.load(out / "rounds" / f"round-{best}.npz") as kept:
        assert all(np.array_equal(kept[name], array) for name, array in started.items())
    for record in document["rounds"]:
        assert (record["replies"], record["examples"]) == (2, sum(EXAMPLES))
        assert [(c["device"], c["examples"]) for c in record["clients"]] == [(0, EXAMPLES[0]), (1, EXAMPLES[1])]
    assert sorted(path.name for path in (temporary / "out" / "rounds").iterdir()) == ["round-1.npz", "round-2.npz"]
    before = {path: path.read_bytes() for path in (temporary / "out").rglob("*") if path.is_file()}
    again = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60)
    assert again.returncode == 2 and "holds 2 rounds of an earlier run" in again.stderr
    assert before == {path: path.read_bytes() for path in (temporary / "out").rglob("*") if path.is_file()}
    check_rounds(temporary / "out", fedavg_by_hand(bundle, shards, 2))


def check_rounds(out: Path, averages: list[dict[str, np.ndarray]]) -> None:
    for number, expected in enumerate(averages, start=1):
        with np.load(out / "rounds" / f"round-{number}.npz") as found:
            assert sorted(found.files) == sorted(expected)
            for name, array in expected.items():
                # The steps are the same program on both sides; the server rounds the exact mean once, by hand the
                # products and the sum are rounded to 2**-53 first: at most one step of 2**-24 of numbers below 2,
                # carried through at most ten more steps.
                np.testing.assert_allclose(found[name], array, atol=10 * 2**-24 * 2, err_msg=name)
                assert found[name].dtype == np.float32


@pytest.fixture
def short(monkeypatch) -> Iterator[Path]:
    """As `temporary`, with a path that leaves room for the names of Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="e", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def test_flowers_simulation_engine_gives_the_average_computed_by_hand(bundle, shards, short):
    pytest.importorskip("ray")
    both = [dict(np.load(shard)) for shard in shards]
    together = {name: np.concatenate([one[name] for one in both]) for name in ("x", "y")}
    np.savez(short / "all.npz", **together, device=np.repeat([0, 1], EXAMPLES))
    (short / "f.toml").write_text(
        f"""[model]
bundle = "{bundle}"
[rounds]
count = 2
epochs = 2
learning-rate = {LR}
learning-rate-decay = 0.5
seed = {SEED}
[simulation]
data = "all.npz"
nodes = 2
partition = "natural"
group = "device"
"""
    )
    command = [sys.executable, "-m", "edgeloop", "federate", "simulate", short / "f.toml", "-o", short / "out"]
    done = subprocess.run([*map(str, command), "--json"], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert nothing_is_left(short)
    check_rounds(short / "out", fedavg_by_hand(bundle, shards, 2))
    # 2 epochs of 40 and 25 samples, 100 a second of simulated time
    assert [[c["seconds"] for c in record["clients"]] for record in json.loads(done.stdout)["rounds"]] == [
        [0.8, 0.5]
    ] * 2


def test_a_bundle_starts_from_new_weights(bundle, tmp_path):
    old = Trainer((bundle / "trainable.tflite").read_bytes())
    generator = np.random.default_rng(3)
    new = {name: generator.normal(size=array.shape).astype("f4") for name, array in old.get_weights().items()}
    written = write_trained_bundle(read_bundle(bundle), new, tmp_path / "out")
    assert (written.manifest.version, [v.id for v in written.variants]) == (2, ["trainable"])
    trainer = Trainer(written.file("trainable.tflite").read_bytes())
    assert {name: array.tobytes() for name, array in trainer.get_weights().items()} == {
        name: array.tobytes() for name, array in new.items()
    }
    x, y = generator.normal(size=(20, 8)).astype("f4"), np.arange(20) % CLASSES
    old.set_weights(new)
    losses = [one.train({"features": x}, y, lr=LR, seed=1).loss for one in (old, trainer)]
    assert losses[0] == losses[1]  # it trains from them as well
    with pytest.raises(ModelError, match="no variable for the weight w002"):
        with_weights((bundle / "trainable.tflite").read_bytes(), {**new, "w002": new["w001"]})


def test_a_kernel_that_lies_in_several_variables_is_replaced_row_by_row(monkeypatch):
    keras = pytest.importorskip("keras")
    from edgeloop.convert.training import products
    from edgeloop.convert.training.trainable import TrainableOptions, to_trainable

    monkeypatch.setattr(products, "CACHED", 9)  # numbers: three rows of the kernel
    model = keras.Sequential([keras.Input((8,), name="features"), keras.layers.Dense(CLASSES)])
    data = to_trainable(model, TrainableOptions(batch=BATCH))
    tree = read_tree(data)
    assert [len(variables) for variables in weight_variables(tree).values()] == [3, 1]
    new = {"w000": np.arange(24, dtype=np.float32).reshape(8, 3), "w001": np.ones(3, np.float32)}
    found = Trainer(with_weights(data, new)).get_weights()
    assert all(np.array_equal(found[name], array) for name, array in new.items())


@pytest.mark.parametrize("columns", [False, True], ids=["labels [n]", "labels [n, 1]"])
def test_rounds_are_measured_and_the_best_one_is_kept(bundle, tmp_path, device_python, columns):
    x = np.random.default_rng(4).normal(size=(21, 8)).astype("f4")  # 2 batches of 8, and 5
    right = np.zeros((8, CLASSES), np.float32)
    right[:CLASSES] = np.eye(CLASSES)
    y = np.argmax(x @ right, axis=1)
    np.savez(tmp_path / "test.npz", x=x, y=y[:, None] if columns else y)
    weights = {
        n: {"w000": matrix, "w001": np.zeros(CLASSES, np.float32)}
        for n, matrix in enumerate((np.zeros_like(right), right, -right))
    }
    read = read_bundle(bundle)
    device, model = Device("local:device", device_python), bundle / "trainable.tflite"
    with evaluator(read, model, tmp_path / "test.npz", device, tmp_path) as measured:
        for number, arrays in weights.items():
            found = measured.measure(number, arrays)
    share = {n: float(np.mean(np.argmax(x @ w["w000"], axis=1) == y)) for n, w in weights.items()}
    assert {n: found.value(n) for n in weights} == pytest.approx(share, abs=1e-12) and share[1] == 1.0
    assert (found.metric, found.best) == ("accuracy", 1) and read_evaluation(tmp_path) == found
    assert found.told().startswith("Round 1 is the best: accuracy 1; accuracy ")
    with np.load(tmp_path / "best.npz") as best:
        assert np.array_equal(best["w000"], right)


def test_the_keras_model_is_written_with_the_new_weights(tmp_path):
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input((8,), name="features"), keras.layers.Dense(CLASSES)])
    model.save(tmp_path / "source.keras")
    new = [np.full(array.shape, k + 0.5, np.float32) for k, array in enumerate(model.get_weights())]
    np.savez(tmp_path / "best.npz", **{f"w{k:03}": array for k, array in enumerate(new)})
    write_keras(tmp_path / "source.keras", tmp_path / "best.npz", tmp_path / "out" / "model.keras")
    found = keras.saving.load_model(tmp_path / "out" / "model.keras").get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(found, new, strict=True))


def test_a_killed_device_that_the_run_needs_is_started_again(bundle, shards, device_python, temporary):
    killed = []
    with network([Device("local:device", device_python)], shards) as running:

        def kill(record, weights):
            assert all(np.isfinite(array).all() for array in weights.values())
            if not killed:
                killed.append(running.children["device-1"].pid)
                os.kill(killed[0], signal.SIGKILL)

        # every device must answer
        chosen = options(shards, device_python, temporary / "out", rounds=20, buffered=BufferedOptions(size=2))
        assert [record.round for record in run_rounds(bundle, chosen, kill, running)] == list(range(1, 21))
        assert running.children["device-1"].pid not in killed
        assert len(living(temporary)) > 3  # the control: all live until the block ends
    assert nothing_is_left(temporary)


def test_a_killed_server_is_started_again_and_computes_the_same_from_compressed_updates(
    bundle, shards, device_python, temporary
):
    killed = []
    with pytest.raises(KeyboardInterrupt), network([Device("local:device", device_python)], shards) as running:

        def kill(record, weights):
            if record.round == 1:
                (server,) = [p for p in Path("/proc").glob("[0-9]*") if is_serverapp(p, running.work)]
                killed.append(int(server.name))
                os.kill(killed[0], signal.SIGKILL)

        both = {"compression": HALF, "privacy": FAINT}
        chosen = options(shards, device_python, temporary / "out", epochs=2, lr_decay=0.5, **both)
        records = run_rounds(bundle, chosen, kill, running)
        assert {client.codec for record in records for client in record.clients} == {"top-k"}
        spent = [record.privacy.releases for record in records]
        assert spent[0] == 1 and spent[-1] in (3, 4)  # the kill may have undone a release that was charged
        assert killed and [len(record.clients) for record in records] == [2, 2, 2]
        with pytest.raises(OptionsError, match="other shards"):
            run_rounds(bundle, options(shards[:1], device_python, temporary / "other"), running=running)
        raise KeyboardInterrupt  # as from the terminal: the block ends all the same
    assert nothing_is_left(temporary)
    expected = fedavg_by_hand(bundle, shards, 3, share=0.5, examples=(1, 1))[-1]
    with np.load(temporary / "out" / "rounds" / "round-3.npz") as found:
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, atol=20 * 2**-24 * 2, err_msg=name)  # as above, more steps


# it clips nothing, its noise of 5e-8 is that of the rounding, and devices weigh the same
FAINT = PrivacyOptions(mode=PrivacyMode.CENTRAL_FIXED, noise_multiplier=5e-9, clipping_norm=20.0, delta=1e-5)


def is_serverapp(process: Path, work: Path) -> bool:
    try:
        started_by_us = f"FLWR_HOME={work}" in (process / "environ").read_text(errors="replace")
        return started_by_us and "flwr-serverapp" in (process / "cmdline").read_text()
    except OSError:
        return False


def test_a_shard_the_model_does_not_know_ends_the_run_with_its_name(bundle, shards, device_python, temporary):
    strange = temporary / "strange.npz"
    np.savez(strange, features=np.zeros((4, 8), np.float32), y=np.array([0, 1, 2, 3]))
    chosen = options((shards[0], strange), device_python, temporary / "out")
    says = rf"round 1 of 3: device 1: {re.escape(str(strange))}: labels run from 0 to 3"
    with pytest.raises(DataError, match=says) as raised:
        run_rounds(bundle, chosen)
    assert raised.value.advice and raised.value.advice not in raised.value.found
    assert nothing_is_left(temporary)
    assert not list((temporary / "out").rglob("round-*.npz"))
