"""What a device keeps: models by their hash, its personal layers; and what it says of itself."""

import os
from pathlib import Path

import numpy as np
import pytest

from edgeloop.bundle import MANIFEST, SIGNATURE, FileEntry, Manifest, Weight
from edgeloop.errors import DataError, IntegrityError, ModelError, OptionsError
from edgeloop.federated.device import models
from edgeloop.federated.device.device_class import metered, power
from edgeloop.federated.device.models import MODEL, ModelStore
from edgeloop.federated.device.personal import PersonalLayers
from edgeloop.hashes import digest_of

NAMES = ("w000", "w001", "w002", "w003")


def manifest(*files: bytes, weights=()) -> Manifest:
    return Manifest(
        "m", 1, {}, {f"{n}.tflite": FileEntry(1, digest_of(f)) for n, f in enumerate(files)}, {}, (), weights
    )


def test_a_model_is_sent_once(tmp_path):
    store, sha256 = ModelStore(str(tmp_path)), digest_of(b"model")
    with pytest.raises(ModelError, match="does not hold the model"):
        store.take(sha256, {})
    assert store.take(sha256, {MODEL: b"model"}) == (b"model", None)
    assert store.take(sha256, {}) == (b"model", None)
    assert ModelStore(str(tmp_path)).hashes() == [sha256], "also after a new start"


def test_a_model_that_changed_on_the_way_or_on_the_disk_is_refused(tmp_path):
    store, sha256 = ModelStore(str(tmp_path)), digest_of(b"model")
    with pytest.raises(IntegrityError, match="arrived with sha256"):
        store.take(sha256, {MODEL: b"other"})
    assert store.hashes() == []
    store.take(sha256, {MODEL: b"model"})
    (tmp_path / sha256 / MODEL).write_bytes(b"other")
    with pytest.raises(IntegrityError):
        store.take(sha256, {})
    with pytest.raises(IntegrityError, match="is no sha256"):
        store.take("../" * 20 + "....", {})


def test_the_folder_is_bounded_and_the_oldest_goes_first(tmp_path):
    store = ModelStore(str(tmp_path))
    hashes = []
    for number in range(models.KEPT + 2):
        hashes.append(digest_of(bytes([number])))
        store.take(hashes[-1], {MODEL: bytes([number])})
        os.utime(tmp_path / hashes[-1] / MODEL, (number, number))
    assert set(store.hashes()) == set(hashes[-models.KEPT :])


def test_a_signed_manifest_has_to_list_the_model(tmp_path, monkeypatch):
    verified = []

    def played(signers, folder, data):
        verified.append((signers, Path(folder, SIGNATURE).read_bytes(), data))

    monkeypatch.setattr(models, "verify", played)
    store, sha256 = ModelStore(str(tmp_path), signers="/signers"), digest_of(b"model")
    with pytest.raises(IntegrityError, match="without a signed manifest"):
        store.take(sha256, {MODEL: b"model"})
    with pytest.raises(IntegrityError, match="does not list the model"):
        store.take(sha256, {MODEL: b"model", MANIFEST: manifest(b"another").to_bytes(), SIGNATURE: b"signed"})
    assert list(tmp_path.iterdir()) == [], "what is refused is not stored"
    good = manifest(b"another", b"model").to_bytes()
    _, found = store.take(sha256, {MODEL: b"model", MANIFEST: good, SIGNATURE: b"signed"})
    assert found.name == "m"
    assert verified[-1] == ("/signers", b"signed", good)
    store.take(sha256, {})
    assert len(verified) == 3, "what lies in the folder is verified too, each time that it is loaded"


def test_a_model_that_nobody_signed_pushes_none_out_of_the_folder(tmp_path, monkeypatch):
    def refuse(*_):
        raise IntegrityError("not signed", advice="Sign it.")

    kept = [bytes([number]) for number in range(models.KEPT)]
    for model in kept:
        ModelStore(str(tmp_path)).take(digest_of(model), {MODEL: model})
    monkeypatch.setattr(models, "verify", refuse)
    store, given = ModelStore(str(tmp_path), signers="/signers"), {MANIFEST: manifest(b"new").to_bytes()}
    with pytest.raises(IntegrityError, match="not signed"):
        store.take(digest_of(b"new"), {MODEL: b"new", SIGNATURE: b"", **given})
    assert set(store.hashes()) == {digest_of(model) for model in kept}


def test_the_head_is_the_last_layer():
    layers = PersonalLayers("", ("head",))
    paths = ("conv/kernel", "dense/kernel", "dense/recurrent", "dense/bias")
    weights = tuple(Weight(name, path, (1,), "float32", True) for name, path in zip(NAMES, paths, strict=True))
    assert layers.names(NAMES, manifest(weights=weights)) == NAMES[1:]
    assert layers.names(NAMES, None) == NAMES[2:], "without paths, a kernel and its bias"


def test_patterns_name_weights_or_the_paths_of_keras():
    weights = (Weight("w000", "conv/kernel", (1,), "float32", True), Weight("w001", "out/bias", (1,), "float32", True))
    found = manifest(weights=weights)
    assert PersonalLayers("", ("out/*",)).names(NAMES[:2], found) == ("w001",)
    assert PersonalLayers("", ("w00[01]",)).names(NAMES[:2], found) == NAMES[:2]
    with pytest.raises(OptionsError, match=r"--keep-local dense\* names no weight.*Choose head, or among: conv/kernel"):
        PersonalLayers("", ("dense*",)).names(NAMES[:2], found)


def test_personal_weights_return_for_their_own_model_alone(tmp_path):
    layers = PersonalLayers(str(tmp_path / "personal"))
    assert layers.read("m") == {}
    layers.write("m", {"w003": np.array([1.5], np.float32)})
    assert PersonalLayers(str(tmp_path / "personal")).read("m")["w003"].tolist() == [1.5]
    assert layers.read("other") == {}
    # damage was once read as "nothing stored": the next round then overwrote what the device had learned
    next((tmp_path / "personal").iterdir()).write_bytes(b"cut")
    with pytest.raises(DataError, match=r"personal weights in .*\.npz cannot be read"):
        layers.read("m")


def supply(root, name, **words):
    folder = root / "sys/class/power_supply" / name
    folder.mkdir(parents=True)
    for word, value in words.items():
        (folder / word).write_text(value + "\n")


def test_a_device_says_whether_it_runs_on_a_battery(tmp_path):
    assert power(str(tmp_path)) == {"battery": False, "on-battery": False}
    supply(tmp_path, "AC", type="Mains", online="1")
    supply(tmp_path, "hidpp_battery_0", type="Battery", status="Discharging", scope="Device")  # a mouse
    assert power(str(tmp_path)) == {"battery": False, "on-battery": False}
    supply(tmp_path, "BAT0", type="Battery", status="Charging")
    assert power(str(tmp_path)) == {"battery": True, "on-battery": False}
    supply(tmp_path, "BAT1", type="Battery", status="Discharging")
    assert power(str(tmp_path)) == {"battery": True, "on-battery": True}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("yes\n", {"metered": True}),
        ("no (guessed)\nunknown\n", {"metered": False}),
        ("no\nyes (guessed)\n", {"metered": True}),
        ("unknown\n\n", {}),
        ("", {}),
    ],
)
def test_a_metered_network_is_one_that_network_manager_calls_so(said, expected):
    assert metered(said) == expected
