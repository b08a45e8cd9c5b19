"""Weights of a round through the cloud's own processes: Keras model, conversion, the release that devices get."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeloop.bundle import (
    TRAINABLE,
    Bundle,
    Format,
    Manifest,
    Scheme,
    Signature,
    TensorSpec,
    Variant,
    Weight,
    read_bundle,
)
from edgeloop.convert.convert import convert
from edgeloop.convert.options import ConvertOptions
from edgeloop.convert.training.trainable import TrainableOptions
from edgeloop.errors import OptionsError
from edgeloop.federated.fold_back import training
from edgeloop.federated.fold_back.fold_back import FoldBack
from edgeloop.federated.fold_back.jobs import TrainingJob, run_training
from edgeloop.federated.fold_back.options import CloudOptions
from edgeloop.federated.fold_back.records import Outcome, read_records
from edgeloop.federated.rounds.records import RoundRecord
from edgeloop.registry.signatures.sign import verify_signature
from edgeloop.runtime.agent.trainer import Trainer

keras = pytest.importorskip("keras")
CLASSES, FEATURES, EXAMPLES = 3, 8, 96
# SGD moves a weight by at most 1e-30 times a gradient below 10: far below half a step of float32 at 1e-3 (2^-34)
NO_STEP = "1e-30"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run's folder after round 4, whose weights tell the classes apart; beside it the model and labelled data."""
    folder = tmp_path_factory.mktemp("run")
    layer = keras.layers.Dense(CLASSES, activation="softmax", name="head")
    model = keras.Sequential([keras.Input((FEATURES,), name="features"), layer])
    model.save(folder / "net.keras")
    generator = np.random.default_rng(5)
    kernel = generator.normal(0, 0.3, (FEATURES, CLASSES)).astype("f4")
    kernel[:CLASSES] += 4 * np.eye(CLASSES, dtype="f4")
    bias = np.array([0.1, -0.2, 0.3], "f4")
    (folder / "rounds").mkdir()
    np.savez(folder / "rounds" / "round-4.npz", w000=kernel, w001=bias)
    x = generator.normal(size=(EXAMPLES, FEATURES)).astype("f4")
    np.savez(folder / "data.npz", features=x, y=(x @ kernel + bias).argmax(1).astype("i4"))
    np.savez(folder / "calibration.npz", features=x)
    (folder / "train.toml").write_text(
        f"""
        data = "data.npz"
        [pipeline]
        batch = 16
        [optimizer]
        name = "sgd"
        learning-rate = {NO_STEP}
        [loop]
        epochs = 2
        """
    )
    return folder


@pytest.fixture(scope="module")
def bundle(run) -> Bundle:
    """What devices have: the manifest alone, as the release has to replace nothing but what it names."""
    weights = (Weight("w000", "head/kernel", (FEATURES, CLASSES), "float32", True),)
    weights += (Weight("w001", "head/bias", (CLASSES,), "float32", True),)
    schemes = (Scheme.FLOAT32, Scheme.INT8)
    files = [Variant(s.value, f"{s.value}.tflite", (), Format.TFLITE, s, ()) for s in schemes]
    files.append(Variant(TRAINABLE, "trainable.tflite", (), Format.TFLITE, Scheme.FLOAT32, ()))
    trainable = {TRAINABLE: {"batch": 16}}
    infer = Signature(
        (TensorSpec("features", (None, FEATURES), "float32"),), (TensorSpec("head", (None, CLASSES), "float32"),)
    )
    return Bundle(
        run / "net", Manifest("net", 3, {}, {}, {"infer": infer}, tuple(files), weights, options=trainable), "0" * 64
    )


def weights_of(run: Path) -> dict[str, np.ndarray]:
    with np.load(run / "rounds" / "round-4.npz") as packed:
        return {name: packed[name] for name in packed.files}


def test_a_release_holds_the_weights_of_its_round_to_the_bit(run, bundle):
    options = CloudOptions(
        eval=run / "data.npz", every=4, convert=ConvertOptions(calibration=run / "calibration.npz", cache=False)
    )
    folding = FoldBack(options, run / "net.keras", bundle, run, 8)
    folding.check()
    folding.after(lambda record, weights: None)(RoundRecord(4, "rounds/round-4.npz", ()), {})
    (record,) = read_records(run)
    assert record.outcome is Outcome.RELEASED, record.reason
    assert (record.version, record.metric, record.source) == (4, "accuracy", 1.0)  # the labels are the model's own
    assert set(record.variants) == {"float32", "int8", "trainable"} and record.variants["float32"] == 1.0
    released = read_bundle(run / record.release)
    expected = weights_of(run)
    found = Trainer(released.file("trainable.tflite").read_bytes()).get_weights()
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in expected.items()
    }
    constants = [array.tobytes() for array in float_constants(released.file("float32.tflite"))]
    assert expected["w000"].T.tobytes() in constants and expected["w001"].tobytes() in constants


def float_constants(model: Path) -> list[np.ndarray]:
    """The float32 tensors that the file itself holds, read without a runtime."""
    from edgeloop.convert.forms.flatbuffer_tree import read_tree

    tree = read_tree(model.read_bytes())
    buffers = [tree.buffers[t.buffer].data for graph in tree.subgraphs for t in graph.tensors]
    return [np.frombuffer(bytes(data), "f4") for data in buffers if data is not None and len(data) % 4 == 0]


class Heard:
    """The events of a job, in this process."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)

    def read(self) -> None:
        self.said.append("read")


def job(run: Path, place: Path, **options) -> TrainingJob:
    chosen = CloudOptions(eval=run / "data.npz", **options)
    return TrainingJob(options=chosen, keras=run / "net.keras", weights=run / "rounds" / "round-4.npz", place=place)


def test_a_training_goes_on_from_the_weights_of_the_round(run, tmp_path):
    heard = Heard()
    made = training.work(job(run, tmp_path / "round-4", train=run / "train.toml"), heard)
    assert "Training starts from all 2 arrays of weights of " + str(run / "rounds" / "round-4.npz") in heard.said[2]
    assert made["told"][0].startswith("Trained on under one-device, 2 epochs; ")
    found = keras.saving.load_model(made["model"]).get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(found, weights_of(run).values(), strict=True))


@pytest.mark.soak
def test_device_models_teach_the_model_of_the_round(run, tmp_path):
    teachers = []
    for k in range(2):
        teachers.append(tmp_path / f"{k}.npz")
        moved = {name: array + np.float32(0.01 * k) for name, array in weights_of(run).items()}
        np.savez(teachers[k], **moved)
    given = job(run, tmp_path / "round-4", train=run / "train.toml", distill=2)
    made = training.work(TrainingJob(**{**vars(given), "teachers": tuple(teachers)}), Heard())
    assert made["told"][0].startswith("Taught by 2 device models: accuracy 1 on examples held out.")
    assert Path(made["model"]).is_file()


def test_a_cluster_that_nobody_launches_is_refused_before_the_first_round(run, tmp_path):
    text = (run / "train.toml").read_text()
    (run / "cluster.toml").write_text(text + '[strategy]\nname = "parameter-server"\n')
    options = CloudOptions(eval=run / "data.npz", train=run / "cluster.toml")
    with pytest.raises(OptionsError, match=r"needs several processes. Add \[cloud\] launch"):
        run_training(TrainingJob(options=options, keras=run / "net.keras"), print)


@pytest.mark.soak
@pytest.mark.parametrize("tasks", ["2", "ps=1,worker=1"])
def test_a_launched_cluster_goes_on_from_the_weights_of_the_round(run, tmp_path, tasks):
    place = tmp_path / "round-4"
    made = run_training(job(run, place, train=run / "train.toml", launch=tasks), print)
    assert made["told"][0].startswith(f"Trained on under {'parameter-server' if 'ps' in tasks else 'multi-worker'}")
    found = keras.saving.load_model(made["model"]).get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(found, weights_of(run).values(), strict=True))


@pytest.mark.soak
def test_a_run_releases_its_rounds_and_goes_back(run, tmp_path, device_python):
    """The command itself, with Flower's processes; what is released carries a signature that a device checks."""
    pytest.importorskip("flwr")
    convert(
        run / "net.keras",
        tmp_path / "net",
        ConvertOptions(
            to=(Format.TFLITE,),
            schemes=(Scheme.FLOAT32, Scheme.INT8),
            trainable=TrainableOptions(batch=8),
            calibration=run / "calibration.npz",
        ),
    )
    with np.load(run / "data.npz") as data:
        for k, rows in enumerate((slice(0, 50), slice(50, EXAMPLES))):
            np.savez(tmp_path / f"{k}.npz", features=data["features"][rows], y=data["y"][rows])
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    (tmp_path / "federation.toml").write_text(
        f"""
        [model]
        bundle = "net"
        keras = "{run / "net.keras"}"
        [rounds]
        count = 2
        learning-rate = 0.5
        [devices]
        shards = ["0.npz", "1.npz"]
        on = ["local:{device_python}"]
        [cloud]
        eval = "{run / "data.npz"}"
        every = 2
        sign = "key"
        max-drop = 5.0
        [cloud.convert]
        calibration = "{run / "calibration.npz"}"
        """
    )

    def federate(*more):
        arguments = ["federate", "run", tmp_path / "federation.toml", "-o", tmp_path / "run", "--json", *more]
        done = subprocess.run(
            list(map(str, [sys.executable, "-m", "edgeloop", *arguments])), capture_output=True, text=True, timeout=280
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    first = federate()
    assert [(row["round"], row["outcome"], row["version"]) for row in first["cloud"]] == [(2, "released", 2)]
    released = read_bundle(tmp_path / "run" / first["cloud"][0]["release"])
    (tmp_path / "signers").write_text("me " + (tmp_path / "key.pub").read_text())
    assert verify_signature(released, tmp_path / "signers") == "me" and first["cloud"][0]["signed"]
    with np.load(tmp_path / "run" / "rounds" / "round-2.npz") as packed:
        found = Trainer(released.file("trainable.tflite").read_bytes()).get_weights()
        assert all(np.array_equal(packed[name], array) for name, array in found.items())
    assert read_bundle(tmp_path / "run" / "bundle").manifest.version == 3
    second = federate("--resume", "--from-round", "1")
    assert [(row["round"], row["version"]) for row in second["cloud"]] == [(1, 3), (2, 4)]
    assert (tmp_path / "run" / "branches" / "1" / "rounds" / "round-2.npz").is_file()
    assert [{**row, "clients": 0} for row in second["rounds"]] == [{**row, "clients": 0} for row in first["rounds"]]
