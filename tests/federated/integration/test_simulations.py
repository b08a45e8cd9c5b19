"""Whole runs of simulated devices with [privacy], with [cloud] and on a Ray cluster: the same sums as by hand.

The first ones play Flower's engine in this process: a grid whose nodes answer as the app of the simulation does.
"""

import contextlib
import json
import math
import os
import secrets
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from devices import eventually
from played_grid import PlayedGrid
from tiny_bundle import CLASSES, FEATURES, write_tiny_bundle

from edgeloop.convert.convert import convert
from edgeloop.convert.options import ConvertOptions
from edgeloop.convert.training.trainable import TrainableOptions
from edgeloop.federated.network.network import Network
from edgeloop.federated.rounds.options import RoundsOptions
from edgeloop.federated.rounds.privacy.options import PrivacyMode, PrivacyOptions
from edgeloop.federated.rounds.records import read_state, read_weights
from edgeloop.federated.rounds.run_rounds import run_rounds
from edgeloop.federated.simulation.options import Partition, SimulationOptions
from edgeloop.federated.simulation.population import Population, examples_of, write_samples
from edgeloop.federated.simulation.process import SAMPLES, SETTINGS, STATE, Simulation
from edgeloop.federated.simulation.simulated import Simulated
from edgeloop.leftovers import temporary_folder
from edgeloop.processes.children import owned
from edgeloop.processes.ports import free_ports
from edgeloop.runtime.agent.trainer import Trainer
from edgeloop.runtime.device import parse_device

pytest.importorskip("flwr")

BATCH, LR, SEED, NODES, EXAMPLES = 8, 0.2, 11, 4, 60
NORM, DELTA = 0.05, 1e-3  # below the norm of every update of these devices


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle"), BATCH)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """All samples, and whose they are: device 3 has half of them."""
    x = np.random.default_rng(0).normal(size=(EXAMPLES, FEATURES)).astype("f4")
    owner = np.arange(EXAMPLES) % 6
    file = tmp_path_factory.mktemp("data") / "all.npz"
    np.savez(file, features=x, y=np.argmax(x[:, :CLASSES], axis=1), device=np.minimum(owner, NODES - 1))
    return file


@pytest.fixture
def _of_a_run(monkeypatch):
    """Flower's messages are made inside a task of a run."""
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


@dataclass
class PlayedSimulation(Simulation):
    """The server in a thread."""

    serve: threading.Thread | None = None

    def submit(self) -> None:
        super().submit()
        assert self.serve is not None
        if self.serve.ident is None:  # a run may be submitted again
            self.serve.start()


class PlayedDevices(Simulated):
    """What Flower's engine would do in a process, done in this one."""

    @contextlib.contextmanager
    def start(self, kept):
        from edgeloop.federated.rounds.server_app import serve_job
        from edgeloop.federated.simulation.client_app import answer
        from edgeloop.federated.simulation.simulated_grid import SimulatedGrid

        with temporary_folder() as name:
            work = Path(name)
            write_samples(work / SAMPLES, *self._split)
            state = str(kept or work / STATE)
            engine = PlayedGrid(dict.fromkeys(range(1, NODES + 1), lambda m: answer(name, state, m).content))
            population = Population(self.options, examples_of(work / SAMPLES))
            grid = SimulatedGrid(engine, population, self.deadline_s, workers=1)
            server = threading.Thread(target=serve_job, args=(grid, work))
            network: Network = PlayedSimulation(work, 0, (), (), {}, serve=server)
            yield network
            server.join(timeout=60)


def play(bundle, data, out, rounds=2, **privacy):
    """The records of a private simulation and the weights that it began with."""
    initial = Trainer((bundle / "trainable.tflite").read_bytes()).get_weights()
    simulation = SimulationOptions(data=str(data), nodes=NODES, partition=Partition.NATURAL, group="device")
    options = RoundsOptions(
        shards=tuple(Path(f"device {number}") for number in range(NODES)),
        out=out,
        devices=(parse_device("local"),),
        initial=initial,
        rounds=rounds,
        lr=LR,
        seed=SEED,
        privacy=PrivacyOptions(**{"clipping_norm": NORM, "delta": DELTA, **privacy}),
    )
    return run_rounds(bundle, options, simulated=PlayedDevices(simulation, 1e6)), initial


def clipped_mean(bundle, data, weights, number):
    """Weights after a round in which every device's update is scaled down to NORM and all count alike."""
    trainer, all_samples, total = Trainer((bundle / "trainable.tflite").read_bytes()), np.load(data), 0.0
    flat = lambda arrays: np.concatenate([array.ravel().astype(np.float64) for array in arrays.values()])  # noqa: E731
    for device in range(NODES):
        own = all_samples["device"] == device
        trainer.set_weights(weights)
        trainer.train(
            {"features": all_samples["features"][own]}, all_samples["y"][own], lr=LR, seed=(SEED, number, device)
        )
        change = flat(trainer.get_weights()) - flat(weights)
        assert np.linalg.norm(change) > NORM
        total += change * NORM / np.linalg.norm(change) / NODES
    parts = np.split(flat(weights) + total, np.cumsum([array.size for array in weights.values()])[:-1])
    return {
        name: part.reshape(array.shape).astype(np.float32)
        for (name, array), part in zip(weights.items(), parts, strict=True)
    }


@pytest.mark.parametrize("mode", [PrivacyMode.CENTRAL_FIXED, PrivacyMode.LOCAL])
@pytest.mark.usefixtures("_of_a_run")
def test_simulated_devices_are_private_as_real_ones(bundle, data, tmp_path, mode):
    """With next to no noise (1e-6 of the norm) the weights are those of clipped updates that all count alike."""
    records, weights = play(bundle, data, tmp_path / "out", mode=mode, noise_multiplier=1e-6)
    assert [len(record.clients) for record in records] == [NODES, NODES]
    for record in records:
        weights = clipped_mean(bundle, data, weights, record.round)
        with np.load(tmp_path / "out" / record.file) as found:
            for name, array in weights.items():
                # six standard deviations of the noise are 3e-7; each round rounds numbers below 2 a few times to 2^-24
                np.testing.assert_allclose(found[name], array, atol=3e-7 + record.round * 4 * 2**-23, err_msg=name)
    norms = [client.norm for record in records for client in record.clients]
    if mode is PrivacyMode.LOCAL:  # clipped before they were sent
        np.testing.assert_allclose(norms, NORM, rtol=1e-4)
    else:
        assert min(norms) > NORM


@pytest.mark.usefixtures("_of_a_run")
def test_a_private_simulation_ends_before_the_round_that_would_pass_its_budget(bundle, data, tmp_path):
    accounting = pytest.importorskip("dp_accounting")
    # three releases of noise 1 would be above the epsilon of two
    spent = accounting.rdp.RdpAccountant().compose(accounting.GaussianDpEvent(1.0), 2).get_epsilon(DELTA)
    fixed = {"mode": PrivacyMode.CENTRAL_FIXED, "noise_multiplier": 1.0}
    records, _ = play(bundle, data, tmp_path / "out", rounds=5, max_epsilon=spent + 0.1, **fixed)
    assert read_state(tmp_path / "out") == "privacy-budget-spent"
    assert [record.privacy.releases for record in records] == [1, 2]
    assert math.isclose(records[-1].privacy.epsilon, spent, rel_tol=0.01)  # Flower's own list of orders


def simulate(folder: Path, name: str, more: str, *arguments: object, **settings: str) -> dict:
    """What `federate simulate` prints of two rounds."""
    (folder / f"{name}.toml").write_text(
        f"[rounds]\ncount = 2\nlearning-rate = {LR}\nseed = {SEED}\n[simulation]\nnodes = {NODES}\n{more}"
    )
    words = [sys.executable, "-m", "edgeloop", "federate", "simulate", folder / f"{name}.toml", *arguments]
    command = [*map(str, words), "-o", str(folder / name), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env={**os.environ, **settings})
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@contextlib.contextmanager
def ray_cluster(folder: Path):
    """Two nodes of one CPU each on this machine: address, and the settings of whoever uses the cluster."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    names = ("dashboard-agent-grpc", "dashboard-agent-listen", "runtime-env-agent", "metrics-export", "node-manager")
    port, *ports = free_ports(1 + 2 * len(names))  # agents that choose their own are waited for, and not for long
    start = [
        str(Path(sys.executable).with_name("ray")),
        "start",
        "--num-cpus=1",
        "--node-ip-address=127.0.0.1",
        "--block",
    ]
    head = ["--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}"]
    with contextlib.ExitStack() as stack:
        for number, own in enumerate((head, [f"--address=127.0.0.1:{port}"])):
            own += [f"--{name}-port={ports.pop()}" for name in names]
            file = folder / f"{number}.log"
            log = stack.enter_context(file.open("wb"))
            stack.enter_context(owned([*start, *own], stdout=log, stderr=log, env={**os.environ, **SETTINGS, **token}))
            assert eventually(lambda file=file: b"Ray runtime started" in file.read_bytes(), 150), file.read_text()[
                -2000:
            ]
        yield f"127.0.0.1:{port}", token


@pytest.fixture
def short():
    """A folder whose path leaves room for the names of Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="e", dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.soak
def test_the_devices_of_a_simulation_are_played_by_a_ray_cluster(bundle, data, short):
    pytest.importorskip("ray")
    more = f'data = "{data}"\npartition = "natural"\ngroup = "device"\n[model]\nbundle = "{bundle}"\n'
    here = simulate(short, "here", more, TMPDIR=str(short))
    (short / "ray").mkdir()
    with ray_cluster(short / "ray") as (address, settings):
        there = simulate(short, "there", more, "--ray-address", address, TMPDIR=str(short), **settings)
    assert [record["clients"] for record in there["rounds"]] == [record["clients"] for record in here["rounds"]]
    for record in here["rounds"]:
        first, second = ((short / name / record["file"]).read_bytes() for name in ("here", "there"))
        assert first == second


@pytest.mark.soak
def test_the_rounds_of_a_private_simulation_become_releases(data, short):
    """With dropouts and slow devices; every variant of a release answers from the weights of its round."""
    pytest.importorskip("ray")
    keras = pytest.importorskip("keras")
    layers = [keras.Input((FEATURES,), name="features"), keras.layers.Dense(CLASSES, activation="softmax")]
    keras.Sequential(layers).save(short / "net.keras")
    with np.load(data) as arrays:
        np.savez(short / "test.npz", features=arrays["features"], y=arrays["y"])
    convert(short / "net.keras", short / "bundle", ConvertOptions(trainable=TrainableOptions(batch=BATCH)))
    more = f"""data = "test.npz"
partition = "dirichlet"
dropout = 0.1
slow-share = 0.25
[privacy]
mode = "central-fixed"
noise-multiplier = 1.0
clipping-norm = {NORM}
delta = {DELTA}
[model]
bundle = "bundle"
keras = "net.keras"
[cloud]
eval = "test.npz"
max-drop = 5.0
"""
    document = simulate(short, "run", more, TMPDIR=str(short))
    assert [row["outcome"] for row in document["cloud"]] == ["released", "released"]
    weights = read_weights(short / "run" / "rounds" / "round-2.npz")
    (newest,) = (short / "run" / "releases").glob("*/0003")
    released = Trainer((newest / "trainable.tflite").read_bytes()).get_weights()
    assert all(np.array_equal(released[name], array) for name, array in weights.items())
