"""Tasks without a framework, really forked and really killed: what starts again, from where, and what ends it."""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from devices import descendants, eventually

from edgeloop.cloud.train.cluster.launching import fork_server, parse_tasks
from edgeloop.cloud.train.cluster.losses import SupervisionOptions
from edgeloop.cloud.train.cluster.supervise import Supervisor
from edgeloop.errors import DataError, DeviceError
from edgeloop.processes.job import WorkerBug
from edgeloop.progress import silent

OPTIONS = SupervisionOptions(restarts=3, wait_s=0.01, hang_timeout_s=20, start_timeout_s=20)
HANGS = dataclasses.replace(OPTIONS, hang_timeout_s=1.0)  # tasks that do hang, and none that works


def supervised(tmp_path, launch, sudden=None, program="count", total=40, options=OPTIONS):
    """(what the leading task returned, what was said)."""
    said = []
    arguments = {"state": str(tmp_path / "state"), "total": total, "sudden": sudden or {}}
    try:
        with fork_server(f"cloud_tasks:{program}", arguments, tmp_path / "logs", modules=()) as server:
            result = Supervisor(server, parse_tasks(launch), options, said.append, silent).run()
    finally:
        assert eventually(lambda: descendants(os.getpid()) == [])
    return result, said


def test_two_workers_each_get_a_tf_config_of_their_own_and_the_first_one_answers(tmp_path):
    result, said = supervised(tmp_path, "2")
    assert (result["task"], result["begin"]) == ("worker-0", 0)
    assert len(set(result["cluster"]["worker"])) == 2
    assert said == ["begins at 0"]


@pytest.mark.parametrize("victim", ["worker-0", "worker-1"])
def test_when_a_synchronous_worker_is_killed_all_start_again_from_the_last_checkpoint_on_new_ports(tmp_path, victim):
    result, said = supervised(tmp_path, "2", {victim: {"1": [12, signal.SIGKILL]}})
    assert 5 <= result["begin"] <= 15  # worker 0 counts on its own, and waits at step 15 for the loss
    lost = said[1]
    assert lost.startswith(f"Lost: {victim.replace('-', ' ')} was ended by signal SIGKILL at step 1")
    assert lost.endswith("Now all tasks start again (1 of at most 3 restarts).")


def test_a_task_that_takes_no_step_any_more_is_found(tmp_path):
    result, said = supervised(tmp_path, "1", {"worker-0": {"1": [12, "hang"]}}, options=HANGS)
    assert result["begin"] == 10
    assert said[1].startswith("Lost: no task took a step for 1 s at step 12.")


def test_a_checkpoint_or_callback_longer_than_the_hang_timeout_is_no_hang_until_its_own_limit(tmp_path):
    assert supervised(tmp_path, "1", 60.0, program="pause", options=HANGS) == (
        {},
        [],
    )
    with pytest.raises(DeviceError, match=r"no task took a step for 1 s at step 1"):
        supervised(tmp_path, "1", 0.1, program="pause", options=dataclasses.replace(HANGS, restarts=0))


def test_a_stopped_task_is_found_and_ended(tmp_path):
    result, said = supervised(tmp_path, "1", {"worker-0": {"1": [7, signal.SIGSTOP]}}, options=HANGS)
    assert (result["begin"], len(said)) == (5, 3)


def test_a_lost_connection_is_another_attempt_and_wrong_data_is_none(tmp_path):
    result, said = supervised(tmp_path, "1", {"worker-0": {"1": [7, "lost"]}})
    assert (result["begin"], said[1][:60]) == (5, "Lost: worker 0 failed at step 7: a connection was lost. Now ")
    with pytest.raises(DataError, match=r"worker 1: the file is not there\. Pass another"):
        supervised(tmp_path / "2", "2", {"worker-1": {"1": [7, "data"]}})
    with pytest.raises(WorkerBug, match=r"worker 0: Traceback[\s\S]*RuntimeError: mistake"):
        supervised(tmp_path / "3", "1", {"worker-0": {"1": [7, "mistake"]}})


def test_losses_without_end_are_bounded(tmp_path):
    each = {str(attempt): [1, signal.SIGKILL] for attempt in range(1, 9)}
    with pytest.raises(DeviceError, match=r"worker 0 was ended by signal SIGKILL at step \d+, and .* 3 times already"):
        supervised(tmp_path, "1", {"worker-0": each})


@pytest.mark.parametrize(
    ("victim", "again"),
    [("worker-1", "worker 1 starts"), ("ps-0", "ps 0 and chief 0 start"), ("chief-0", "chief 0 starts")],
)
def test_of_a_cluster_with_parameter_servers_only_what_was_lost_starts_again(tmp_path, victim, again):
    sudden = {victim: {"1": [12, signal.SIGKILL]}}
    result, said = supervised(tmp_path, "ps=2,worker=2", sudden, program="serve")
    losses = [line for line in said if line.startswith("Lost")]
    assert [line.partition("Now ")[2] for line in losses] == [f"{again} again (1 of at most 3 restarts)."]
    assert (result["begin"] > 0) == (victim == "chief-0") or victim == "ps-0"


def test_an_evaluator_that_is_lost_again_and_again_costs_the_training_nothing(tmp_path):
    result, said = supervised(tmp_path, "worker=1,evaluator=1", program="measure", total=400)
    assert (result["task"], result["begin"]) == ("worker-0", 0)
    losses = [line for line in said if line.startswith("Lost: evaluator 0 was ended by signal SIGKILL")]
    assert [line.partition(". ")[2] for line in losses] == [
        "Now evaluator 0 starts again (1 of at most 3 restarts).",
        "Now evaluator 0 starts again (2 of at most 3 restarts).",
        "Now evaluator 0 starts again (3 of at most 3 restarts).",
        "It is not started again, and training goes on without it.",
    ]
    assert said.count("begins at 0") == 1


def test_a_task_may_write_its_checkpoint_after_ctrl_c_for_as_long_as_a_hang_takes(tmp_path, monkeypatch):
    monkeypatch.setattr("edgeloop.cloud.train.cluster.supervise.END_S", 0.1)
    arguments = {"owner": os.getpid(), "state": str(tmp_path / "state")}
    options = SupervisionOptions(hang_timeout_s=20)
    with (
        fork_server("cloud_tasks:end_slowly", arguments, tmp_path / "logs", modules=()) as server,
        pytest.raises(KeyboardInterrupt),
    ):
        Supervisor(server, parse_tasks("1"), options, lambda line: None, silent).run()
    assert (tmp_path / "state").read_bytes() == b"whole"


OWNER = """
import sys
from pathlib import Path
from edgeloop.cloud.train.cluster.launching import fork_server, parse_tasks
from edgeloop.cloud.train.cluster.losses import SupervisionOptions
from edgeloop.cloud.train.cluster.supervise import Supervisor
from edgeloop.progress import silent
arguments, logs = {"state": sys.argv[1] + "/state", "total": 10**6}, Path(sys.argv[1]) / "logs"
with fork_server("cloud_tasks:count", arguments, logs, modules=()) as server:
    Supervisor(server, parse_tasks("3"), SupervisionOptions(), lambda line: print(line, flush=True), silent).run()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_no_task_outlives_the_owner(tmp_path, number):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, tmp_path], env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with owner:
        assert owner.stdout.readline() == "begins at 0\n"
        assert eventually(lambda: len(descendants(owner.pid)) == 4)  # the fork server and its three tasks
        tasks = descendants(owner.pid)
        owner.send_signal(number)
        assert owner.wait(timeout=30) != 0
    assert eventually(lambda: not any(_alive(pid) for pid in tasks))


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
