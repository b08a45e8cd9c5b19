"""Runtimes by name: what can run which format, and where.

A runner is found through the entry-point group `edgeloop.runners`, so that a folder above this one (browser/) can
add its own without this one knowing it.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

import numpy as np

from edgeloop.bundle import Format
from edgeloop.edge.client import Agent, agent
from edgeloop.edge.device import Device, device_environment, parse_device
from edgeloop.errors import DeviceError, MissingExtra

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
    """A runtime that edge's agent drives."""

    name: str
    formats: frozenset[Format]
    module: str

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
        raise MissingExtra(
            f"{self.name} is not installed here nor in the device environment. Run: edgeloop setup device"
        )

    def on(self, device: Device) -> bool:
        """Whether this runtime loads there."""
        return not self.lacks(device)

    def lacks(self, device: Device) -> str:
        """Why this runtime does not load there; empty where it does."""
        return _lacks(device, self.name, self.module)


@dataclass(frozen=True)
class AgentSession:
    """A loaded model behind an agent."""

    agent: Agent
    version: str | None

    def infer(self, inputs: Mapping[str, np.ndarray], signature: str | None) -> Mapping[str, np.ndarray]:
        return self.agent.run(inputs, signature).outputs


@cache
def _lacks(device: Device, runtime: str, module: str) -> str:
    if device.name == "local":
        return "" if importlib.util.find_spec(module) is not None else f"{runtime} is not installed here"
    try:
        with agent(device, runtime, Path.cwd(), timeout_s=60) as running:
            running.probe()
    except DeviceError as e:
        return str(e).rstrip(".")
    return ""


LITERT = AgentRunner("litert", frozenset({Format.TFLITE}), "ai_edge_litert")
TFLITE_RUNTIME = AgentRunner("tflite-runtime", frozenset({Format.TFLITE}), "tflite_runtime")
ONNXRUNTIME = AgentRunner("onnxruntime", frozenset({Format.ONNX}), "onnxruntime")


def runners() -> dict[str, Runner]:
    """Every runner of this installation, by name."""
    return {point.name: point.load() for point in sorted(entry_points(group=GROUP), key=lambda p: p.name)}
