"""Starts the process of a simulation, and ends it with everything that it started."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np

from edgeloop.atomic import write_file
from edgeloop.disk_errors import writing
from edgeloop.errors import DeviceError, MissingExtra, OptionsError
from edgeloop.federated.device.data.samples import Samples
from edgeloop.federated.network.network import AGAIN, Network
from edgeloop.federated.network.processes import environment, home
from edgeloop.federated.simulation.options import SimulationOptions
from edgeloop.federated.simulation.population import write_samples
from edgeloop.leftovers import OWN, temporary_folder
from edgeloop.processes.children import owned
from edgeloop.processes.ports import accepts

NAME = "simulation"
JOB, SAMPLES, STATE = (
    "simulation.json",
    "samples",
    "devices",
)  # in a work folder: {options, deadline-s, workers, state}; two folders
LONGEST = 16  # bytes of a folder for temporary files: Ray's sockets lie 91 deeper, and Linux ends a path at 107
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # a busy machine starts Ray slowly: by itself Ray waits 15 s for a node's agents, and 30 s for the node
    "RAY_agent_register_timeout_ms": "120000",
    "RAY_raylet_start_wait_time_s": "120",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # or Ray warns that it hides GPUs
}
HIDDEN = """\
# Flower's simulation engine imports TensorFlow where it finds it. Devices have none.
raise ModuleNotFoundError("a simulated device has no TensorFlow", name="tensorflow")
"""


@dataclass
class Simulation(Network):
    """A simulation as a network of one process."""

    simulated: ClassVar[bool] = True
    submitted: bool = False

    def submit(self) -> None:
        """Nothing the first time: the server waits for its job. A second time is an error: the engine ended with it."""
        if self.run_id is None and self.submitted:
            self.check()
            raise DeviceError(f"the server of the simulation ended; {self.last_log_line(NAME)}", advice=AGAIN)
        self.run_id, self.submitted = NAME, True

    def restart(self) -> None:
        """The error of its one process: a new engine begins with --resume."""
        self.check()

    def status(self) -> str:
        return "running"

    def last_log_line(self, name: str) -> str:
        """Of the one log that there is."""
        return super().last_log_line(NAME)


@contextlib.contextmanager
def simulation_process(
    options: SimulationOptions,
    deadline_s: float,
    samples: Samples,
    parts: tuple[np.ndarray, ...],
    kept: Path | None = None,
) -> Iterator[Network]:
    """Flower's simulation engine over devices with those parts of the samples, for as long as the block.

    Args:
        deadline_s: Of a round, in simulated time.
        kept: Where the devices keep what they remember. None: in a folder that ends with the block.

    Raises:
        MissingExtra: Ray or Flower is not installed.
        DeviceError: No Ray cluster listens at the address that is given.
        WriteError: No temporary folder can be written.
    """
    for module in ("flwr", "ray"):
        if find_spec(module) is None:
            raise MissingExtra(f"{module!r} is not installed", advice="Run: pip install 'edgeloop[simulation]'")
    address = options.ray_address
    if address is not None and not accepts(address):
        raise DeviceError(
            f"no Ray cluster listens at {address}", advice="Start one: ray start --head. Or leave --ray-address out."
        )
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(temporary_folder(_short_folder() if address is None else None)))
        with writing(work):
            write_samples(work / SAMPLES, samples, parts)
            (work / "hidden").mkdir()
            (work / "hidden" / "tensorflow.py").write_text(HIDDEN)
        named = {name.replace("_", "-"): value for name, value in asdict(options).items() if value is not None}
        state = work / STATE if kept is None else kept.absolute()
        job = {"options": named, "deadline-s": deadline_s, "workers": _workers(options), "state": str(state)}
        write_file(work / JOB, json.dumps(job).encode())
        python = Path(sys.executable)
        # Ray listens on all addresses of this machine. A cluster has the token of whoever runs it, or none
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)} if address is None else {}
        own = {"PYTHONPATH": str(work / "hidden"), **token}
        log = stack.enter_context((work / f"{NAME}.log").open("wb"))
        command = [str(python), "-m", "edgeloop.federated.simulation.engine", str(work)]
        settings = environment(python, home(work, NAME)) | SETTINGS | own
        child = owned(command, stdout=log, stderr=log, env=settings, cwd=work, grace_s=1.0)
        yield Simulation(work, 0, (), (), {NAME: stack.enter_context(child)})


def _workers(options: SimulationOptions) -> int:
    """Processes that train."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return options.workers or min(available, options.nodes)


def _short_folder() -> str:
    """Where temporary files go, or /tmp, and not within a folder of this command.

    Raises:
        OptionsError: Both paths are too long for Ray's sockets.
    """
    folder = Path(tempfile.gettempdir())
    for place in (folder.parent if OWN.fullmatch(folder.name) else folder, Path("/tmp")):
        if len(os.fsencode(place)) <= LONGEST and os.access(place, os.W_OK):
            return str(place)
    raise OptionsError(
        f"{folder} is longer than {LONGEST} letters, and Ray keeps its sockets there",
        advice="Set TMPDIR to a shorter path.",
    )
