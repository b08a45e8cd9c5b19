"""FedAvg on MNIST as McMahan et al. 2017 (arXiv:1602.05629, table 2) have it, on Flower's simulation engine.

100 simulated devices of 600 images each, a tenth of them in each round, five epochs of batch 10, learning rate 0.1,
McMahan's CNN: `edgeloop federate simulate` with LiteRT devices. `iid` splits at random; `shards` gives each device two
shards of 300 images sorted by label. The accuracy is that of 5,000 test images that no device has. It takes 36 CPU-s a
round: run by hand, `--only mnist`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROUNDS = {"iid": 25, "shards": 40}
TOML = """
[model]
bundle = "bundle"
[rounds]
count = {rounds}
fraction = 0.1
over-select = 1.0
epochs = 5
learning-rate = 0.1
[simulation]
data = "train"
nodes = 100
partition = "{partition}"
[evaluation]
data = "test.npz"
"""


def mnist() -> dict[str, Any]:
    """The accuracy after each round of both partitions; empty without the data."""
    from edgeloop.leftovers import temporary_folder

    if "EDGELOOP_DATA" not in os.environ:
        print("mnist is left out: EDGELOOP_DATA names no folder with data/mnist", file=sys.stderr)
        return {}
    with temporary_folder() as name:
        folder = Path(name)
        _prepare(Path(os.environ["EDGELOOP_DATA"]) / "data" / "mnist", folder)
        found = {partition: _simulate(folder, partition) for partition in ROUNDS}
    setting = {"devices": 100, "fraction": 0.1, "epochs": 5, "batch": 10, "learning_rate": 0.1}
    return {
        "what": "accuracy after each round of FedAvg on MNIST, LiteRT devices in Flower's simulation engine",
        **setting,
    } | found


def _prepare(data: Path, folder: Path) -> None:
    import keras
    import numpy as np

    from edgeloop.cloud.train.model.built_in import mcmahan_cnn
    from edgeloop.idx import read_pair

    (folder / "train").mkdir()
    for file in data.glob("train-*"):
        (folder / "train" / file.name).symlink_to(file.absolute())
    (images,) = data.glob("test-a-images*")
    x, y = read_pair(images)
    np.savez(folder / "test.npz", image=(x[..., None] / 255).astype(np.float32), y=y.astype(np.int32))
    keras.utils.set_random_seed(0)
    mcmahan_cnn((28, 28, 1), 10).save(folder / "cnn.keras")
    _edgeloop(
        "convert",
        folder / "cnn.keras",
        "-o",
        folder / "bundle",
        "--schemes",
        "float32",
        "--trainable",
        "--train-batch",
        10,
    )


def _simulate(folder: Path, partition: str) -> dict[str, Any]:
    (folder / f"{partition}.toml").write_text(TOML.format(rounds=ROUNDS[partition], partition=partition))
    started = time.monotonic()
    _edgeloop("federate", "simulate", folder / f"{partition}.toml", "-o", folder / partition)
    rounds = json.loads((folder / partition / "evaluation.json").read_bytes())["rounds"]
    return {"accuracy": [row["accuracy"] for row in rounds], "wall_s": time.monotonic() - started}


def _edgeloop(*words: Any) -> None:
    subprocess.run([sys.executable, "-m", "edgeloop", *map(str, words)], check=True)
