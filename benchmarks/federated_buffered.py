"""Rounds that wait for nobody (FedBuff) against synchronous ones, with a fifth of the nodes ten times slower.

    python benchmarks/federated_buffered.py [SEEDS]      writes benchmarks/results.json; left out without $EDGELOOP_DATA

TIME IS SIMULATED: a training takes 1 s, or 10 s on a slow node, times a factor of 0.8 to 1.2 of the node's own, and
messages take none. The training itself is real: 100 nodes with 600 images of MNIST each, of two digits as a rule (two
shards of the sorted images), one epoch of SGD on a network of 784-32-10 units, in NumPy. Servers are the ones of
edgeloop, on Flower's messages:

    synchronous      a round asks 20 nodes and waits for all of them
    over-selecting   a round asks 26 and ends with the first 20; the work of the others is lost
    buffered         20 nodes train at the same time, 10 updates make a new version, who is free gets the newest one

The figure is the simulated time until the mean accuracy on the test images over three versions reaches 90%, and its
ratio to buffered rounds with the same seed. All use the same learning rate. About 25 s of CPU a seed.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.federated.simulation.options import SimulationOptions
from edgeloop.federated.simulation.population import Population
from edgeloop.idx import read_idx

RESULTS = Path(__file__).with_name("results.json")
SEEDS, NODES, EACH, SLOW, FACTOR = 3, 100, 600, 20, 10.0
AT_ONCE, OVER_SELECT, BUFFER = 20, 1.3, 10
HIDDEN, BATCH, TARGET, MOST = 32, 20, 0.90, 300
KINDS, RATE = ("synchronous", "over-selecting", "buffered"), 0.1
NAMES = ("w000", "w001", "w002", "w003")


class ReachedError(Exception):
    """The accuracy is there."""


def mnist() -> tuple[np.ndarray, ...]:
    folder = Path(os.environ["EDGELOOP_DATA"]) / "data" / "mnist"
    x, y, test_x, test_y = (
        read_idx(folder / f"{part}-{kind}-ubyte.gz", dimensions)
        for part in ("train", "test-a")
        for kind, dimensions in (("images-idx3", 3), ("labels-idx1", 1))
    )
    flat = [images.reshape(len(images), -1).astype(np.float32) / 255 for images in (x, test_x)]
    return flat[0], y.astype(np.int64), flat[1], test_y.astype(np.int64)


def forward(w: dict[str, np.ndarray], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    hidden = np.maximum(x @ w["w000"] + w["w001"], 0)
    return hidden, hidden @ w["w002"] + w["w003"]


def trained(w: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray, rate: float, rng: np.random.Generator) -> float:
    """One epoch of SGD in place; the mean loss."""
    losses = []
    order = rng.permutation(len(x))
    for start in range(0, len(x), BATCH):
        some = order[start : start + BATCH]
        hidden, logits = forward(w, x[some])
        logits -= logits.max(axis=1, keepdims=True)
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        losses.append(float(-np.log(shares[np.arange(len(some)), y[some]] + 1e-30).mean()))
        shares[np.arange(len(some)), y[some]] -= 1
        error = (rate / len(some)) * shares
        back = (error @ w["w002"].T) * (hidden > 0)
        for name, step in zip(NAMES, (x[some].T @ back, back.sum(0), hidden.T @ error, error.sum(0)), strict=True):
            w[name] -= step
    return float(np.mean(losses))


class Engine:
    """Where the trainings take place: node n has part n - 1 of the images. Flower's Grid, as SimulatedGrid needs it."""

    def __init__(self, parts: list[tuple[np.ndarray, np.ndarray]]) -> None:
        self.parts, self._count = parts, 0
        self._waiting: dict[str, Any] = {}

    def get_node_ids(self) -> list[int]:
        return list(range(1, len(self.parts) + 1))

    def push_messages(self, messages: Any) -> list[str]:
        ids = []
        for message in messages:
            self._count += 1
            ids.append(str(self._count))
            message.metadata.__dict__["_message_id"] = ids[-1]
            self._waiting[ids[-1]] = message
        return ids

    def pull_messages(self, ids: Any) -> list[Any]:
        return [self._answer(self._waiting.pop(id)) for id in ids if id in self._waiting]

    def _answer(self, message: Any) -> Any:
        from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict

        config, device = message.content["config"], message.metadata.dst_node_id - 1
        x, y = self.parts[device]
        w = {name: array.numpy().copy() for name, array in message.content["arrays"].items()}
        rng = np.random.default_rng((config["seed"], config["server-round"], device))
        loss = trained(w, x, y, config["lr"], rng)
        metrics = {"num-examples": len(x), "train_loss": loss, "seconds": 0.0, "device": device}
        arrays = ArrayRecord({name: Array(array) for name, array in w.items()})
        return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord(metrics)}), reply_to=message)


def two_shards(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """McMahan et al. 2017: images sorted by digit, 200 shards of 300, two for each node."""
    shards = np.array_split(np.argsort(y, kind="stable"), 2 * NODES)
    order = rng.permutation(2 * NODES)
    held = [np.concatenate([shards[a], shards[b]]) for a, b in order.reshape(NODES, 2)]
    return [(x[part], y[part]) for part in held]


def run(kind: str, seed: int, data: tuple[np.ndarray, ...]) -> dict[str, float]:
    """One server until the target: simulated seconds, versions, trainings that were begun."""
    from edgeloop.federated.rounds.buffered.buffered_loop import BufferedLoop
    from edgeloop.federated.rounds.buffered.options import BufferedOptions
    from edgeloop.federated.rounds.quorum_options import QuorumOptions
    from edgeloop.federated.rounds.round_loop import LoopOptions, RoundLoop
    from edgeloop.federated.simulation.simulated_grid import SimulatedGrid

    x, y, test_x, test_y = data
    rng = np.random.default_rng(seed)
    engine = Engine(two_shards(x, y, rng))
    settings = SimulationOptions(
        data="mnist", nodes=NODES, slow_share=SLOW / NODES, slow_factor=FACTOR, examples_per_s=EACH, seed=seed
    )
    population = Population(settings, EACH * rng.uniform(0.8, 1.2, NODES))  # of one second, give or take a fifth
    shapes = ((784, HIDDEN), (HIDDEN,), (HIDDEN, 10), (10,))
    initial = {
        name: (rng.normal(0, np.sqrt(2 / shape[0]), shape) if len(shape) == 2 else np.zeros(shape)).astype(np.float32)
        for name, shape in zip(NAMES, shapes, strict=True)
    }
    base: Any = BufferedLoop if kind == "buffered" else RoundLoop
    seen: list[float] = []
    begun: list[int] = []

    class Measured(base):
        def _messages(self, *given: Any, **more: Any) -> list[Any]:
            messages: list[Any] = super()._messages(*given, **more)
            begun.append(len(messages))
            return messages

        def _step(self, number: int, replies: list[Any]) -> None:
            super()._step(number, replies)
            seen.append(float((forward(self.weights, test_x)[1].argmax(axis=1) == test_y).mean()))
            if np.mean(seen[-3:]) >= TARGET and len(seen) >= 3:
                raise ReachedError

    deadline_s = None if kind == "buffered" else 10 * FACTOR  # nobody is that slow
    grid = SimulatedGrid(engine, population, deadline_s, workers=1)
    options = LoopOptions(
        rounds=MOST,
        devices=NODES,
        seed=seed,
        learning_rate=RATE,
        quorum=QuorumOptions(
            fraction=AT_ONCE / NODES, over_select=OVER_SELECT if kind == "over-selecting" else 1.0, deadline_s=600.0
        ),
        buffered=BufferedOptions(size=BUFFER, concurrency=AT_ONCE) if kind == "buffered" else None,
    )
    with tempfile.TemporaryDirectory() as out:
        try:
            Measured(grid, options, Path(out), initial).run()
            print(f"{kind} {seed}: not reached; best {max(seen):.4f}", file=sys.stderr)
        except ReachedError:
            pass
    return {"simulated_s": grid.now, "versions": len(seen), "trainings": float(sum(begun))}


def main() -> None:
    if "EDGELOOP_DATA" not in os.environ:
        print("federated_buffered is left out: EDGELOOP_DATA names no folder with data/mnist", file=sys.stderr)
        return
    from importlib.metadata import version

    from flwr.supercore.task_identity import TaskIdentity

    for name in ("_task_id", "_run_id", "_node_id"):
        setattr(TaskIdentity, name, 1)
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    seeds, data = int(sys.argv[1]) if sys.argv[1:] else SEEDS, mnist()
    runs = {kind: [run(kind, seed, data) for seed in range(seeds)] for kind in KINDS}
    found: dict[str, Any] = {"target": TARGET, "seeds": seeds, "nodes": NODES, "slow_nodes": SLOW, "factor": FACTOR}
    for kind, each in runs.items():
        key = kind.replace("-", "_")
        for what in ("simulated_s", "versions", "trainings"):
            found[f"{key}_{what}_p50"] = float(np.median([one[what] for one in each]))
        if kind == "buffered":
            continue
        ratios = [one["simulated_s"] / b["simulated_s"] for one, b in zip(each, runs["buffered"], strict=True)]
        found[f"{key}_over_buffered_simulated_s"] = [round(ratio, 3) for ratio in ratios]
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    results["federated_buffered"] = {
        "what": "simulated time to a test accuracy on MNIST in two shards: synchronous rounds over buffered ones",
        "host": {"machine": platform.machine(), "python": platform.python_version(), "flwr": version("flwr")},
        "time_to_target": found,
    }
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    json.dump(results["federated_buffered"], sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
