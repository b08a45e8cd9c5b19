"""The host's end of `keep`, the part of the program that holds a device's releases: its questions, typed."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeloop.runtime.client import Agent
from edgeloop.runtime.connection import connect
from edgeloop.runtime.device import Device

CHILD_SHARE = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotStatus:
    """What a device holds of one bundle name.

    Attributes:
        current: The release that answers there; None: none yet.
        floor: The highest version ever committed; none at or under it is taken again.
        state: "committed", "probation", "empty" or "damaged".
        last: {action, version, result, reason} of what was last tried.
    """

    current: int | None
    previous: int | None
    floor: int
    variant: str | None
    runtime: str | None
    threads: int
    manifest_sha256: str | None
    state: str
    last: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceStatus:
    """A device as it described itself. `machine`: each figure a value or "unknown"."""

    enrolled: bool
    machine: Mapping[str, Any]
    slots: Mapping[str, SlotStatus]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbationResult:
    """How a probation ended. `cause`: what a roll-back amounts to, a class of errors.py by its name."""

    committed: bool
    reason: str
    cause: str | None
    p50_ms: float | None
    p90_ms: float | None
    runs: int


@dataclass(frozen=True, slots=True)
class ReleaseClient:
    """A running `keep`. Every question raises DeviceError where it died or did not answer in time."""

    agent: Agent

    def status(self) -> DeviceStatus:
        answer = self.agent.ask("status")[0]
        slots = {name: _slot(slot) for name, slot in answer["slots"].items()}
        return DeviceStatus(enrolled=bool(answer["enrolled"]), machine=answer["machine"], slots=slots)

    def enroll(self, signers: bytes) -> None:
        """Raises IntegrityError where others are enrolled already."""
        self.agent.ask("enroll", {}, signers)

    def begin(self, slot: str, variant: str, runtime: str, threads: int, manifest: bytes) -> list[str] | None:
        """The files that must travel; None: this very release runs there so already, nothing to do.

        Raises:
            IntegrityError: Another name than the slot's, or a version at or under the floor.
        """
        fields = {"slot": slot, "variant": variant, "runtime": runtime, "threads": threads}
        answer = self.agent.ask("begin", fields, manifest)[0]
        return None if answer["unchanged"] else list(answer["missing"])

    def push(self, slot: str, file: Path, path: str) -> None:
        """Bring one file into the staging; an upload that broke off goes on. Raises IntegrityError: damaged."""
        self.agent.push(file, path, {"slot": slot})

    def check(self, slot: str, runtime: str) -> None:
        """Signature, hashes, no unlisted file, version, requirements. Raises IntegrityError, TargetError."""
        self.agent.ask("check", {"slot": slot, "runtime": runtime})

    def trial(self, slot: str, runtime: str, threads: int) -> dict[str, Any]:
        """The golden inputs in a child of its own: {parity, p50_ms, p90_ms, rss_peak_bytes}.

        Raises:
            ParityError: Wrong answers.
            TargetError: The child died: a CPU instruction, the memory.
        """
        how = {"runtime": runtime, "threads": threads, "timeout_s": self._child_timeout_s}
        return self.agent.ask("trial", {"slot": slot, **how})[0]

    def activate(self, slot: str, runs: int, p90_budget_ms: float | None) -> ProbationResult:
        """Install, make current, and keep or roll back after a probation of `runs` calls."""
        probation = {"runs": runs, "p90_budget_ms": p90_budget_ms, "timeout_s": self._child_timeout_s}
        answer = self.agent.ask("activate", {"slot": slot, "probation": probation})[0]
        return ProbationResult(
            committed=answer["result"] == "committed",
            reason=answer.get("reason") or "",
            cause=answer.get("cause"),
            p50_ms=answer.get("p50_ms"),
            p90_ms=answer.get("p90_ms"),
            runs=int(answer.get("runs") or 0),
        )

    def rollback(self, slot: str) -> dict[str, Any]:
        """Back to the kept release. Raises OptionsError: there is none; IntegrityError: it was changed there."""
        return self.agent.ask("rollback", {"slot": slot})[0]

    @property
    def _child_timeout_s(self) -> float:
        """Of the child that runs the model: `keep` must have time left to say that it took too long."""
        return CHILD_SHARE * self.agent.timeout_s


@contextlib.contextmanager
def release_client(device: Device, timeout_s: float) -> Iterator[ReleaseClient]:
    """`keep` on a device, for as long as the block runs; no answer takes longer than `timeout_s`.

    Raises:
        DeviceError: The device cannot be reached, or has no such Python.
    """
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile())
        connection = stack.enter_context(connect(device))
        child = stack.enter_context(connection.start(["edge.on_device.releases.release_agent"], log))
        yield ReleaseClient(Agent(child, device.name, timeout_s, log))


def _slot(answer: Mapping[str, Any]) -> SlotStatus:
    return SlotStatus(
        current=answer.get("current"),
        previous=answer.get("previous"),
        floor=int(answer.get("floor") or 0),
        variant=answer.get("variant"),
        runtime=answer.get("runtime"),
        threads=int(answer.get("threads") or 1),
        manifest_sha256=answer.get("manifest_sha256"),
        state=answer["state"],
        last=answer.get("last") or {},
    )
