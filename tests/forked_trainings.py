"""Several trainings at once, each in a process of its own: one process imports TensorFlow and forks them.

A fork is sound before TensorFlow has made a tensor or a device: the parent imports and does nothing else.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgeloop.processes.children import owned

TIMEOUT_S = 240


@dataclass(frozen=True)
class Forked:
    """One training: the TOML file, what `--set` says, and what else its process is given."""

    toml: Path
    out: Path
    changes: Sequence[str] = ()
    tf_config: Mapping | None = None
    resume: bool = False


@dataclass(frozen=True)
class Ended:
    """How one ended: the document of its result, or the error's class and text; its weights in `get_weights` order."""

    result: Mapping | None = None
    error: Sequence[str] = ()
    weights: Sequence[np.ndarray] = field(default_factory=list)


def run_forked(trainings: Mapping[str, Forked], scratch: Path) -> dict[str, Ended]:
    """Run all of them at once; every process has ended when it returns."""
    jobs = {
        name: {**vars(one), "toml": str(one.toml), "out": str(one.out), "ended": str(scratch / name)}
        for name, one in trainings.items()
    }
    (scratch / "jobs.json").write_text(json.dumps(jobs))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}  # for cloud_models
    command = [sys.executable, __file__, str(scratch / "jobs.json")]
    with (scratch / "log").open("wb") as log, owned(command, stdout=log, stderr=log, env=environment) as child:
        assert child.wait(TIMEOUT_S) == 0, (scratch / "log").read_text()[-3000:]
    return {name: _read(scratch / name) for name in trainings}


def _read(place: Path) -> Ended:
    document = json.loads(place.with_suffix(".json").read_text())
    if "error" in document:
        return Ended(error=document["error"])
    with np.load(place.with_suffix(".npz")) as packed:
        return Ended(result=document, weights=[packed[name] for name in packed.files])


def _train(job: Mapping) -> None:
    from edgeloop import cli
    from edgeloop.cloud.train.config.read_config import read_config
    from edgeloop.cloud.train.model.models import open_keras
    from edgeloop.cloud.train.trainer import train_run
    from edgeloop.errors import EdgeloopError

    if job["tf_config"]:
        os.environ["TF_CONFIG"] = json.dumps(job["tf_config"])
    place = Path(job["ended"])
    role = (job["tf_config"] or {}).get("task", {}).get("type")
    if role in ("evaluator", "ps"):  # by the verb itself; nothing but a signal ends a parameter server
        if role == "ps":
            threading.Timer(5.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
        code = cli.run(["train", job["toml"], "-o", job["out"], "--json"])
        place.with_suffix(".json").write_text(json.dumps({"exit": code}))
        np.savez(place.with_suffix(".npz"))
        return
    try:
        result = train_run(read_config(Path(job["toml"]), job["changes"]), Path(job["out"]), resume=job["resume"])
        if result.model.is_file():  # a task that does not save has none
            np.savez(place.with_suffix(".npz"), *open_keras(result.model).get_weights())
        else:
            np.savez(place.with_suffix(".npz"))
        document = result.to_json()
    except EdgeloopError as e:
        document = {"error": [type(e).__name__, str(e)]}
    place.with_suffix(".json").write_text(json.dumps(document))


def main(jobs: Mapping[str, Mapping]) -> int:
    """Import, fork a child for each job, and wait for all; the number of those that ended badly."""
    import keras  # noqa: F401
    import tensorflow  # noqa: F401

    children = set()
    for job in jobs.values():
        pid = os.fork()
        if pid:
            children.add(pid)
            continue
        try:
            _train(job)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
    bad, deadline = 0, time.monotonic() + TIMEOUT_S
    while children and time.monotonic() < deadline:
        pid, status = os.wait()
        children.discard(pid)
        bad += status != 0
    return bad


if __name__ == "__main__":
    sys.exit(main(json.loads(Path(sys.argv[1]).read_text())))
