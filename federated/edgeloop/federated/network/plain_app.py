"""A Flower app as anybody would write it, over a trainable bundle: for `flwr run`, and to be changed."""

from __future__ import annotations

import re
from pathlib import Path

from edgeloop.atomic import new_folder
from edgeloop.bundle import TRAINABLE, read_bundle
from edgeloop.errors import ModelError, OptionsError
from edgeloop.federated.network.app import HEAD
from edgeloop.toml_value import toml_value

APP = """
[tool.hatch.build.targets.wheel]
packages = ["app"]

[tool.flwr.app]
publisher = "you"

[tool.flwr.app.components]
serverapp = "app.server_app:app"
clientapp = "app.client_app:app"

[tool.flwr.app.config]
model = {model}
rounds = 3
epochs = 1
learning-rate = 0.05
min-devices = 2
"""

CLIENT = '''\
"""The device: one round of training on its own data, which the node's configuration names: data="FILE" device=0."""

from edgeloop.federated.device import client_app

app = client_app.app
'''

SERVER = '''\
"""The server: Flower's FedAvg over the weights of a trainable .tflite."""

from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from edgeloop.federated.network.model_record import model_record
from edgeloop.runtime.agent.trainer import Trainer

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """All rounds; the weights of the last one are written to weights.npz."""
    config = context.run_config
    model = model_record(Path(config["model"]))
    weights = Trainer(model["model"]).get_weights()
    devices = config["min-devices"]
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=devices, min_available_nodes=devices)
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord({name: Array(array) for name, array in weights.items()}),
        num_rounds=config["rounds"],
        train_config=ConfigRecord(
            {**model, "epochs": config["epochs"], "lr": config["learning-rate"], "seed": 0}
        ),
    )
    np.savez("weights.npz", **{name: array.numpy() for name, array in result.arrays.items()})
'''


def write_plain_app(folder: Path, bundle: Path) -> tuple[Path, ...]:
    """Write the app; returns its files.

    Raises:
        OptionsError: The folder is there already, or its name holds no letter.
        ModelError, IntegrityError: No bundle, or none that devices can train.
        WriteError: It cannot be written.
    """
    if folder.exists():
        raise OptionsError(f"{folder} exists", advice="Name a new folder.")
    name = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")
    if not name:
        raise OptionsError(f"{folder} holds no letter that a package's name can have", advice="Name it otherwise.")
    read = read_bundle(bundle)
    if TRAINABLE not in [variant.id for variant in read.variants]:
        raise ModelError(
            f"{bundle} has no {TRAINABLE} variant", advice=f"Run: edgeloop convert MODEL --trainable -o {bundle}"
        )
    model = read.file(read.variant(TRAINABLE).entry).resolve()
    files = {
        "pyproject.toml": HEAD.format(name=name, dependencies='"edgeloop[federated]"')
        + APP.format(model=toml_value(str(model))),
        "app/__init__.py": "",
        "app/client_app.py": CLIENT,
        "app/server_app.py": SERVER,
    }
    with new_folder(folder) as unfinished:
        (unfinished / "app").mkdir()
        for path, text in files.items():
            (unfinished / path).write_text(text)
    return tuple(folder / path for path in files)
