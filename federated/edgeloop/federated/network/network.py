"""Flower's processes on this machine: one SuperLink and, on loopback, one device per shard, for one run."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from edgeloop.errors import DeviceError, last_line, one_line
from edgeloop.federated.network.app import CONNECTION, write_app, write_connection
from edgeloop.federated.network.options import NetworkOptions
from edgeloop.federated.network.processes import CONNECTED, commands, environment, home, program
from edgeloop.leftovers import temporary_folder
from edgeloop.processes.children import owned
from edgeloop.processes.command import run_command
from edgeloop.processes.exit_status import exit_status
from edgeloop.processes.ports import free_ports
from edgeloop.runtime.device import Device

START_S = 60.0  # to a listening SuperLink: 4 s on two idle cores
AGAIN = "Run the rounds again; if that fails too, run: edgeloop setup device"
FLWR_S = 60.0  # for one call of Flower's command line: 2 s


@dataclass
class Network:
    """Running processes for one run.

    Attributes:
        work: Temporary folder that goes with them: logs, the job, the server's word of failure.
        run_id: Of the submitted run.
        kept: Where each device has a folder of its own, which outlives it; None: in the work folder.
        joining: Devices of other machines.
        processes: Ends the children when it is closed.
        simulated: Devices train one after another, so a time limit is that from one reply to the next.
    """

    simulated: ClassVar[bool] = False

    work: Path
    port: int
    devices: tuple[Device, ...]
    shards: tuple[Path, ...]
    children: dict[str, subprocess.Popen] = field(default_factory=dict)
    run_id: str | None = None
    kept: Path | None = None
    joining: NetworkOptions | None = None
    processes: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def start(self) -> None:
        """Start every process and return without waiting.

        Raises:
            MissingExtra: Flower is not installed here or in the device environment.
        """
        for name in self._commands():
            self.start_process(name)

    def start_process(self, name: str) -> None:
        """Start the process of that name, at first or in the place of one that has ended."""
        python, command = self._commands()[name]
        log = self.processes.enter_context((self.work / f"{name}.log").open("ab"))
        settings = environment(python, home(self.work, name))
        # a short grace: their state is in memory and nobody will read it again
        child = owned(command, stdout=log, stderr=log, env=settings, cwd=self.work, grace_s=0.2)
        self.children[name] = self.processes.enter_context(child)

    def _commands(self) -> dict[str, tuple]:
        folder, connected = self.kept or self.work, self.work / CONNECTED
        return commands(self.devices, self.shards, self.port, folder, self.joining, connected)

    def restart(self) -> None:
        """End every process and start it again; the run is to be submitted again, as Flower had it in memory."""
        self.processes.close()
        self.children.clear()
        self.start()

    def submit(self) -> None:
        """Wait for the SuperLink and start the ServerApp, which then waits for its job. Does nothing the second time.

        Raises:
            DeviceError: A process ended, or the SuperLink does not come up.
        """
        if self.run_id is None:
            self._wait_for_superlink()
            self.run_id = str(self.flwr("run", str(write_app(self.work)), CONNECTION)["run-id"])

    def status(self) -> str:
        """What Flower says of the run, such as `running` or `finished:failed`."""
        (run,) = self.flwr("list", CONNECTION, "--run-id", str(self.run_id))["runs"]
        return str(run["status"])

    def check(self) -> None:
        """Raise DeviceError when a process has ended."""
        for name, child in self.children.items():
            if child.poll() is not None:
                raise DeviceError(f"{name} ended ({exit_status(child).how}); {self.last_log_line(name)}", advice=AGAIN)

    def last_log_line(self, name: str) -> str:
        """The last line that says something in the log of a process."""
        return _last_log_line((self.work / f"{name}.log").read_bytes())

    def joined(self) -> tuple[int | None, list[str]]:
        """How many devices of other machines are connected, None while that is not known; and which files of keys are
        none."""
        try:
            found = json.loads((self.work / CONNECTED).read_bytes())
        except FileNotFoundError:
            return None, []
        return found["connected"], found["wrong"]

    def flwr(self, *arguments: str) -> dict:
        """Run Flower's command line against this SuperLink and return its JSON.

        Raises:
            DeviceError: It failed or took over a minute.
        """
        here = Path(sys.executable)
        command = [program(here, "flwr"), *arguments, "--format", "json"]
        settings = environment(here, home(self.work, "flwr"))
        try:
            done = run_command(command, timeout_s=FLWR_S, env=settings, cwd=self.work)
        except TimeoutError as e:
            raise DeviceError(f"flwr {arguments[0]} failed: {e}", advice=AGAIN) from e
        try:
            document = json.loads(done.out)
        except ValueError:
            document = {}
        if not document.get("success"):
            reason = one_line(document.get("error-message", ""), None)[-300:]
            raise DeviceError(f"flwr {arguments[0]} failed: {reason or _last_log_line(done.err)}", advice=AGAIN)
        return dict(document)

    def _wait_for_superlink(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            self.check()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.1)
        raise DeviceError(
            f"the SuperLink did not listen within {START_S:g} s; {self.last_log_line('superlink')}", advice=AGAIN
        )


def _last_log_line(log: bytes) -> str:
    text = re.sub(r"\x1b\[[0-9;]*m", "", log.decode(errors="replace"))
    lines = [line.strip() for line in text.splitlines()]
    said = [line for line in lines if line and not re.fullmatch(r"[A-Z]+\s*:", line)]  # Flower logs empty lines
    return f"last line of its log: {last_line(said[-1])}" if said else "it logged nothing"


@contextlib.contextmanager
def network(
    devices: Sequence[Device], shards: Sequence[Path], kept: Path | None = None, joining: NetworkOptions | None = None
) -> Iterator[Network]:
    """Start everything at once and return without waiting. A device reads its shard when it is first asked to train.

    `devices`: the environments that the devices run in, one or more, which take turns. `kept`: where each
    device has a folder of its own, which outlives it; None: in the work folder. `joining`: devices of other machines.

    Coming up takes about ten seconds of two cores, so begin before the data is ready, and from a thread that lives as
    long as the block: Linux ends the processes with the thread that started them.

    Raises:
        MissingExtra: Flower is not installed here or in the device environment.
    """
    (port,) = free_ports(1)
    with temporary_folder() as name, contextlib.ExitStack() as processes:
        work = Path(name)
        write_connection(home(work, "flwr"), port)
        running = Network(work, port, tuple(devices), tuple(shards), kept=kept, joining=joining, processes=processes)
        running.start()
        yield running
