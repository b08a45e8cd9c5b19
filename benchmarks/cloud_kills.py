"""What a kill costs a training: a worker of two is killed with SIGKILL at random steps, and how many steps that lost.

    python benchmarks/cloud_kills.py      writes benchmarks/results.json

The model and the data are those of cloud_train.py.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from cloud_train import BATCH, EXAMPLES, config, measure

KILLS, TRAININGS, INTERVAL, STEPS_BETWEEN = 20, 4, 20, 60


class Killer:
    """Tells a server's tasks apart and kills one of them once the first has come to a step."""

    def __init__(self, server: Any, points: Sequence[int]) -> None:
        self.server, self.start, self.signal = server, server.start, server.signal
        self.points, self.killed = list(points), 0

    def poll(self) -> Mapping[str, Any]:
        states = self.server.poll()
        if self.points and all(state.code is None and state.step >= self.points[0] for state in states.values()):
            os.kill(states[f"worker {self.killed % len(states)}"].pid, signal.SIGKILL)
            self.points.pop(0)
            self.killed += 1
        return states


def kills(data: Path) -> dict[str, Any]:
    """Trainings of two workers, each killed several times, and what each kill lost."""
    from edgeloop.cloud.train.checkpoints.checkpoints import CheckpointOptions
    from edgeloop.cloud.train.cluster.launching import FRAMEWORKS, fork_server, parse_tasks
    from edgeloop.cloud.train.cluster.losses import SupervisionOptions
    from edgeloop.cloud.train.cluster.supervise import Supervisor
    from edgeloop.cloud.train.config.write_config import to_toml
    from edgeloop.progress import silent

    each = KILLS // TRAININGS
    steps = EXAMPLES * 99 // 100 // (2 * BATCH)
    epochs = -(-(each + 1) * STEPS_BETWEEN // steps)
    start = config(data, per_call=1)
    start = replace(
        start,
        loop=replace(start.loop, epochs=epochs, patience=0),
        checkpoints=CheckpointOptions(every_steps=INTERVAL),
    )
    rng = np.random.default_rng(13)
    lost: list[int] = []
    module = "edgeloop.cloud.train.cluster.task"
    with tempfile.TemporaryDirectory() as folder, fork_server("", {}, Path(folder), (*FRAMEWORKS, module)) as server:
        for number in range(TRAININGS):
            out = Path(folder) / f"run-{number}"
            points = [k * STEPS_BETWEEN + int(rng.integers(5, STEPS_BETWEEN - 5)) for k in range(each)]
            arguments = {"config": to_toml(start), "out": str(out), "resume": False}
            killer = Killer(server.running(f"{module}:run_task", arguments, out / "tasks"), points)
            said: list[str] = []
            options = SupervisionOptions(restarts=each, wait_s=0.05)
            Supervisor(killer, parse_tasks("2"), options, said.append, silent).run()
            found = _lost_steps(said)
            assert len(found) == killer.killed == each, said
            lost += found
    return {
        "kills": len(lost),
        "checkpoint_interval_steps": INTERVAL,
        "lost_steps": {"p50": float(np.median(lost)), "max": max(lost)},
        "at_most_one_interval": sum(steps <= INTERVAL for steps in lost),
    }


def _lost_steps(said: Sequence[str]) -> list[int]:
    """What each kill lost; where it came before the first checkpoint, the training began anew."""
    lost: list[int] = []
    for line in said:
        if line.startswith("Lost"):
            lost.append(int(line.partition("at step ")[2].partition(".")[0]))
        elif line.startswith("Training goes on after"):
            lost[-1] -= int(line.split()[-1][:-1])
    return lost


if __name__ == "__main__":
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    measure({"kills": kills})
