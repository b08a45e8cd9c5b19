"""Kills of every process of a run of rounds, at every stage: it finishes, on the same bits, and counts nobody twice."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_bundle import write_tiny_bundle

pytest.importorskip("flwr")

ROUNDS, EXAMPLES = 3, (40, 25)
WAIT_S = 400.0  # for one command; it takes 20 s on two idle cores
RUNS = 4  # of the command after a kill, at most
# What is killed: a part of its FLWR_HOME and of its command line; "run" is the command itself, and all others with it
TARGETS = {
    "superlink": ("home-superlink", "flower-superlink"),
    "serverapp": ("home-serverapp", "flwr-serverapp"),
    "device": ("home-device-1", "federated.device.join"),
    "run": None,
}
STAGES = (0, 1, 3, 5, 7)  # lines of the journal, of three a round: before a round, amid one, between two


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle"), batch=8)


class Run:
    """`edgeloop federate run` in a folder of its own."""

    def __init__(self, folder: Path, bundle: Path, python: Path) -> None:
        self.folder, self.out = folder, folder / "out"
        generator, shards = np.random.default_rng(0), []
        for index, n in enumerate(EXAMPLES):
            shards += ["--shard", folder / f"{index}.npz"]
            np.savez(shards[-1], x=generator.normal(size=(n, 8)).astype("f4"), y=np.arange(n) % 3)
        self.command = [sys.executable, "-m", "edgeloop", "federate", "run", bundle, *shards, "--on", f"local:{python}"]
        self.command += ["--rounds", ROUNDS, "--epochs", 40, "-o", self.out]

    def start(self) -> subprocess.Popen:
        resumed = ["--resume"] if (self.out / "run.json").is_file() else []
        return subprocess.Popen(
            list(map(str, [*self.command, *resumed])),
            env={**os.environ, "TMPDIR": str(self.folder)},
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "said.txt").open("ab"),
        )

    def lines(self) -> int:
        journal = self.out / "journal" / "journal.jsonl"
        return journal.read_bytes().count(b"\n") if journal.is_file() else 0

    def kill(self, target: str, running: subprocess.Popen) -> bool:
        """Whether there was such a process."""
        found = [running.pid] if TARGETS[target] is None else self._find(*TARGETS[target])
        for pid in found:
            os.kill(pid, signal.SIGKILL)
        return bool(found)

    def _find(self, home: str, command: str) -> list[int]:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                variables = (process / "environ").read_text(errors="replace").split("\0")
                ours = [v for v in variables if v.startswith(f"FLWR_HOME={self.folder}") and v.endswith(home)]
                if ours and command in (process / "cmdline").read_text():
                    found.append(int(process.name))
            except OSError:  # ended meanwhile, or not ours
                continue
        return found

    def finish(self, first: subprocess.Popen) -> int:
        """How often the command was run until it was done."""
        running = first
        for count in range(1, RUNS + 1):
            try:
                code = running.wait(WAIT_S)
            finally:
                running.kill()
            if code == 0:
                return count
            running = self.start()
        running.kill()
        raise AssertionError((self.folder / "said.txt").read_text()[-2000:])

    def weights(self) -> dict[str, bytes]:
        with np.load(self.out / "rounds" / f"round-{ROUNDS}.npz") as stored:
            return {name: stored[name].tobytes() for name in stored.files}


@pytest.fixture(scope="module")
def whole(bundle, device_python, tmp_path_factory) -> Run:
    """A run that nothing happened to."""
    run = Run(tmp_path_factory.mktemp("whole"), bundle, device_python)
    assert run.finish(run.start()) == 1
    return run


@pytest.mark.faults
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("seed", range(5))
def test_a_run_finishes_whatever_is_killed_whenever(bundle, whole, device_python, tmp_path, seed, stage):
    """Each of four processes at each of five stages, at five moments of it: a hundred kills."""
    seen = []
    for target in TARGETS:
        folder = tmp_path / target
        folder.mkdir()
        run = Run(folder, bundle, device_python)
        running, moment = run.start(), random.Random(f"{seed}/{target}/{stage}").uniform(0, 0.3)
        deadline, killed = time.monotonic() + WAIT_S, False
        while not killed and running.poll() is None and time.monotonic() < deadline:
            if run.lines() >= stage:
                time.sleep(moment)
                killed = run.kill(target, running)
            time.sleep(0.01)
        seen.append((target, killed, run.finish(running)))
        assert seen[-1][2] == 1 or TARGETS[target] is None, folder  # its supervisor goes on by itself
        print(seed, stage, *seen[-1], flush=True)
        document = json.loads((run.out / "rounds.json").read_text())
        assert document["state"] == "finished" and len(document["rounds"]) == ROUNDS, folder
        for record in document["rounds"]:  # every device once in each round
            assert [(c["device"], c["examples"]) for c in record["clients"]] == list(enumerate(EXAMPLES)), folder
        assert run.weights() == whole.weights(), folder
    # a stage may pass before its kill
    assert sum(killed for _, killed, _ in seen) >= 3, seen
