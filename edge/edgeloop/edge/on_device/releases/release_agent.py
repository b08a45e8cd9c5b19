"""Holds the releases on a device: staged, checked, tried, activated on probation, committed or rolled back.

Its folder is $EDGELOOP_HOME or ~/.edgeloop; it answers the requests of protocol.py until stdin ends or at `close`.
At most one deploy works on a slot, from `begin` until `activate` or the end. Python 3.9 syntax.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeloop.atomic import make_folder
from edgeloop.bundle import parse_manifest
from edgeloop.disk_errors import REFUSED, write_error
from edgeloop.edge.on_device.releases.lifecycle import ReleaseEvent, advance, after
from edgeloop.edge.on_device.releases.lock import locked
from edgeloop.edge.on_device.releases.protocol import (
    COMMITTED,
    REQUESTS,
    ROLLED_BACK,
    ActivateReply,
    ActivateRequest,
    BeginReply,
    BeginRequest,
    CheckReply,
    CheckRequest,
    DeviceStatus,
    EnrollRequest,
    RollbackReply,
    RollbackRequest,
    StagePushRequest,
    StatusRequest,
    TrialReply,
    TrialRequest,
)
from edgeloop.edge.on_device.releases.recover import reconcile, recover
from edgeloop.edge.on_device.releases.release import activate, roll_back
from edgeloop.edge.on_device.releases.staged_bundle import check_name, check_staged
from edgeloop.edge.on_device.releases.staging import begin, push, runs_already
from edgeloop.edge.on_device.releases.status import status
from edgeloop.edge.on_device.releases.store import Slot, StagedRelease, read_state
from edgeloop.edge.on_device.releases.trust import enroll
from edgeloop.errors import EdgeloopError, OptionsError, ParityError, WriteError
from edgeloop.processes.frames import Header, Operation, serve
from edgeloop.processes.messages import EmptyReply, answering
from edgeloop.runtime.agent.paths import HOME, home
from edgeloop.runtime.agent.push import PushReply

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from edgeloop.edge.on_device.releases.trial import Start, TrialResult
    from edgeloop.runtime.agent.child_model import ChildModel

ELSEWHERE = f"set {HOME} there to another folder"


def start_in_child(*model: Any) -> AbstractContextManager[ChildModel]:
    """`model_in_child`, imported by the deploy that runs a model: most change nothing and never do."""
    from edgeloop.runtime.agent.child_model import model_in_child

    return model_in_child(*model)


class ReleaseAgent:
    """One deploy's access to the releases below `home`. `start` loads a model (child_model.py)."""

    def __init__(self, home: str, start: Start = start_in_child) -> None:
        self.home, self.start = home, start
        self.locks: dict[str, contextlib.ExitStack] = {}
        self.recovered = False

    def operations(self) -> dict[str, Operation]:
        """What `serve` needs."""
        return {kind.OP: self._answering(answering(kind, getattr(self, kind.OP))) for kind in REQUESTS}

    def status(self, asked: StatusRequest, payload: bytes) -> DeviceStatus:
        return status(self.home)

    def enroll(self, asked: EnrollRequest, payload: bytes) -> EmptyReply:
        enroll(self.home, payload)
        return EmptyReply()

    def begin(self, asked: BeginRequest, payload: bytes) -> BeginReply:
        slot, manifest = Slot(self.home, asked.slot), parse_manifest(payload)
        check_name(slot, manifest)
        variant = manifest.variant(asked.variant)
        if os.path.isdir(slot.path) and runs_already(slot, payload, variant, asked.runtime, asked.threads):
            return BeginReply([], unchanged=True)
        make_folder(slot.path)
        self._hold(slot, asked.take_over)
        reply = begin(slot, payload, manifest, variant, asked.runtime, asked.threads)
        if reply.unchanged:
            self._let_go(slot)
        return reply

    def push(self, asked: StagePushRequest, payload: bytes) -> PushReply:
        return push(self._hold(Slot(self.home, asked.slot)), asked, payload)

    def check(self, asked: CheckRequest, payload: bytes) -> CheckReply:
        slot = self._hold(Slot(self.home, asked.slot))
        checked = check_staged(slot, read_state(slot), asked.runtime)
        return CheckReply(checked.signer, checked.bundle.manifest.version)

    def trial(self, asked: TrialRequest, payload: bytes) -> TrialReply:
        from edgeloop.edge.on_device.releases.trial import TrialOptions, run_trial

        slot = self._hold(Slot(self.home, asked.slot))
        how = TrialOptions(asked.runtime, asked.threads, asked.timeout_s)
        checked = check_staged(slot, read_state(slot), how.runtime)
        seen = run_trial(self.start, checked.bundle, checked.variant, how)
        if seen.wrong is not None:
            raise ParityError(
                f"{checked.variant.id} on {how.runtime}: {seen.wrong}", advice="Choose another variant or runtime."
            )
        staged = StagedRelease(checked.bundle.manifest_sha256, checked.variant.id, how.runtime, how.threads)
        advance(slot, read_state(slot), ReleaseEvent.TRIAL, staged=staged)
        return TrialReply(seen.parity, rss_peak_bytes=seen.rss_peak_bytes, **_latency(seen))

    def activate(self, asked: ActivateRequest, payload: bytes) -> ActivateReply:
        from edgeloop.edge.on_device.releases.trial import TrialOptions, objection, run_trial

        terms = asked.probation
        slot = self._hold(Slot(self.home, asked.slot))
        state = read_state(slot)
        after(slot, state, ReleaseEvent.ACTIVATE)
        assert state.staged is not None and state.staged.runtime is not None  # in the only phase that has this step
        how = TrialOptions(state.staged.runtime, state.staged.threads, terms.timeout_s, terms.runs)
        checked, seen = check_staged(slot, state, how.runtime), None

        def probation(folder: str) -> EdgeloopError | None:
            nonlocal seen
            try:
                seen = run_trial(self.start, replace(checked.bundle, path=Path(folder)), checked.variant, how)
            except EdgeloopError as e:
                return e
            return objection(terms, seen)

        try:
            error = activate(slot, checked, how.runtime, how.threads, probation)
        finally:
            self._let_go(slot)
        if error is None:
            return ActivateReply(COMMITTED, **_latency(seen))
        return ActivateReply(ROLLED_BACK, error.to_json(), **_latency(seen))

    def rollback(self, asked: RollbackRequest, payload: bytes) -> RollbackReply:
        slot = self._hold(Slot(self.home, asked.slot))
        try:
            release = roll_back(slot)
        finally:
            self._let_go(slot)
        return RollbackReply(release.version, release.variant)

    def _hold(self, slot: Slot, take_over: bool = False) -> Slot:
        """The slot, with nobody else at work there and nothing half done."""
        if not os.path.isdir(slot.path):
            raise OptionsError(f"the device has no slot {slot.name!r}", advice="Deploy a bundle of that name first.")
        if slot.name not in self.locks:
            with contextlib.ExitStack() as stack:
                stack.enter_context(locked(slot.path, slot.name, take_over))
                reconcile(slot)
                self.locks[slot.name] = stack.pop_all()
        return slot

    def _let_go(self, slot: Slot) -> None:
        self.locks.pop(slot.name).close()

    def _answering(self, operation: Operation) -> Operation:
        def answer(header: Header, payload: bytes) -> tuple[Mapping[str, Any], bytes]:
            with _disk_errors(self.home, header.get("slot")):
                if not self.recovered:
                    recover(self.home)
                    self.recovered = True
                return operation(header, payload)

        return answer


def main(arguments: list[str]) -> None:
    serve(ReleaseAgent(home()).operations())


def _latency(seen: TrialResult | None) -> dict[str, Any]:
    if seen is None:
        return {"p50_ms": None, "p90_ms": None, "runs": 0}
    return {"p50_ms": seen.p50_ms, "p90_ms": seen.p90_ms, "runs": len(seen.wall_ms)}


@contextlib.contextmanager
def _disk_errors(folder: str, slot: object) -> Iterator[None]:
    """Raises WriteError where the disk refuses, which says what still runs in the slot that was asked for."""
    try:
        yield
    except OSError as e:
        if e.errno not in REFUSED:
            raise
        error = write_error(folder, e, ELSEWHERE)
        raise WriteError(error.found, advice=f"{_still_runs(folder, slot)}{error.advice}") from e


def _still_runs(folder: str, slot: object) -> str:
    if not isinstance(slot, str):
        return ""
    try:
        return f"Release {os.path.basename(os.readlink(Slot(folder, slot).current))} still runs. "
    except (OSError, OptionsError):
        return "Nothing was installed. "
