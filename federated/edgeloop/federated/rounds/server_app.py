"""The server of a run as Flower's ServerApp. It needs no TensorFlow; the parent evaluates.

It waits for job.json in its work folder. The run's own folder gets the journal, each round's weights and rounds.json;
when the server cannot go on, it writes why into failure.json. `edgeloop.federated.rounds.run_rounds` is the parent.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from edgeloop import settings
from edgeloop.atomic import write_file
from edgeloop.errors import error_to_json
from edgeloop.federated.network.model_record import model_record
from edgeloop.federated.rounds.buffered.buffered_loop import BufferedLoop
from edgeloop.federated.rounds.buffered.options import BufferedOptions
from edgeloop.federated.rounds.compression_options import CompressionOptions
from edgeloop.federated.rounds.guard.options import GuardOptions
from edgeloop.federated.rounds.journal.options import JournalOptions
from edgeloop.federated.rounds.negotiation.selection_options import SelectionOptions
from edgeloop.federated.rounds.privacy.options import PrivacyOptions
from edgeloop.federated.rounds.quorum_options import QuorumOptions
from edgeloop.federated.rounds.records import ALIVE, FAILURE, INITIAL, JOB, read_weights
from edgeloop.federated.rounds.round_loop import LoopOptions, RoundLoop
from edgeloop.federated.rounds.run_folder import server_lock
from edgeloop.federated.rounds.statistics.options import StatisticsOptions
from edgeloop.federated.rounds.statistics.told import Labels
from edgeloop.federated.rounds.strategies import StrategyOptions
from edgeloop.processes.file_lock import exclusive

PARENT_S = 0.5  # between two looks at the parent

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run all rounds of the job in the folder that the run's configuration names."""
    end_once_orphaned()
    serve_job(grid, Path(str(context.run_config["work"])))


def end_once_orphaned() -> None:
    """End this process, as a kill would, soon after its parent: Flower's ServerApp calls a SuperLink that is gone for
    minutes, and holds the run's folder meanwhile."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_S)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def serve_job(grid: Grid, work: Path) -> None:
    """Run all rounds of the job in a work folder."""
    with _held(work / ALIVE):
        while not (work / JOB).is_file():  # started early; ends with its parent, as Flower sees to
            time.sleep(0.1)
        try:
            _rounds(grid, json.loads((work / JOB).read_bytes()), read_weights(work / INITIAL))
        except Exception as e:  # the parent raises it; Flower's own status would not say why
            write_file(work / FAILURE, json.dumps(error_to_json(e)).encode())
            raise


def _rounds(grid: Grid, job: dict[str, Any], initial: dict[str, np.ndarray]) -> None:
    out = Path(job["out"])
    options = LoopOptions(
        rounds=job["rounds"],
        devices=job["devices"],
        seed=job["seed"],
        learning_rate=job["lr"],
        learning_rate_decay=job["lr_decay"],
        train={**model_record(Path(job["trainable"])), "epochs": job["epochs"], "run-name": out.name},
        quorum=settings.build(QuorumOptions, job["quorum"]),
        guard=settings.build(GuardOptions, job["guard"]),
        strategy=settings.build(StrategyOptions, job["strategy"]),
        compression=settings.build(CompressionOptions, job["compression"]),
        privacy=settings.build(PrivacyOptions, job.get("privacy", {})),
        selection=settings.build(SelectionOptions, job["selection"]),
        query=job["query"],
        buffered=settings.build(BufferedOptions, job["buffered"]) if "buffered" in job else None,
        max_memory_bytes=job["max_memory_bytes"],
        kept_updates=job["kept_updates"],
        kept_every=job["kept_every"],
        trained=tuple(job["trained"]),
        batch=job["batch"],
        statistics=settings.build(StatisticsOptions, job["statistics"]),
        labels=Labels(**job["labels"]),
        journal=settings.build(JournalOptions, job["journal"]),
        numbered=job["numbered"],
    )
    loop = RoundLoop if options.buffered is None else BufferedLoop
    with server_lock(out):
        loop(grid, options, out, initial).run()


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold a lock for as long as this process lives: the parent sees its end at once, even after SIGKILL."""
    with exclusive(path, timeout_s=10):
        path.write_text("started")
        yield
