"""Runtimes by name: what can run which format, and where.

A runner is found through the entry-point group `edgeloop.runners`, so that a folder above this one (browser/) can
add its own without this one knowing it.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

import numpy as np

from edgeloop.bundle import Format
from edgeloop.errors import DeviceError, MissingExtra
from edgeloop.runtime.client import Agent, agent, survey
from edgeloop.runtime.device import Device, device_environment, parse_device

GROUP = "edgeloop.runners"


class Session(Protocol):
    """A loaded model. `version` is the runtime's own."""

    @property
    def version(self) -> str | None: ...

    def infer(self, inputs: Mapping[str, np.ndarray], signature: str | None) -> Mapping[str, np.ndarray]:
        """Named arrays in, named arrays out, full shapes with the batch. `signature` None: the file has only one."""


class Runner(Protocol):
    """A runtime that runs models of some formats in a process of its own."""

    name: str
    formats: frozenset[Format]

    def open(self, folder: Path, entry: str, timeout_s: float = 120.0) -> contextlib.AbstractContextManager[Session]:
        """Load `folder/entry`; files outside `folder` stay out of reach.

        Raises:
            MissingExtra: The runtime is not installed, with the line that installs it.
            TargetError: The runtime refuses the model.
            DeviceError: It died or did not answer within `timeout_s` per call.
        """


@dataclass(frozen=True)
class AgentRunner:
    """A runtime that edge's agent drives.

    Attributes:
        module: What is imported of it.
        comparison: It is no runtime for devices, but something to compare them with: used only when asked for by name.
        install: The line that installs it.
    """

    name: str
    formats: frozenset[Format]
    module: str
    comparison: bool = False
    install: str = "edgeloop setup device"

    @contextlib.contextmanager
    def open(
        self, folder: Path, entry: str, timeout_s: float = 120.0, device: Device | None = None
    ) -> Iterator[Session]:
        """As `Runner.open`. `device` None: where this runtime is found first."""
        with agent(device or self.device(), self.name, folder, timeout_s) as running:
            version = running.probe()["version"]
            running.prepare(entry)
            yield AgentSession(running, version)

    def device(self) -> Device:
        """This interpreter if it has the runtime, else the device environment.

        Raises:
            MissingExtra: Neither has it.
        """
        local = parse_device("local")
        device = local if self.on(local) else device_environment()
        if self.on(device):
            return device
        raise MissingExtra(f"{self.name} is not installed here nor in the device environment. Run: {self.install}")

    def on(self, device: Device) -> bool:
        """Whether this runtime loads there."""
        return not self.lacks(device)

    def lacks(self, device: Device) -> str:
        """Why this runtime cannot run there; empty where it is installed. A device is asked once, for all runtimes."""
        if device.name == "local":
            return "" if importlib.util.find_spec(self.module) is not None else f"{self.name} is not installed here"
        installed, why = _survey(device)
        return why or ("" if self.name in installed else f"{self.name} is not installed on {device.name}")


@dataclass(frozen=True)
class AgentSession:
    """A loaded model behind an agent."""

    agent: Agent
    version: str | None

    def infer(self, inputs: Mapping[str, np.ndarray], signature: str | None) -> Mapping[str, np.ndarray]:
        return self.agent.run(inputs, signature).outputs


@cache
def _survey(device: Device) -> tuple[Mapping[str, str], str]:
    """{runtime: version}, and why nothing is known of the device; empty where it answered."""
    try:
        return survey(device), ""
    except DeviceError as e:
        return {}, str(e).rstrip(".")


LITERT = AgentRunner("litert", frozenset({Format.TFLITE}), "ai_edge_litert")
TFLITE_RUNTIME = AgentRunner("tflite-runtime", frozenset({Format.TFLITE}), "tflite_runtime")
ONNXRUNTIME = AgentRunner("onnxruntime", frozenset({Format.ONNX}), "onnxruntime")
TENSORFLOW = AgentRunner(
    "tensorflow", frozenset({Format.TFLITE}), "tensorflow", comparison=True, install="pip install 'edgeloop[convert]'"
)


def runners(named: Collection[str] = ()) -> dict[str, Runner]:
    """Every runner of this installation, by name; one that is for comparison alone, only if it is `named`."""
    points = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    found = {point.name: point.load() for point in points}
    return {n: r for n, r in found.items() if n in named or not getattr(r, "comparison", False)}
