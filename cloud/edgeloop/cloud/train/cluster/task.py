"""A training whose tasks run on this machine: what starts them, and what each of them runs."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from edgeloop import settings
from edgeloop.cloud.train.checkpoints.checkpoints import check_empty
from edgeloop.cloud.train.cluster.cluster import Role, read_cluster
from edgeloop.cloud.train.cluster.evaluator import evaluate_checkpoints
from edgeloop.cloud.train.cluster.launching import FRAMEWORKS, fork_server, parse_tasks
from edgeloop.cloud.train.cluster.losses import SupervisionOptions
from edgeloop.cloud.train.cluster.supervise import Supervisor
from edgeloop.cloud.train.config.train_config import TrainConfig
from edgeloop.cloud.train.config.write_config import to_toml
from edgeloop.cloud.train.run.beat import Beat
from edgeloop.cloud.train.run.run_folder import TASKS, open_run
from edgeloop.cloud.train.run.run_result import RunResult
from edgeloop.cloud.train.trainer import train_run
from edgeloop.errors import OptionsError
from edgeloop.processes.job_child import Events
from edgeloop.progress import Progress, Say


def launch_run(
    config: TrainConfig, out: Path, tasks: str, *, resume: bool = False, progress: Progress, say: Say
) -> RunResult:
    """Train what `config` says with a cluster of processes on this machine; a lost one is started again.

    Args:
        tasks: As `--launch` has it: `2`, `ps=2,worker=2`.

    Raises:
        OptionsError: `tasks` make no cluster, or TF_CONFIG is set: this process is a task already.
        DeviceError: Tasks were lost more often than they may be started again.
        EdgeloopError: What `train_run` raises in the first task.
    """
    found = parse_tasks(tasks)
    if os.environ.get("TF_CONFIG"):
        raise OptionsError(
            "--launch starts a cluster, and TF_CONFIG makes this process a task of one",
            advice="Leave --launch out, or unset TF_CONFIG.",
        )
    out = out.resolve()
    with open_run(out, resume=resume):  # what refuses the folder does so before TensorFlow loads
        if not resume:
            check_empty(config.checkpoints, out)
    arguments = {"config": to_toml(config), "out": str(out), "resume": resume}
    options = SupervisionOptions(
        hang_timeout_s=config.strategy.hang_timeout_s, start_timeout_s=config.strategy.first_step_timeout_s
    )
    with fork_server(f"{__name__}:run_task", arguments, out / TASKS, modules=(*FRAMEWORKS, __name__)) as server:
        return RunResult.from_json(Supervisor(server, found, options, say, progress).run())


def run_task(arguments: dict[str, Any], told: Events, beat: Beat) -> dict[str, Any]:
    """One task: `train_run` under the TF_CONFIG that is set, going on where an earlier attempt was lost."""
    config = settings.build(TrainConfig, tomllib.loads(arguments["config"]))
    resume = arguments["resume"] or arguments["attempt"] > 1
    out = Path(arguments["out"])
    cluster = read_cluster()
    if cluster is not None and cluster.role == Role.EVALUATOR:
        return {"evaluations": len(evaluate_checkpoints(config, out, told.say, beat))}
    return train_run(config, out, resume=resume, progress=told.progress, say=told.say, beat=beat).to_json()
