"""Programs of tasks without TensorFlow, for tests of launching and supervision: they count steps, and are ended."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeloop.atomic import replace_file
from edgeloop.cloud.train.run.beat import beating
from edgeloop.errors import DataError, DeviceError


def count(arguments: dict[str, Any], told: Any, beat: Any) -> dict[str, Any]:
    """Count to `total`, keeping every fifth step in the file `state` as a checkpoint; `sudden` ends it on the way:
    {task: {attempt: [step, signal or error]}}. The others then fail, as synchronous workers do."""
    task = json.loads(os.environ["TF_CONFIG"])["task"]
    name = f"{task['type']}-{task['index']}"
    state = Path(arguments["state"])
    lost = Path(f"{state}.lost-{arguments['attempt']}")
    begin = int(state.read_text()) if state.exists() else 0
    told.say(f"begins at {begin}")
    sudden = {task: when.get(str(arguments["attempt"])) for task, when in arguments.get("sudden", {}).items()}
    ends = sudden.pop(name, None)
    for step in range(begin + 1, arguments["total"] + 1):
        time.sleep(0.005)
        beat(step)
        if ends and step >= ends[0] and _within(10, lambda: state.exists() or ends[0] < 5):
            replace_file(lost, str(os.getpid()).encode())
            _end(ends[1])
        if any(sudden.values()) and step == 15:
            _within(10, lost.exists)
        if lost.exists():
            _within(10, lambda: not Path(f"/proc/{lost.read_text()}/exe").exists())  # a zombie has none
            raise DeviceError("the connection to another task was lost", advice="Start all tasks again.")
        if step % 5 == 0 and task["index"] == 0 and task["type"] in ("chief", "worker"):
            replace_file(state, str(step).encode())
    return {"task": name, "begin": begin, "cluster": json.loads(os.environ["TF_CONFIG"])["cluster"]}


def _within(timeout_s: float, holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + timeout_s
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.005)
    return holds()


def pause(arguments: dict[str, Any], told: Any, beat: Any) -> dict[str, Any]:
    """One step, then a checkpoint or a callback that takes 2.5 s, for which `sudden` allows so many."""
    beat(1)
    with beating(beat, 1, arguments["sudden"]):
        time.sleep(2.5)
    return {}


def _end(how: int | str) -> None:
    if isinstance(how, int):
        os.kill(os.getpid(), how)
        time.sleep(60)
    if how == "hang":
        time.sleep(60)
    if how == "lost":
        raise DeviceError("a connection was lost", advice="Try again.")
    if how == "data":
        raise DataError("the file is not there", advice="Pass another.")
    raise RuntimeError(how)


def serve(arguments: dict[str, Any], told: Any, beat: Any) -> dict[str, Any]:
    """As `count`, but a worker or ps of a cluster with parameter servers only waits."""
    task = json.loads(os.environ["TF_CONFIG"])["task"]
    if task["type"] == "chief":
        return count(arguments, told, beat)
    ends = arguments.get("sudden", {}).get(f"{task['type']}-{task['index']}", {}).get(str(arguments["attempt"]))
    if ends:
        time.sleep(0.05)
        _end(ends[1])
    time.sleep(60)
    return {}


def train(arguments: dict[str, Any], told: Any, beat: Any) -> dict[str, Any]:
    """A task of a real training, `run_task`. `signals` [[step, task, number]]: the first task sends each once, when it
    has done that step; which step it was is in the file `sent-K` of `folder`."""
    from edgeloop.cloud.train.cluster.task import run_task

    task, folder = json.loads(os.environ["TF_CONFIG"])["task"], Path(arguments["folder"])
    name = f"{task['type']} {task['index']}"
    replace_file(folder / name, str(os.getpid()).encode())
    first = name == ("chief 0" if "chief" in json.loads(os.environ["TF_CONFIG"])["cluster"] else "worker 0")

    def beat_and_signal(step: int) -> None:
        beat(step)
        for k, (at, victim, number) in enumerate(arguments["signals"] if first else []):
            if step >= at and not (folder / f"sent-{k}").exists():
                replace_file(folder / f"sent-{k}", str(step).encode())
                os.kill(int((folder / victim).read_text()), number)

    return run_task(arguments, told, beat_and_signal)


def measure(arguments: dict[str, Any], told: Any, beat: Any) -> dict[str, Any]:
    """As `count`, beside an evaluator that is killed whenever it starts."""
    if json.loads(os.environ["TF_CONFIG"])["task"]["type"] == "evaluator":
        os.kill(os.getpid(), signal.SIGKILL)
    return count(arguments, told, beat)


def end_slowly(arguments: dict[str, Any], told: Any, beat: Any) -> dict[str, Any]:
    """Interrupts its owner, and takes its time to write a checkpoint when it is asked to end."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.kill(arguments["owner"], signal.SIGINT)
    try:
        time.sleep(60)
    finally:
        time.sleep(0.5)
        replace_file(Path(arguments["state"]), b"whole")
    return {}
