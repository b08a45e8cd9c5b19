"""The asking end of the agent that keeps a device's releases: its requests, typed.

A host deploys with it, and so does a device that fetches its releases itself. Python 3.9 syntax, the standard library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeloop.bundle import FileEntry
from edgeloop.edge.on_device.releases.protocol import (
    ActivateReply,
    ActivateRequest,
    BeginRequest,
    CheckRequest,
    DeviceStatus,
    EnrollRequest,
    Probation,
    RollbackReply,
    RollbackRequest,
    StagePushRequest,
    StatusRequest,
    TrialReply,
    TrialRequest,
)
from edgeloop.hashes import digest
from edgeloop.processes.conversation import Conversation
from edgeloop.runtime.agent.send import Read, send_file, send_pieces

CHILD_SHARE = 0.8


@dataclass(frozen=True)
class ReleaseClient:
    """A running release agent. Every request raises DeviceError where it died or did not answer in time."""

    agent: Conversation

    def status(self) -> DeviceStatus:
        return self.agent.request(StatusRequest())[0]

    def enroll(self, signers: bytes) -> None:
        """Raises IntegrityError where others are enrolled already."""
        self.agent.request(EnrollRequest(), signers)

    def begin(
        self, slot: str, variant: str, runtime: str, threads: int, manifest: bytes, take_over: bool = False
    ) -> list[str] | None:
        """The files that must travel; None: this very release runs there so already, nothing to do.

        Raises:
            IntegrityError: Another name than the slot's, or a version at or under the floor.
            DeviceError: Another deploy to the slot is running, and this one does not `take_over`.
        """
        reply, _ = self.agent.request(BeginRequest(slot, variant, runtime, threads, take_over), manifest)
        return None if reply.unchanged else list(reply.missing)

    def push(self, slot: str, file: Path, path: str, sent: Callable[[int], None] = lambda size_bytes: None) -> None:
        """Bring one file into the staging; an upload that broke off goes on. `sent` is told of each piece, in bytes.

        Raises:
            IntegrityError: It arrived damaged.
        """
        send_file(self.agent, file, StagePushRequest(path, file.stat().st_size, digest(file), slot=slot), sent)

    def push_from(self, slot: str, read: Read, path: str, entry: FileEntry) -> None:
        """As `push`, of a file that `read` reads. Raises what `read` raises, too."""
        send_pieces(self.agent, read, StagePushRequest(path, entry.bytes, entry.sha256, slot=slot))

    def check(self, slot: str, runtime: str) -> None:
        """Signature, hashes, no unlisted file, version, requirements. Raises IntegrityError, TargetError."""
        self.agent.request(CheckRequest(slot, runtime))

    def trial(self, slot: str, runtime: str, threads: int) -> TrialReply:
        """The golden inputs in a child of its own.

        Raises:
            ParityError: Wrong answers.
            TargetError: The child died: a CPU instruction, the memory.
        """
        return self.agent.request(TrialRequest(slot, runtime, threads, self._child_timeout_s))[0]

    def activate(self, slot: str, runs: int, p90_budget_ms: float | None) -> ActivateReply:
        """Install, make current, and keep or roll back after a probation of `runs` calls."""
        probation = Probation(runs, p90_budget_ms, self._child_timeout_s)
        return self.agent.request(ActivateRequest(slot, probation))[0]

    def rollback(self, slot: str) -> RollbackReply:
        """Back to the kept release. Raises OptionsError: there is none; IntegrityError: it was changed there."""
        return self.agent.request(RollbackRequest(slot))[0]

    @property
    def _child_timeout_s(self) -> float:
        """Of the child that runs the model: the release agent must have time left to say that it took too long."""
        return CHILD_SHARE * self.agent.timeout_s
