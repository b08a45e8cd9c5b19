"""Runners by name: what can run which format, and where.

The runtimes of the table (../runtime_table.py) are driven by our agent. Others are found through the entry-point group
`edgeloop.runners`, so that a folder above this one (browser/) can add its own without this one knowing it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

import numpy as np

from edgeloop.bundle import Format
from edgeloop.errors import DeviceError, MissingExtra
from edgeloop.runtime.agent.runtimes import is_installed
from edgeloop.runtime.client import RuntimeClient, agent, survey
from edgeloop.runtime.device import Device, device_environment, parse_device
from edgeloop.runtime_table import RUNTIMES, Runtime

GROUP = "edgeloop.runners"


class Session(Protocol):
    """A loaded model. `version` is the runtime's own."""

    @property
    def version(self) -> str | None: ...

    def infer(self, inputs: Mapping[str, np.ndarray], signature: str | None) -> Mapping[str, np.ndarray]:
        """Named arrays in, named arrays out, full shapes with the batch. `signature` None: the file has only one."""


class Runner(Protocol):
    """A runtime that runs models of some formats in a process of its own.

    Attributes:
        proves: What is converted is proved on it unasked.
        comparison: It is used only when asked for by name.
    """

    @property
    def name(self) -> str: ...

    @property
    def formats(self) -> frozenset[Format]: ...

    @property
    def proves(self) -> bool: ...

    @property
    def comparison(self) -> bool: ...

    def open(self, folder: Path, entry: str, timeout_s: float = 120.0) -> contextlib.AbstractContextManager[Session]:
        """Load `folder/entry`; files outside `folder` stay out of reach.

        Raises:
            MissingExtra: The runtime is not installed, with the line that installs it.
            TargetError: The runtime refuses the model.
            DeviceError: It died or did not answer within `timeout_s` per call.
        """


class DeviceRunner(Protocol):
    """A runtime that an agent drives on a device: a runtime of the table, or an engine of the page (page_engines.py).

    Attributes:
        comparison: As of `Runner`.
        install: The line that installs it.
    """

    @property
    def name(self) -> str: ...

    @property
    def formats(self) -> frozenset[Format]: ...

    @property
    def comparison(self) -> bool: ...

    @property
    def install(self) -> str: ...

    def lacks(self, device: Device) -> str:
        """Why it cannot run there; empty where it can be tried."""

    def start(
        self, device: Device, folder: Path, entry: str, timeout_s: float
    ) -> contextlib.AbstractContextManager[RuntimeClient]:
        """An agent there that can open `folder/entry`. Raises as `runtime.client.agent`."""


@dataclass(frozen=True)
class AgentRunner:
    """A runtime of the table, driven by our agent."""

    runtime: Runtime

    @property
    def name(self) -> str:
        return self.runtime.name

    @property
    def formats(self) -> frozenset[Format]:
        return self.runtime.formats

    @property
    def install(self) -> str:
        return self.runtime.install

    @property
    def proves(self) -> bool:
        return not self.comparison

    @property
    def comparison(self) -> bool:
        return self.runtime.comparison

    @contextlib.contextmanager
    def open(
        self, folder: Path, entry: str, timeout_s: float = 120.0, device: Device | None = None
    ) -> Iterator[Session]:
        """As `Runner.open`. `device` None: where this runtime is found first."""
        with agent(device or self.device(), self.name, folder, timeout_s) as running:
            version = running.probe().version
            running.prepare(entry)
            yield AgentSession(running, version)

    def start(
        self, device: Device, folder: Path, entry: str, timeout_s: float
    ) -> contextlib.AbstractContextManager[RuntimeClient]:
        """As `DeviceRunner.start`; every file below `folder` can be opened."""
        return agent(device, self.name, folder, timeout_s)

    def device(self) -> Device:
        """This interpreter if it has the runtime, else the device environment.

        Raises:
            MissingExtra: Neither has it.
        """
        local = parse_device("local")
        if self.on(local):
            return local
        with contextlib.suppress(MissingExtra):  # where it was not made, the runtime is what is missing
            device = device_environment()
            if self.on(device):
                return device
        raise MissingExtra(
            f"{self.name} is installed neither here nor in the device environment",
            advice=f"Run: {self.runtime.install}",
        )

    def on(self, device: Device) -> bool:
        """Whether this runtime loads there."""
        return not self.lacks(device)

    def lacks(self, device: Device) -> str:
        """Why this runtime cannot run there; empty where it is installed. A device is asked once, for all runtimes."""
        if device.name == "local":
            return "" if is_installed(self.runtime) else f"{self.name} is not installed here"
        installed, why = _survey(device)
        return why or ("" if self.name in installed else f"{self.name} is not installed on {device.name}")


@dataclass(frozen=True)
class AgentSession:
    """A loaded model behind an agent."""

    agent: RuntimeClient
    version: str | None

    def infer(self, inputs: Mapping[str, np.ndarray], signature: str | None) -> Mapping[str, np.ndarray]:
        return self.agent.run(inputs, signature).outputs


@cache
def _survey(device: Device) -> tuple[Mapping[str, str], str]:
    """{runtime: version}, and why nothing is known of the device; empty where it answered."""
    try:
        return survey(device), ""
    except DeviceError as e:
        return {}, e.clause


AGENT_RUNNERS = {name: AgentRunner(runtime) for name, runtime in RUNTIMES.items()}


def runners(named: Collection[str] = ()) -> dict[str, Runner]:
    """Every runner of this installation by name, the table's first; one for comparison alone, only if it is `named`."""
    points = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    found: dict[str, Runner] = {**AGENT_RUNNERS, **{point.name: point.load() for point in points}}
    return {name: runner for name, runner in found.items() if name in named or not runner.comparison}
