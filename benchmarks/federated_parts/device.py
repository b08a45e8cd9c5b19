"""A device of `federate join` beside Flower's TensorFlow quickstart: processor time a round, memory, what is installed.

Both are real processes on loopback with McMahan's CNN (1,663,370 weights), 600 samples, batch 10: a round is 60 steps
of plain SGD, and the server is Flower's SuperLink with FedAvg over one device. Ours is the process of `federate join`
in the device environment. The other is Flower's SuperNode with the ClientApp that Flower's quickstart for TensorFlow
has: a new Keras model for each message, `set_weights`, `fit`, `get_weights`.

Processor time is that of all processes of the device between the ends of the first and the last round, over the rounds
between; what a process used after the last look, 0.2 s before its end at most, is missed on both sides alike. Memory is
the largest sum of PSS over the device's processes at any look. Installed is the size of all files of the packages that
each needs, `flwr` and the runtime, with what these require.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROUNDS, SAMPLES, BATCH, RATE, LOOK_S = 5, 600, 10, 0.05, 0.2
INSTALLED = """
import sys
from importlib.metadata import PackageNotFoundError, distribution
from packaging.requirements import Requirement

todo, seen, files = [(name, "") for name in sys.argv[1:]], set(), set()
while todo:
    name, extra = todo.pop()
    if (name, extra) in seen:
        continue
    seen.add((name, extra))
    try:
        found = distribution(name)
    except PackageNotFoundError:  # required elsewhere: on another system or Python
        continue
    files.update(file.locate() for file in found.files or ())
    for line in found.requires or ():
        needed = Requirement(line)
        if needed.marker is None or needed.marker.evaluate({"extra": extra}):
            todo += [(needed.name, more) for more in ("", *needed.extras)]
print(sum(file.stat().st_size for file in files if file.is_file()))
"""
APP = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "quickstart"
version = "1.0.0"
description = "Flower's quickstart for TensorFlow"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "flwrlabs"

[tool.flwr.app.components]
serverapp = "quickstart.server_app:app"
clientapp = "quickstart.client_app:app"

[tool.flwr.app.config]
rounds = {rounds}
marks = "{marks}"
"""
MODEL = """
import keras
import numpy as np


def load_model():
    layers = keras.layers
    model = keras.Sequential([
        keras.Input((28, 28, 1)),
        layers.Conv2D(32, 5, padding="same", activation="relu"), layers.MaxPooling2D(2),
        layers.Conv2D(64, 5, padding="same", activation="relu"), layers.MaxPooling2D(2),
        layers.Flatten(), layers.Dense(512, activation="relu"), layers.Dense(10, activation="softmax"),
    ])
    model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def load_data():
    rng = np.random.default_rng(0)
    return rng.random((600, 28, 28, 1), np.float32), rng.integers(0, 10, 600)
"""
CLIENT = """
import keras
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from quickstart.task import load_data, load_model

app = ClientApp()


@app.train()
def train(msg: Message, context: Context):
    keras.backend.clear_session()
    model = load_model()
    model.set_weights(msg.content["arrays"].to_numpy_ndarrays())
    x, y = load_data()
    history = model.fit(x, y, epochs=1, batch_size=10, verbose=0)
    metrics = MetricRecord({"num-examples": len(x), "train_loss": history.history["loss"][-1]})
    return Message(RecordDict({"arrays": ArrayRecord(model.get_weights()), "metrics": metrics}), reply_to=msg)
"""
SERVER = """
import time

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from quickstart.task import load_model

app = ServerApp()


class Marked(FedAvg):
    marks = ""

    def aggregate_train(self, server_round, replies):
        found = super().aggregate_train(server_round, replies)
        with open(self.marks, "a") as file:
            file.write(f"{time.time()}\\n")
        return found


@app.main()
def main(grid: Grid, context: Context) -> None:
    strategy = Marked(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
    strategy.marks = context.run_config["marks"]
    arrays = ArrayRecord(load_model().get_weights())
    strategy.start(grid=grid, initial_arrays=arrays, num_rounds=int(context.run_config["rounds"]))
"""


class Tree(threading.Thread):
    """Looks at a process and its descendants: (moment, processor seconds until then) and the largest PSS."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.used, self.peak_mb, self.ended = pid, dict[int, float](), 0.0, threading.Event()
        self.looks: list[tuple[float, float]] = []

    def run(self) -> None:
        while not self.ended.wait(LOOK_S):
            family = _family(self.pid)
            self.used.update({pid: seconds for pid in family if (seconds := _processor_s(pid)) is not None})
            self.peak_mb = max(self.peak_mb, sum(map(_pss_mb, family)))
            self.looks.append((time.time(), sum(self.used.values())))

    def used_s(self, start: float, end: float) -> float:
        """Processor seconds between two moments."""
        return self._until(end) - self._until(start)

    def _until(self, moment: float) -> float:
        return max(seconds for when, seconds in [(0.0, 0.0), *self.looks] if when <= moment)


def _family(pid: int) -> list[int]:
    found, new = [pid], [pid]
    parents = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    while new:
        new = [child for child, parent in parents.items() if parent in new]
        found += new
    return found


def _processor_s(pid: int) -> float | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / 100  # user and system time in clock ticks


def _pss_mb(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    found = re.search(r"^Pss: +(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 / 1e6 if found else 0.0


def device() -> dict[str, Any]:
    """Figures of both, and the ratios."""
    from edgeloop.leftovers import temporary_folder

    with temporary_folder() as name:
        ours, theirs = _ours(Path(name)), _quickstart(Path(name))
    ratios = {f"{key}_quickstart_over_edgeloop": theirs[key] / ours[key] for key in ours}
    setting = {"rounds": ROUNDS, "samples": SAMPLES, "batch": BATCH, "steps_per_round": SAMPLES // BATCH}
    return {
        "what": "a device of federate join beside Flower's TensorFlow quickstart, McMahan's CNN",
        **setting,
        "edgeloop": ours,
        "quickstart": theirs,
        **ratios,
    }


def _ours(folder: Path) -> dict[str, float]:
    import keras
    import numpy as np

    from edgeloop.bundle import Format, Manifest, Scheme, Signature, Variant, file_entries
    from edgeloop.cloud.train.model.built_in import mcmahan_cnn
    from edgeloop.convert.training.trainable import TrainableOptions, to_trainable
    from edgeloop.federated.network.network import network
    from edgeloop.federated.rounds.options import RoundsOptions
    from edgeloop.federated.rounds.run_rounds import run_rounds
    from edgeloop.runtime.agent.trainer import SIGNATURES
    from edgeloop.runtime.device import device_environment

    keras.utils.set_random_seed(0)
    bundle, shard, rng = folder / "bundle", folder / "shard.npz", np.random.default_rng(0)
    bundle.mkdir()
    (bundle / "trainable.tflite").write_bytes(to_trainable(mcmahan_cnn((28, 28, 1), 10), TrainableOptions(batch=BATCH)))
    entry = "trainable.tflite"
    variant = Variant("trainable", entry, (entry,), Format.TFLITE, Scheme.FLOAT32, SIGNATURES)
    empty = {name: Signature((), ()) for name in SIGNATURES}
    (bundle / "manifest.json").write_bytes(Manifest("cnn", 1, {}, file_entries(bundle), empty, (variant,)).to_bytes())
    np.savez(shard, x=rng.random((SAMPLES, 28, 28, 1), np.float32), y=rng.integers(0, 10, SAMPLES))
    options = RoundsOptions(
        shards=(shard,), out=folder / "run", devices=(device_environment(),), rounds=ROUNDS, lr=RATE, timeout_s=3000.0
    )
    marks: list[float] = []
    with network(options.devices, options.shards) as running:
        tree = Tree(running.children["device-0"].pid)
        tree.start()
        run_rounds(bundle, options, lambda record, _: marks.append(time.time()), running)
        tree.ended.set()
    return _record(tree, marks, _installed(device_environment().python, "flwr", "ai-edge-litert"))


def _quickstart(folder: Path) -> dict[str, float]:
    from edgeloop.federated.network.app import CONNECTION
    from edgeloop.federated.network.network import network
    from edgeloop.federated.network.processes import environment, home, program
    from edgeloop.processes.children import owned
    from edgeloop.processes.ports import free_ports

    marks, app = folder / "marks", folder / "app"
    (app / "quickstart").mkdir(parents=True)
    (app / "pyproject.toml").write_text(APP.format(rounds=ROUNDS, marks=marks))
    for name, text in (("__init__", ""), ("task", MODEL), ("client_app", CLIENT), ("server_app", SERVER)):
        (app / "quickstart" / f"{name}.py").write_text(text)
    here, (port,) = Path(sys.executable), free_ports(1)
    with network((), ()) as running:
        running._wait_for_superlink()
        node = [program(here, "flower-supernode"), "--insecure", "--superlink", f"127.0.0.1:{running.port}"]
        settings = environment(here, home(folder, "supernode"))
        with owned([*node, "--port", str(port)], env=settings, cwd=folder) as child:
            tree = Tree(child.pid)
            tree.start()
            running.flwr("run", str(app), CONNECTION)
            deadline = time.monotonic() + 3000
            while len(_lines(marks)) < ROUNDS and time.monotonic() < deadline:
                running.check()
                time.sleep(LOOK_S)
            tree.ended.set()
    return _record(tree, [float(line) for line in _lines(marks)], _installed(here, "flwr", "tensorflow"))


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def _record(tree: Tree, marks: list[float], installed_bytes: int) -> dict[str, float]:
    return {
        "cpu_s_per_round": tree.used_s(marks[0], marks[-1]) / (len(marks) - 1),
        "pss_peak_mb": tree.peak_mb,
        "installed_mb": installed_bytes / 1e6,
    }


def _installed(python: Path, *names: str) -> int:
    """Bytes of all files of these packages and of what they require in that environment."""
    command = [python, "-c", INSTALLED, *names]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=600).stdout)
