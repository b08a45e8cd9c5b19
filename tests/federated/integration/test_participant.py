"""What a device answers, computed by hand beside it: personal layers, evaluation, and a model that is sent once."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgeloop.bundle import MANIFEST, Format, Manifest, Scheme, Signature, Variant, Weight, file_entries, read_bundle
from edgeloop.federated.network.model_record import model_record
from edgeloop.federated.rounds.trained_bundle import with_weights
from edgeloop.hashes import digest_of
from edgeloop.registry.signatures.sign import sign_bundle
from edgeloop.runtime.agent.trainer import SIGNATURES, Trainer

pytest.importorskip("flwr")
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from edgeloop.federated.device.compression.codec import decode
from edgeloop.federated.device.options import DeviceOptions
from edgeloop.federated.device.participant import Participant

BATCH, COUNT = 4, 6  # the last batch is half full
X = np.random.default_rng(3).normal(size=(COUNT, 5)).astype("f4")
Y = np.array([0, 1, 2, 0, 1, 2])
HEAD = ("w002", "w003")
NAMES = ("w000", "w001", *HEAD)


@pytest.fixture(scope="module")
def model() -> bytes:
    keras = pytest.importorskip("keras")
    from edgeloop.convert.training.trainable import TrainableOptions, to_trainable

    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(4, activation="relu"), keras.layers.Dense(3)]
    return to_trainable(keras.Sequential([keras.Input((5,), name="features"), *layers]), TrainableOptions(batch=BATCH))


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Ask a device of its own folder; the reply's content."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    np.savez(tmp_path / "d.npz", x=X, y=Y)

    def asked(kind, weights=None, keep_local=(), participant=None, given=(), **config):
        state = str(tmp_path / "state")
        options = DeviceOptions(str(tmp_path / "d.npz"), state, 5, keep_local, **dict(given))
        content = RecordDict({"config": ConfigRecord({"lr": 0.1, "epochs": 2, "seed": 0, "server-round": 1, **config})})
        if weights is not None:
            content["arrays"] = ArrayRecord({name: Array(array) for name, array in weights.items()})
        message = Message(content, dst_node_id=1, message_type=kind)
        message.metadata.__dict__["_message_id"] = "1"
        return (participant or Participant(options, print)).answer(message).content

    return asked


def arrays(content) -> dict[str, np.ndarray]:
    return {name: array.numpy() for name, array in content["arrays"].items()}


def losses(weights) -> tuple[float, float]:
    """Mean cross entropy and accuracy of the net, by hand."""
    w = {name: array.astype(np.float64) for name, array in weights.items()}
    z = np.maximum(X @ w["w000"] + w["w001"], 0) @ w["w002"] + w["w003"]
    shares = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    return float(-np.log(shares[np.arange(COUNT), Y]).mean()), float((z.argmax(axis=1) == Y).mean())


def test_evaluation_counts_each_sample_once(ask, model):
    weights = Trainer(model).get_weights()
    metrics = dict(ask("evaluate", weights, model=model, sha256=digest_of(model))["metrics"])
    loss, accuracy = losses(weights)
    # four float32 sums of at most 32 numbers below 8: 32 * 8 * 2**-24 = 1.6e-5
    assert metrics["loss"] == pytest.approx(loss, abs=2e-5) and metrics["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert (metrics["num-examples"], metrics["device"]) == (COUNT, 5)


def correct(weights) -> list[int]:
    """How many labels of each class the net gets right, by hand."""
    z = np.maximum(X @ weights["w000"] + weights["w001"], 0) @ weights["w002"] + weights["w003"]
    return [int(((z.argmax(axis=1) == Y) & (k == Y)).sum()) for k in range(3)]


def test_a_device_tells_counts_by_class_of_the_weights_that_it_was_sent(ask, model):
    """Also those of its own head, once it has one; nothing where nobody asks, or its owner does not want it."""
    given, how = Trainer(model).get_weights(), {"model": model, "sha256": digest_of(model), "statistics": "evaluation"}
    told = dict(ask("train", given, **how)["statistics"])
    assert told == {"examples-by-class": [2, 2, 2], "correct-by-class": correct(given)}
    fast = {**how, "lr": 3.0}
    head = {name: array for name, array in arrays(ask("train", given, **fast)).items() if name in HEAD}
    ask("train", given, ("head",), **fast)
    told = dict(ask("train", given, ("head",), **{**how, "server-round": 2})["statistics"])
    assert told["correct-by-class"] == correct(given)
    assert told["personal-correct-by-class"] == correct({**given, **head})
    assert correct({**given, **head}) != correct(given), "the two say different things here"
    counts = dict(ask("train", given, **{**how, "statistics": "examples"})["statistics"])
    assert counts == {"examples-by-class": [2, 2, 2]}
    for silent in ({"statistics": "none"}, {"statistics": "a word of tomorrow"}, {"given": {"no_statistics": True}}):
        assert "statistics" not in ask("train", given, **{**how, **silent})


def test_what_a_device_tells_changes_no_bit_of_its_training(ask, model):
    given, how = Trainer(model).get_weights(), {"model": model, "sha256": digest_of(model)}
    with_it, without = (arrays(ask("train", given, **how, **more)) for more in ({"statistics": "evaluation"}, {}))
    assert all(with_it[name].tobytes() == without[name].tobytes() for name in given)


def test_a_personal_head_stays_on_the_device_and_returns_in_the_next_round(ask, model):
    trainer = Trainer(model)
    given, how = trainer.get_weights(), {"sha256": digest_of(model)}
    first = arrays(ask("train", given, ("head",), model=model, **how))
    trainer.set_weights(given)
    trainer.train({"features": X}, Y, epochs=2, lr=0.1, seed=(0, 1, 5))
    trained = trainer.get_weights()
    for name in given:  # the server sees its own head, and the body as it was trained
        np.testing.assert_array_equal(first[name], (given if name in HEAD else trained)[name], err_msg=name)
    moved = {name: array + np.float32(0.01) for name, array in given.items()}  # what other devices made of it
    second = arrays(ask("train", moved, ("head",), **how))
    own = {**moved, **{name: trained[name] for name in HEAD}}
    trainer.set_weights(own)
    trainer.train({"features": X}, Y, epochs=2, lr=0.1, seed=(0, 1, 5))
    for name, array in trainer.get_weights().items():
        np.testing.assert_array_equal(second[name], moved[name] if name in HEAD else array, err_msg=name)
    metrics = dict(ask("evaluate", moved, ("head",), **how)["metrics"])
    personal = {**moved, **{name: trainer.get_weights()[name] for name in HEAD}}
    assert metrics["loss"] == pytest.approx(losses(moved)[0], abs=2e-5)
    assert metrics["personal-loss"] == pytest.approx(losses(personal)[0], abs=2e-5)


def test_a_compressed_reply_is_what_the_training_added(ask, model):
    weights, how = Trainer(model).get_weights(), {"model": model, "sha256": digest_of(model)}
    plain = arrays(ask("train", weights, **how))
    asked = {"compression": "top-k", "share": 1.0, "base": "b", "run-id": "r"}
    update = dict(ask("train", weights, **how, **asked)["update"])
    assert update.pop("base") == "b"
    row = decode(update, [weights[name].size for name in NAMES], 1.0)
    np.testing.assert_array_equal(row, np.concatenate([(plain[name] - weights[name]).ravel() for name in NAMES]))
    update = dict(ask("train", weights, ("head",), **how, **{**asked, "server-round": 2})["update"])
    del update["base"]
    row = decode(update, [weights[name].size for name in NAMES], 1.0)
    assert row.any() and not row[-15:].any(), "a head of 4 x 3 and 3 values stays there"


def test_a_reply_with_weights_as_they_are_names_those_that_it_was_trained_from(ask, model):
    weights, how = Trainer(model).get_weights(), {"model": model, "sha256": digest_of(model)}
    assert dict(ask("train", weights, **how, base="b")["trained-from"]) == {"base": "b"}
    assert sorted(ask("train", weights, **how)) == ["arrays", "metrics"], "a server that does not ask, such as Flower's"


def test_a_device_that_is_asked_for_local_noise_sends_no_update_without_it(ask, model):
    given, how = Trainer(model).get_weights(), {"model": model, "sha256": digest_of(model)}
    sent = {}
    for noise in (1e-9, 2.0):
        sent[noise] = arrays(ask("train", given, **{**how, "clipping-norm": 0.01, "noise-multiplier": noise}))
    changes = {noise: np.concatenate([(sent[noise][name] - given[name]).ravel() for name in given]) for noise in sent}
    size = changes[2.0].size
    # clipped to 0.01; each weight below 2 is then rounded to 2^-24
    assert np.linalg.norm(changes[1e-9]) == pytest.approx(0.01, abs=2**-24 * np.sqrt(size))
    # deviation 2 * 0.01 of each of the 39 weights: the norm is sqrt(39) * 0.02, off by a tenth in one deviation
    assert np.linalg.norm(changes[2.0]) == pytest.approx(0.02 * np.sqrt(size), rel=0.5)
    kept = arrays(ask("train", given, ("head",), **{**how, "clipping-norm": 0.01, "noise-multiplier": 2.0}))
    for name in given:  # a head that stays here gives the server nothing, so it gets no noise either
        assert np.array_equal(kept[name], given[name]) == (name in HEAD), name


def test_a_device_sends_weights_that_no_step_moves_as_they_came(ask, model, tmp_path):
    """Here a frozen bias; statistics of a batch norm are such weights, and noise makes a variance negative."""
    weights = Trainer(model).get_weights()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "trainable.tflite").write_bytes(model)
    listed = tuple(Weight(name, name, array.shape, "float32", name != "w001") for name, array in weights.items())
    entry = "trainable.tflite"
    variant = Variant("trainable", entry, (entry,), Format.TFLITE, Scheme.FLOAT32, SIGNATURES)
    names = {name: Signature((), ()) for name in SIGNATURES}
    manifest = Manifest("tiny", 1, {}, file_entries(tmp_path / "b"), names, (variant,), listed)
    how = {"model": model, "sha256": digest_of(model), "manifest": manifest.to_bytes()}
    sent = arrays(ask("train", weights, **how, **{"clipping-norm": 0.01, "noise-multiplier": 2.0}))
    assert [name for name in NAMES if np.array_equal(sent[name], weights[name])] == ["w001"]


def test_a_model_that_was_not_sent_and_is_not_there_is_asked_for_by_its_hash(ask, model):
    weights, sha256 = Trainer(model).get_weights(), digest_of(model)
    error = dict(ask("train", weights, sha256=sha256)["error"])
    assert error["lacks"] == sha256 and json.loads(error["error"])["type"] == "ModelError"
    assert list(dict(ask("query")["device"])["models"]) == []
    assert "arrays" in ask("train", weights, model=model, sha256=sha256)
    assert list(dict(ask("query")["device"])["models"]) == [sha256]
    assert "arrays" in ask("train", weights, sha256=sha256), "by a device that was started anew"


def test_a_device_tells_its_class_and_nothing_of_its_data(ask):
    told = dict(ask("query")["device"])
    assert set(told) <= {
        "machine",
        "cores",
        "runtime",
        "ram-bytes",
        "battery",
        "on-battery",
        "models",
        "codecs",
        "device",
    }
    assert list(told["codecs"]) == ["int8", "top-k", "top-k-int8"]
    assert told["cores"] >= 1 and told["runtime"] in {"litert", "tflite-runtime"} and told["device"] == "5"


def test_data_that_do_not_fit_the_model_are_named_to_the_owner_alone(ask, model, tmp_path):
    np.savez(tmp_path / "d.npz", x=X[:, :4], y=Y)
    weights, how = Trainer(model).get_weights(), {"model": model, "sha256": digest_of(model)}
    heard = []
    participant = Participant(DeviceOptions(str(tmp_path / "d.npz"), str(tmp_path / "state"), 5), heard.append)
    for _ in range(2):  # the same again is not said again
        error = dict(ask("train", weights, participant=participant, **how)["error"])
    said = json.loads(error["error"])
    assert (said["type"], said["exit_code"], "lacks" in error) == ("DataError", 10, False)
    assert str(tmp_path) not in str(error) and "shape" not in str(error), "the text stays on the device"
    detail = f"{tmp_path}/d.npz: features has samples of shape [4]"
    assert len(heard) == 1 and heard[0].startswith(f"train failed: {detail}")
    told = json.loads(dict(ask("train", weights, given={"tell_details": True}, **how)["error"])["error"])
    assert detail in told["found"], "a server on the same machine hears it"


@pytest.fixture
def signed(model, tmp_path):
    """`signed(name)`: a bundle that the key of that name signed; `tmp_path`/signers lists `owner` alone."""

    def made(name: str) -> Path:
        folder, key = tmp_path / f"bundle-{name}", tmp_path / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True, timeout=60)
        folder.mkdir()
        (folder / "trainable.tflite").write_bytes(model)
        names = {name: Signature((), ()) for name in SIGNATURES}
        entry = "trainable.tflite"
        variant = Variant("trainable", entry, (entry,), Format.TFLITE, Scheme.FLOAT32, SIGNATURES)
        manifest = Manifest("tiny", 1, {}, file_entries(folder), names, (variant,))
        (folder / MANIFEST).write_bytes(manifest.to_bytes())
        sign_bundle(read_bundle(folder), key)
        return folder

    owner = made("owner")
    (tmp_path / "signers").write_text(f'owner namespaces="edgeloop-bundle" {(tmp_path / "owner.pub").read_text()}')
    return lambda name: owner if name == "owner" else made(name)


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen: install openssh-client")
def test_a_device_with_signers_trains_what_one_of_them_signed_and_nothing_else(ask, model, signed, tmp_path):
    """From the bundle as its owner signed it, by the message of a server, to OpenSSH on the device."""
    weights, heard = Trainer(model).get_weights(), []
    options = DeviceOptions(str(tmp_path / "d.npz"), str(tmp_path / "state"), signers=str(tmp_path / "signers"))
    device = Participant(options, heard.append)
    sent = model_record(signed("owner") / "trainable.tflite")
    other = bytes(with_weights(model, {name: array + 1 for name, array in weights.items()}))
    strange = model_record(signed("stranger") / "trainable.tflite")
    refused = {
        "does not list the model": {"model": other, "sha256": digest_of(other)},
        "is not a valid signature": {"manifest": sent["manifest"].replace(b'"version":1', b'"version":2')},
        "not by a known signer": strange,
        "it is not signed": {"signature": None},
        "without a signed manifest": {"manifest": None, "signature": None},
    }
    for says, changed in refused.items():
        kept = {**sent, **changed}
        reply = ask("train", weights, participant=device, **{k: v for k, v in kept.items() if v is not None})
        assert json.loads(dict(reply["error"])["error"])["exit_code"] == 9, says
        assert says in heard[-1]
    assert set(ask("train", weights, participant=device, **sent)) == {"arrays", "metrics"}
