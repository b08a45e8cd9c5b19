"""The server of a run: Flower's ServerApp with Flower's FedAvg. It needs no TensorFlow; the parent evaluates.

It waits for job.json in its work folder. After each round it writes round-N.npz, then rounds.json, whole files each;
when it cannot go on, it writes why into failure.json. `edgeloop.federated.rounds.run_rounds` is the parent and watches.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from edgeloop.atomic import write_file
from edgeloop.errors import error_to_json
from edgeloop.federated.rounds.grid import CheckedGrid
from edgeloop.federated.rounds.records import (
    ALIVE,
    FAILURE,
    INITIAL,
    JOB,
    ROUNDS,
    RoundRecord,
    read_weights,
    rounds_bytes,
    weights_bytes,
)
from edgeloop.hashes import digest_of
from edgeloop.processes.file_lock import exclusive

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run all rounds of the job in the folder that the run's configuration names."""
    work = Path(str(context.run_config["work"]))
    with _held(work / ALIVE):
        while not (work / JOB).is_file():  # started early; ends with its parent, as Flower sees to
            time.sleep(0.1)
        try:
            _rounds(grid, json.loads((work / JOB).read_bytes()), read_weights(work / INITIAL))
        except Exception as e:  # the parent raises it; Flower's own status would not say why
            write_file(work / FAILURE, json.dumps(error_to_json(e)).encode())
            raise


def _rounds(grid: Grid, job: dict[str, Any], initial: dict[str, np.ndarray]) -> None:
    model, devices = Path(job["trainable"]).read_bytes(), job["devices"]
    checked = CheckedGrid(grid, {name: array.shape for name, array in initial.items()}, devices)
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=devices, min_available_nodes=devices)
    how = {key: job[key] for key in ("epochs", "lr", "lr_decay", "seed")}
    strategy.start(
        grid=checked,
        initial_arrays=ArrayRecord({name: Array(array) for name, array in initial.items()}),
        num_rounds=job["rounds"],
        timeout=job["round_timeout_s"],
        train_config=ConfigRecord({"model": model, "sha256": digest_of(model), **how}),
        evaluate_fn=_journal(checked, Path(job["out"])),
    )


def _journal(grid: CheckedGrid, out: Path) -> Callable[[int, ArrayRecord], None]:
    """What Flower calls with the average of every round, and as round 0 with the initial weights."""
    done: list[RoundRecord] = []

    def commit(number: int, arrays: ArrayRecord) -> None:
        if number == 0:
            return
        done.append(RoundRecord(number, f"round-{number}.npz", grid.clients))
        write_file(out / done[-1].file, weights_bytes({name: array.numpy() for name, array in arrays.items()}))
        write_file(out / ROUNDS, rounds_bytes(done))

    return commit


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold a lock for as long as this process lives: the parent sees its end at once, even after SIGKILL."""
    with exclusive(path, timeout_s=10):
        path.write_text("started")
        yield
