"""One training after the other on one device: its run folder, its resumption, what it refuses, and where it ends."""

import json
import resource
from pathlib import Path

import cloud_models
import numpy as np
import pytest

from edgeloop import cli
from edgeloop.cloud.train.cluster.task import launch_run
from edgeloop.cloud.train.config.read_config import read_config
from edgeloop.cloud.train.config.tables import OptimizerConfig, Scaling, Schedule
from edgeloop.cloud.train.model.models import open_keras
from edgeloop.cloud.train.model.warm_start import sorted_by_number, warm_start
from edgeloop.cloud.train.run.run_folder import LOCK, METRICS, MODEL, SAVED_MODEL, RunFolder
from edgeloop.cloud.train.step.optimizer import learning_rate
from edgeloop.cloud.train.trainer import train_run
from edgeloop.errors import DataError, ModelError, OptionsError, TargetError, WriteError
from edgeloop.processes.file_lock import exclusive
from edgeloop.progress import silent

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")
TOML = """
[model]
name = "cloud_models:normalized"
[data]
path = "data.npz"
[pipeline]
batch = 32
[optimizer]
learning-rate = 0.01
[loop]
epochs = 4
"""


@pytest.fixture(scope="module")
def toml(tmp_path_factory):
    """A training on 400 points of three classes, of which 40 are held out: 11 steps of 32 an epoch."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 6)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, y=(x @ rng.normal(size=(6, 3))).argmax(1))
    (folder / "train.toml").write_text(TOML)
    return folder / "train.toml"


def train(toml, out, *changes, **more):
    return train_run(read_config(toml, changes), out, **more)


@pytest.fixture(scope="module")
def run(toml, tmp_path_factory):
    """A whole run by the verb: (folder, the document that --json printed)."""
    out = tmp_path_factory.mktemp("runs") / "run"
    capture = pytest.MonkeyPatch()
    printed = []
    capture.setattr("edgeloop.console.Console._document", lambda self, document: printed.append(document))
    assert (
        cli.run(["train", str(toml), "-o", str(out), "--json", "--set", "callbacks.epoch=['cloud_models:remember']"])
        == 0
    )
    capture.undo()
    return out, json.loads(json.dumps(*printed))


def test_the_document_the_metrics_and_tensorboard_say_the_same(run):
    out, document = run
    lines = [json.loads(line) for line in (out / METRICS).read_text().splitlines()]
    assert document["epochs"] == lines and [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert [line["step"] for line in lines] == [11, 22, 33, 44]
    shown = {}
    for file in sorted((out / "logs").rglob("events*")):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                shown[event.step, value.tag] = float(tf.make_ndarray(value.tensor))
    assert shown[22, "validation_loss"] == np.float32(lines[1]["validation_loss"])
    assert document["metric"] == "accuracy" and document["bound"] in ("input", "compute")
    assert not (out / ".lock.new").exists() and Path(document["model"]) == out / MODEL


def test_a_callback_gets_every_epoch_and_the_model(run):
    assert [(epoch, 8) for epoch in (1, 2, 3, 4)] == cloud_models.EPOCHS_SEEN


def test_the_model_is_that_of_the_best_epoch_in_both_formats(run, toml):
    out, document = run
    best = min(document["epochs"], key=lambda epoch: epoch["validation_loss"])
    assert document["best_epoch"] == best["epoch"]
    model = open_keras(out / MODEL)
    x = np.load(toml.with_name("data.npz"))["x"][:8]
    served = tf.saved_model.load(str(out / SAVED_MODEL))
    np.testing.assert_allclose(served.serve(x), model(x), atol=1e-6)  # the same operations, perhaps fused
    # its loss on the 40 examples that were held out, by NumPy
    from edgeloop.cloud.train.data.training_data import training_and_validation

    config = read_config(toml)
    _, held = training_and_validation(config.data, config.pipeline, config.loop.seed)
    x, y = (np.array(part) for part in zip(*held.dataset().as_numpy_iterator(), strict=True))
    loss = -np.log(np.asarray(model(x))[np.arange(40), y]).mean()
    assert loss == pytest.approx(best["validation_loss"], rel=1e-5)


def test_the_resolved_config_repeats_the_run_bit_for_bit(run, tmp_path):
    again = train(run[0] / "config.toml", tmp_path / "again", "callbacks.epoch=[]")
    for a, b in zip(open_keras(run[0] / MODEL).get_weights(), open_keras(again.model).get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()


def test_a_resumed_run_comes_to_the_weights_of_an_unbroken_one(run, toml, tmp_path):
    train(toml, tmp_path / "run", "loop.epochs=2")
    resumed = train(toml, tmp_path / "run", resume=True)
    assert [record.epoch for record in resumed.epochs] == [1, 2, 3, 4]
    for a, b in zip(open_keras(run[0] / MODEL).get_weights(), open_keras(resumed.model).get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()


def test_a_model_with_code_that_keras_does_not_load_goes_on_too(toml, tmp_path):
    doubled = "model.name=cloud_models:doubled"
    unbroken = train(toml, tmp_path / "unbroken", doubled, "loop.epochs=2")
    train(toml, tmp_path / "run", doubled, "loop.epochs=1")
    resumed = train(toml, tmp_path / "run", doubled, "loop.epochs=2", resume=True)
    assert [record.loss for record in resumed.epochs] == [record.loss for record in unbroken.epochs]


def test_a_run_is_neither_overwritten_nor_trained_into_by_two(run, toml, tmp_path):
    with pytest.raises(WriteError, match="holds a run, which is not overwritten"):
        train(toml, run[0])
    with exclusive(run[0] / LOCK, 1), pytest.raises(WriteError, match="another process trains into"):
        train(toml, run[0], resume=True)
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(WriteError, match="holds files that no training wrote"):
        train(toml, tmp_path)
    with pytest.raises(DataError, match="holds no run to resume"):
        train(toml, tmp_path / "none", resume=True)


def test_training_stops_after_patience_epochs_without_a_lower_validation_loss(toml, tmp_path):
    result = train(toml, tmp_path / "run", "optimizer.learning-rate=1e-12", "loop.epochs=40", "loop.patience=2")
    # 1e-12 changes no float32 weight: only the moving statistics move, which a loss of 0 dropout may use once or twice
    assert len(result.epochs) == result.best_epoch + 2 and "has not become lower for 2 epochs" in result.stopped


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        (["model.name=mlpp"], OptionsError, "the model mlpp is not known. Did you mean mlp"),
        (["model.name=mlp", "model.options.hiden=3"], OptionsError, "hiden is not known to mlp. Did you mean hidden"),
        (["model.name=cloud_models:missing"], OptionsError, "cannot be imported"),
        (["model.name=small-cnn"], ModelError, "cannot be built for this data"),
        (["model.name=small.keras"], DataError, "the data has 3 classes, and the model tells 2 apart"),
        (["model.name=wide.keras"], DataError, "x has the shape .6,. in the data, and the model takes .7,."),
        (["model.name=mlp", f"model.options.hidden={10**13}"], TargetError, "not enough memory for this training"),
        (["model.name=none.keras"], ModelError, "none.keras cannot be loaded"),
        (["optimizer.name=adm"], OptionsError, "the optimizer adm is not known. Did you mean adam"),
        (["optimizer.options.momentun=1"], OptionsError, "the optimizer adam refuses its options"),
        (["pipeline.batch=999"], DataError, "too few for one batch of 999"),
        (["loop.loss=binary-crossentropy", "model.name=mlp"], DataError, "3 classes, and the model tells 2 apart"),
        (["data.path=negative.npz"], DataError, "the label of example 3 is -1"),
    ],
)
def test_what_does_not_fit_is_refused_before_training_and_leaves_no_folder(
    toml, tmp_path, monkeypatch, changes, error, said
):
    monkeypatch.chdir(toml.parent)
    if not Path("small.keras").exists():
        layers = keras.layers
        keras.Sequential([keras.Input((6,)), layers.Dense(2, "softmax")]).save("small.keras")
        keras.Sequential([keras.Input((7,)), layers.Dense(3, "softmax")]).save("wide.keras")
        np.savez("negative.npz", x=np.zeros((9, 6), np.float32), y=np.array([0, 1, 2, -1, 0, 0, 0, 0, 0]))
    with pytest.raises(error, match=said) as raised:
        train(toml, tmp_path / "run", *changes)
    assert "\n" not in str(raised.value) and not (tmp_path / "run").exists()


def test_two_inputs_reach_the_model_by_their_names_and_two_numbers_are_learned(tmp_path):
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(300, 4)).astype(np.float32), rng.normal(size=(300, 2)).astype(np.float32)
    np.savez(tmp_path / "pairs.npz", left=left, right=right, y=np.stack([left[:, 0], right[:, 1]], 1))
    (tmp_path / "train.toml").write_text("data = 'pairs.npz'\n[model]\nname = 'cloud_models:two_inputs'\n")
    results = [
        train(tmp_path / "train.toml", tmp_path / name, "optimizer.learning-rate=0.01", *changes)
        for name, *changes in [("plain",), ("again", "memory.recompute=true")]
    ]
    assert results[0].metric == "mean_absolute_error"
    assert results[0].best.validation_loss < 0.1  # numbers of variance 1: a tenth of it is left at most
    assert results[1].best.validation_loss == pytest.approx(results[0].best.validation_loss, rel=1e-3)


# Labels 1000, inputs 1, weight 0, rate 1: the first gradient is 2 (exp(0) - 1000) exp(0) = -1998, the weight becomes
# 1998, and exp(1998) is infinite in float32. The slope of a root at 0 is infinite, so is the first gradient.
ORIGINS = {
    "bursting": r"the loss is inf at step 2 \(epoch 1\), and it began at step 2 in the output of layer burst",
    "rooted": r"the loss is inf at step 2 \(epoch 1\), and it began at step 1 in the gradient of root/kernel\.",
}


STAGES = ("strategy.name=pipeline", "strategy.micro-batches=2")


@pytest.fixture
def three_devices(monkeypatch):
    """Three times the one that this process has: stages need not know."""
    monkeypatch.setattr("edgeloop.cloud.train.strategies.where.local_devices", lambda: ("CPU:0", "CPU:0", "CPU:0"))


def test_a_divided_model_goes_on_from_its_checkpoint_with_other_cuts(toml, tmp_path, three_devices):
    sgd = ("optimizer.name=sgd", "optimizer.options.momentum=0.9", "optimizer.learning-rate=0.1")
    unbroken = train(toml, tmp_path / "unbroken", *STAGES, *sgd, "strategy.stages=2")
    train(toml, tmp_path / "run", *STAGES, *sgd, "strategy.stages=2", "loop.epochs=2")
    resumed = train(toml, tmp_path / "run", *STAGES, *sgd, "strategy.stages=3", resume=True)
    assert [record.epoch for record in resumed.epochs] == [1, 2, 3, 4]
    assert "divided into 3 stages" in " ".join(resumed.notes)
    for a, b in zip(open_keras(unbroken.model).get_weights(), open_keras(resumed.model).get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=5e-6)  # 44 steps of float32 roundings (6e-8) times the rate 1


@pytest.mark.parametrize("name", ORIGINS)
def test_a_loss_that_is_not_finite_names_the_layer_and_the_step_where_it_began(tmp_path, name, changes=()):
    np.savez(tmp_path / "ones.npz", x=np.ones((40, 1), np.float32), y=np.full(40, 1000.0, np.float32))
    (tmp_path / "train.toml").write_text("[data]\npath = 'ones.npz'\n[pipeline]\nbatch = 4\n")
    changes = [f"model.name=cloud_models:{name}", "optimizer.name=sgd", "optimizer.learning-rate=1.0", *changes]
    with pytest.raises(ModelError, match=ORIGINS[name]):
        train(tmp_path / "train.toml", tmp_path / "run", *changes)


def test_a_loss_that_is_not_finite_in_a_divided_model_names_the_same_layer_and_step(tmp_path, three_devices):
    test_a_loss_that_is_not_finite_names_the_layer_and_the_step_where_it_began(
        tmp_path, "bursting", (*STAGES, "strategy.stages=2")
    )


def test_a_full_disk_is_one_line_whatever_was_to_be_written(run, tmp_path):
    model, folder = open_keras(run[0] / MODEL), RunFolder(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    writes = [
        lambda: folder.append_metrics({"step": 1, "loss": 0.5, "note": "x" * 200}),
        lambda: folder.save_model(model),
        lambda: folder.export(model),
    ]
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # EFBIG, as a full disk's ENOSPC
    try:
        for write in writes:
            with pytest.raises(WriteError, match=f"cannot write {tmp_path}/") as raised:
                write()
            assert "\n" not in str(raised.value)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / MODEL).exists() and not (tmp_path / "saved_model").exists()


def test_a_warm_start_takes_weights_in_their_order_or_by_their_names(run, toml, tmp_path):
    trained = open_keras(run[0] / MODEL).get_weights()
    np.savez(tmp_path / "round.npz", **{f"w{k:03d}": array for k, array in enumerate(trained)})
    by_name = {f"w{k:03d}": array for k, array in reversed(list(enumerate(trained)))}
    for source in (run[0], run[0] / MODEL, tmp_path / "round.npz", by_name):
        model = cloud_models.normalized((6,), 3)
        assert "all 8 arrays" in warm_start(model, source)
        assert all(a.tobytes() == b.tobytes() for a, b in zip(model.get_weights(), trained, strict=True))
    other = open_keras(run[0] / MODEL)
    layers = [*other.layers[:-1], keras.layers.Dense(5, name="another_head")]
    assert "6 of 8 arrays" in warm_start(keras.Sequential([keras.Input((6,)), *layers]), run[0])
    np.savez(tmp_path / "bad.npz", *trained[:-1], np.zeros(4, np.float32))
    with pytest.raises(ModelError, match=r"weight 7 .*has the shape \(4,\), and the model's has \(3,\)"):
        warm_start(cloud_models.normalized((6,), 3), tmp_path / "bad.npz")
    with pytest.raises(ModelError, match="the averaged weights: 7 arrays, and the model has 8"):
        warm_start(model, {name: array for name, array in by_name.items() if name != "w007"})
    with pytest.raises(ModelError, match="holds no weights to start from"):
        warm_start(model, toml)


def test_arrays_beyond_the_ninth_or_the_thousandth_keep_their_order():
    given = [f"w{k:03d}" for k in range(1002)]  # as federated rounds and trainable files name them
    assert sorted_by_number(reversed(given)) == given
    numbered = [f"arr_{k}" for k in range(12)]  # as numpy does
    assert sorted_by_number(sorted(numbered)) == numbered


def test_a_run_is_converted_and_its_bundle_is_a_warm_start(run, tmp_path):
    bundle = tmp_path / "bundle"
    words = ["convert", str(run[0]), "-o", str(bundle), "--to", "tflite", "--schemes", "float32", "--trainable"]
    assert cli.run(words) == 0
    model = cloud_models.normalized((6,), 3)
    assert "all 8 arrays" in warm_start(model, bundle)
    for a, b in zip(model.get_weights(), open_keras(run[0] / MODEL).get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()
    with pytest.raises(ModelError, match="has no trainable variant"):
        warm_start(model, Path(__file__).parents[2] / "golden/bundle-1")


def test_a_run_that_starts_warm_begins_where_the_other_ended(run, toml, tmp_path):
    said = []
    changes = (f"model.warm-start={json.dumps(str(run[0]))}", "optimizer.learning-rate=1e-12", "loop.epochs=1")
    result = train(toml, tmp_path / "run", *changes, say=said.append)
    assert any("starts from all 8 arrays" in line for line in said)
    # the weights are those of the best epoch; the moving statistics go on over 11 steps of the same data
    assert result.epochs[0].validation_loss == pytest.approx(
        run[1]["epochs"][run[1]["best_epoch"] - 1]["validation_loss"], rel=0.2
    )


def test_a_model_of_keras_applications_takes_weights_that_fit_but_for_the_classes(tmp_path):
    options = {"input_shape": (32, 32, 3), "alpha": 0.25}
    published = keras.applications.MobileNet(weights=None, classes=7, **options)
    published.save_weights(tmp_path / "published.weights.h5")
    from edgeloop.cloud.train.config.tables import ModelConfig
    from edgeloop.cloud.train.model.models import build_model

    config = ModelConfig(name="mobilenet", weights=tmp_path / "published.weights.h5", options={"alpha": 0.25})
    model = build_model(config, {"image": (32, 32, 3)}, 10, classify=True)
    assert model.outputs[0].shape == (None, 10)
    same = [np.array_equal(a, b) for a, b in zip(model.get_weights(), published.get_weights(), strict=True)]
    assert same.count(False) <= 2 and not same[-2], "all but the last layer"
    # inputs in 0..1 reach the network in -1..1, as its weights were trained
    first = keras.Model(model.inputs, model.get_layer("conv1").input)
    np.testing.assert_allclose(first(np.full((1, 32, 32, 3), 0.25, np.float32))[0, 0, 0], [-0.5] * 3, atol=1e-6)


def test_a_starter_describes_the_data_and_trains_as_it_stands(tmp_path, capfd):
    x = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    np.savez(tmp_path / "pets.npz", x=x, y=np.where(x[:, 0] > 0, "dog", "cat"))
    file = tmp_path / "new.toml"
    assert cli.run(["train", str(file), "--init", str(tmp_path / "pets.npz")]) == 0
    assert "200 examples in pets.npz: x [6]; 2 classes: cat, dog." in capfd.readouterr().out
    result = train(file, tmp_path / "run", "loop.epochs=1")
    assert result.metric == "accuracy" and result.batch == 32
    assert (tmp_path / "run/labels.txt").read_text() == "cat\ndog\n"
    assert cli.run(["train", str(file), "--init", str(tmp_path / "pets.npz")]) == WriteError.exit_code
    assert cli.run(["train", str(file)]) == OptionsError.exit_code


def test_the_rate_of_two_replicas_grows_linearly_to_twice_that_of_one_within_the_warm_up():
    two = learning_rate(OptimizerConfig(learning_rate=0.1, warmup_epochs=2), replicas=2, steps_per_epoch=5, epochs=4)
    assert [float(two(step)) for step in (0, 5, 10, 15)] == pytest.approx([0.1, 0.15, 0.2, 0.2])
    unscaled = OptimizerConfig(learning_rate=0.1, scaling=Scaling.NONE)
    assert learning_rate(unscaled, replicas=2, steps_per_epoch=5, epochs=4) == 0.1
    cosine = OptimizerConfig(learning_rate=0.1, schedule=Schedule.COSINE)
    at_once = learning_rate(
        OptimizerConfig(learning_rate=0.1, warmup_epochs=0, schedule=Schedule.COSINE),
        replicas=2,
        steps_per_epoch=5,
        epochs=4,
    )
    assert float(at_once(0)) == pytest.approx(0.2)  # without a warm-up the linear rule holds from the first step
    one = learning_rate(cosine, replicas=1, steps_per_epoch=5, epochs=4)
    assert [float(one(step)) for step in (0, 10, 20)] == pytest.approx([0.1, 0.05, 0.0])


def test_validation_and_saving_are_signs_of_life(toml, tmp_path, monkeypatch):
    monkeypatch.setattr("edgeloop.cloud.train.data.training_data.EVALUATION_BATCH", 8)
    monkeypatch.setattr("edgeloop.cloud.train.run.beat.EVERY_S", 600)  # of each pause only its begin and its end
    beats = []
    train(toml, tmp_path / "run", "loop.epochs=1", beat=beats.append)
    # at the last of 11 steps: after the call that did it, after all; 5 batches for 40 examples; before and after the
    # model is saved, the checkpoint, and the export
    assert beats.count(11) == 2 + 5 + 3 * 2


def test_a_new_run_refuses_the_checkpoints_of_another_before_it_begins(toml, tmp_path):
    change = f"checkpoints.place={tmp_path / 'kept'}"
    (tmp_path / "kept" / "step-00000300").mkdir(parents=True)
    (tmp_path / "kept" / "step-00000300" / "manifest.json").write_bytes(b"{}")
    with pytest.raises(WriteError, match="kept holds the checkpoints of another run"):
        train(toml, tmp_path / "run", change)
    with pytest.raises(WriteError, match="kept holds the checkpoints of another run"):
        launch_run(read_config(toml, [change]), tmp_path / "run", "2", progress=silent, say=lambda line: None)
    assert not (tmp_path / "run").exists()


def test_config_toml_repeats_the_run_from_any_folder(toml, tmp_path, monkeypatch):
    monkeypatch.chdir(toml.parent)
    first = train(toml, tmp_path / "run", "data.path=data.npz", "loop.epochs=1")
    monkeypatch.chdir(tmp_path)
    again = train_run(read_config(tmp_path / "run" / "config.toml"), tmp_path / "again")
    assert again.best.validation_loss == first.best.validation_loss
