"""What counts as a reply, what a run needs, and how a path reaches Flower. No Flower is loaded here."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from edgeloop.bundle import Manifest
from edgeloop.errors import ModelError, OptionsError
from edgeloop.federated.network import processes
from edgeloop.federated.network.app import write_app
from edgeloop.federated.rounds.options import RoundsOptions
from edgeloop.federated.rounds.records import (
    ROUNDS,
    ClientRecord,
    RoundRecord,
    read_rounds,
    read_weights,
    rounds_bytes,
    weights_bytes,
)
from edgeloop.federated.rounds.run_rounds import run_rounds
from edgeloop.federated.rounds.strategies import StrategyName, StrategyOptions
from edgeloop.runtime.device import Device, parse_device
from edgeloop.toml_value import toml_value

PROX = StrategyOptions(name=StrategyName.FED_PROX, proximal_mu=1.0)
ARRAYS = {"w000": np.ones((2, 2), np.float32), "w001": np.zeros(2, np.float32)}


def test_the_loss_of_a_round_weighs_devices_by_their_examples():
    record = RoundRecord(1, "round-1.npz", (ClientRecord(0, 1, 4.0, 0.1), ClientRecord(1, 3, 2.0, 0.1)))
    assert record.examples == 4
    assert record.train_loss == 2.5  # (1 * 4 + 3 * 2) / 4


def test_rounds_and_weights_survive_their_files(tmp_path):
    rounds = tuple(RoundRecord(n, f"round-{n}.npz", (ClientRecord(0, n, 4.0, 0.1),)) for n in (1, 2))
    (tmp_path / ROUNDS).write_bytes(rounds_bytes(rounds))
    (tmp_path / "round-1.npz").write_bytes(weights_bytes(ARRAYS))
    assert read_rounds(tmp_path) == rounds
    assert all(np.array_equal(array, ARRAYS[name]) for name, array in read_weights(tmp_path / "round-1.npz").items())
    assert read_rounds(tmp_path / "nowhere") == ()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"from_round": 2}, "--from-round goes back in a run that exists. Add --resume"),
        ({"from_round": 0, "resume": True}, "--from-round is 0. It must be 1 or more"),
        (
            {"from_round": 2, "resume": True, "strategy": StrategyOptions(name=StrategyName.SCAFFOLD)},
            "devices of scaffold keep",
        ),
    ],
)
def test_a_run_that_cannot_go_back_is_refused(more, said):
    with pytest.raises(OptionsError, match=said):
        RoundsOptions(shards=(Path("a.npz"),), out=Path("out"), **more)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"")
    return {
        "initial": ARRAYS,
        "shards": (tmp_path / "a.npz",),
        "devices": (Device("local", Path("python")),),
        "out": tmp_path / "out",
    }


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        ({"rounds": 0}, OptionsError, "--rounds is 0"),
        ({"epochs": 0}, OptionsError, "--epochs is 0"),
        ({"shards": ()}, OptionsError, "number of shards is 0"),
        ({"initial": {}}, OptionsError, "number of initial weights is 0"),
        ({"lr": 0.0}, OptionsError, "--lr is 0"),
        ({"lr": float("inf")}, OptionsError, "--lr is inf"),
        ({"timeout_s": -1.0}, OptionsError, "timeout_s is -1"),
        ({"seed": -1}, OptionsError, "--seed is -1"),
        ({"devices": (parse_device("ssh://pi@camera"),)}, OptionsError, "ssh://pi@camera is another machine"),
        ({"fraction": 0.0}, OptionsError, "fraction is 0"),
        ({"quorum": 1.5}, OptionsError, "quorum is 1.5"),
        ({"over_select": 0.5}, OptionsError, "over-select is 0.5"),
        ({"attempts": 0}, OptionsError, "attempts is 0"),
        ({"max_memory_mb": 0.0}, OptionsError, "max-memory-mb is 0"),
        (
            {"lr_decay": 2.0, "lr": 0.5, "strategy": PROX},
            OptionsError,
            "learning-rate 2 in round 3 times proximal-mu 1 is",
        ),
        ({"lr_decay": 2.0, "rounds": 2000, "strategy": PROX}, OptionsError, "learning-rate inf in round 2000 times"),
    ],
)
def test_options_that_cannot_be_are_refused(files, wrong, error, says):
    RoundsOptions(**files)
    with pytest.raises(error, match=says):
        RoundsOptions(**{**files, **wrong})


def test_shards_run_in_the_environments_by_turns(monkeypatch):
    monkeypatch.setattr(processes, "program", lambda python, name: name)  # Flower itself may not be here
    devices = [Device(name, Path(name, "python")) for name in ("a", "b")]
    found = processes.commands(devices, [Path(f"{k}.npz") for k in range(3)], 1, Path("work"))
    assert [str(found[f"device-{k}"][0]) for k in range(3)] == ["a/python", "b/python", "a/python"]


def test_a_bundle_that_devices_cannot_train_is_refused_before_anything_starts(files, tmp_path):
    manifest = Manifest("m", 1, {}, {}, {}, ())
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "manifest.json").write_bytes(manifest.to_bytes())
    with pytest.raises(ModelError, match=r"has no trainable variant\. Run: edgeloop convert MODEL --trainable"):
        run_rounds(tmp_path / "b", RoundsOptions(**files))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "path", ["/data/a.npz", "/my data/b.npz", '/o"dd/c.npz', "/o'dd/d.npz", "/back\\slash\\", "/é/日本"]
)
def test_any_path_reaches_flower_unchanged(path):
    config = f"device=0 shard={toml_value(path)}"
    # the pattern of flwr.common.config.parse_config_args (1.41), which is stricter than TOML
    pairs = re.findall(r"(\S+?)=(\'[^\']*\'|\"[^\"]*\"|\S+)", config)
    assert tomllib.loads("\n".join(f"{key} = {value}" for key, value in pairs)) == {"device": 0, "shard": path}


def test_the_flower_app_names_its_work_folder_and_carries_no_code(tmp_path):
    work = tmp_path / 'a "work" folder'
    work.mkdir()
    app = write_app(work)
    assert [path.name for path in app.iterdir()] == ["pyproject.toml"]
    assert tomllib.loads((app / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"] == {"work": str(work)}
