"""Holds the releases on a device: staged, checked, tried, activated on probation, committed or rolled back.

    release_agent       its folder is $EDGELOOP_HOME or ~/.edgeloop; it answers frames (frames.py) until stdin ends

    status    {} -> what is here (status.py)
    enroll    {} + allowed_signers -> {}                          once (trust.py)
    begin     {slot, variant, runtime, threads} + manifest.json -> {missing, unchanged}
    push      {slot, path, size, sha256, offset} + bytes -> {have, done}: one of `missing`, or manifest.json.sig
    check     {slot, runtime} -> {signer, version}                nothing is run
    trial     {slot, runtime, threads, timeout_s} -> {parity, p50_ms, p90_ms, rss_peak_bytes}
    activate  {slot, probation: {runs, p90_budget_ms, timeout_s}} -> {result, reason, cause, p50_ms, p90_ms, runs};
                  result: committed, or rolled back for a reason; cause: its class in errors.py
    rollback  {slot} -> {version, variant}
    close

`trial` and `activate` check everything again first: what runs on an enrolled device is signed, whatever was asked.
At most one deploy works on a slot, from `begin` until `activate` or the end. Python 3.9 syntax.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeloop import atomic
from edgeloop.atomic import make_folder
from edgeloop.bundle import parse_manifest
from edgeloop.edge.on_device.releases.lifecycle import ReleaseEvent, advance, after
from edgeloop.edge.on_device.releases.lock import locked
from edgeloop.edge.on_device.releases.recover import reconcile, recover
from edgeloop.edge.on_device.releases.release import activate, roll_back
from edgeloop.edge.on_device.releases.staged_bundle import check_name, check_staged
from edgeloop.edge.on_device.releases.staging import begin, push, variant_of
from edgeloop.edge.on_device.releases.status import status
from edgeloop.edge.on_device.releases.store import Slot, StagedRelease, read_state
from edgeloop.edge.on_device.releases.trust import enroll
from edgeloop.errors import EdgeloopError, OptionsError, ParityError, WriteError
from edgeloop.processes.frames import serve
from edgeloop.runtime.agent.child_model import model_in_child
from edgeloop.runtime.agent.paths import home

if TYPE_CHECKING:
    from edgeloop.edge.on_device.releases.trial import Start, TrialResult

OPERATIONS = ("status", "enroll", "begin", "push", "check", "trial", "activate", "rollback")
# what a write fails with when it is the disk's fault, or the permissions'
DISK = atomic.DISK | {errno.EACCES, errno.EPERM}

Operation = Callable[[Mapping[str, Any], bytes], dict]


class ReleaseAgent:
    """One deploy's access to the releases below `home`. `start` loads a model (child_model.py)."""

    def __init__(self, home: str, start: Start = model_in_child) -> None:
        self.home, self.start = home, start
        self.locks: dict[str, contextlib.ExitStack] = {}
        self.recovered = False

    def operations(self) -> dict[str, Callable[[Mapping[str, Any], bytes], tuple[dict, bytes]]]:
        """What `serve` needs."""
        return {name: self._answering(getattr(self, name)) for name in OPERATIONS}

    def status(self, header: Mapping[str, Any], payload: bytes) -> dict[str, Any]:
        return status(self.home)

    def enroll(self, header: Mapping[str, Any], payload: bytes) -> dict[str, Any]:
        enroll(self.home, payload)
        return {}

    def begin(self, header: Mapping[str, Any], payload: bytes) -> dict[str, Any]:
        slot, manifest = Slot(self.home, header["slot"]), parse_manifest(payload)
        check_name(slot, manifest)
        variant = variant_of(manifest, header["variant"])
        make_folder(slot.path)
        self._hold(slot)
        answer = begin(slot, payload, manifest, variant, header.get("runtime"), header.get("threads"))
        if answer["unchanged"]:
            self._let_go(slot)
        return answer

    def push(self, header: Mapping[str, Any], payload: bytes) -> dict[str, Any]:
        return push(self._hold(Slot(self.home, header["slot"])), header, payload)

    def check(self, header: Mapping[str, Any], payload: bytes) -> dict[str, Any]:
        slot = self._hold(Slot(self.home, header["slot"]))
        checked = check_staged(slot, read_state(slot), header["runtime"])
        return {"signer": checked.signer, "version": checked.bundle.manifest.version}

    def trial(self, header: Mapping[str, Any], payload: bytes) -> dict[str, Any]:
        from edgeloop.edge.on_device.releases.trial import (  # with NumPy, which a deploy without changes never needs
            TrialOptions,
            run_trial,
        )

        slot = self._hold(Slot(self.home, header["slot"]))
        how = TrialOptions(header["runtime"], int(header.get("threads", 1)), float(header.get("timeout_s", 120)))
        checked = check_staged(slot, read_state(slot), how.runtime)
        seen = run_trial(self.start, checked.bundle, checked.variant, how)
        if seen.wrong is not None:
            raise ParityError(
                f"{checked.variant.id} on {how.runtime}: {seen.wrong}", advice="Choose another variant or runtime."
            )
        staged = StagedRelease(checked.bundle.manifest_sha256, checked.variant.id, how.runtime, how.threads)
        advance(slot, read_state(slot), ReleaseEvent.TRIAL, staged=staged)
        parity = [asdict(row) for row in seen.parity]
        return {"parity": parity, "rss_peak_bytes": seen.rss_peak_bytes, **_latency(seen)}

    def activate(self, header: Mapping[str, Any], payload: bytes) -> dict[str, Any]:
        from edgeloop.edge.on_device.releases.trial import Probation, TrialOptions, run_trial

        terms = Probation(**(header.get("probation") or {}))
        slot = self._hold(Slot(self.home, header["slot"]))
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
            return terms.objection(seen)

        try:
            against = activate(slot, checked, how.runtime, how.threads, probation)
        finally:
            self._let_go(slot)
        if against is None:
            return {"result": "committed", "reason": None, "cause": None, **_latency(seen)}
        return {"result": "rolled back", "reason": str(against), "cause": type(against).__name__, **_latency(seen)}

    def rollback(self, header: Mapping[str, Any], payload: bytes) -> dict[str, Any]:
        slot = self._hold(Slot(self.home, header["slot"]))
        try:
            release = roll_back(slot)
        finally:
            self._let_go(slot)
        return {"version": release.version, "variant": release.variant}

    def _hold(self, slot: Slot) -> Slot:
        """The slot, with nobody else at work there and nothing half done."""
        if not os.path.isdir(slot.path):
            raise OptionsError(f"the device has no slot {slot.name!r}", advice="Deploy a bundle of that name first.")
        if slot.name not in self.locks:
            with contextlib.ExitStack() as stack:
                stack.enter_context(locked(slot.path, slot.name))
                reconcile(slot)
                self.locks[slot.name] = stack.pop_all()
        return slot

    def _let_go(self, slot: Slot) -> None:
        self.locks.pop(slot.name).close()

    def _answering(self, operation: Operation) -> Callable[[Mapping[str, Any], bytes], tuple[dict, bytes]]:
        def answer(header: Mapping[str, Any], payload: bytes) -> tuple[dict, bytes]:
            with _disk_errors(self.home):
                if not self.recovered:
                    recover(self.home)
                    self.recovered = True
                return operation(header, payload), b""

        return answer


def main(arguments: list[str]) -> None:
    serve(ReleaseAgent(home()).operations())


def _latency(seen: TrialResult | None) -> dict[str, Any]:
    if seen is None:
        return {"p50_ms": None, "p90_ms": None, "runs": 0}
    return {"p50_ms": seen.p50_ms, "p90_ms": seen.p90_ms, "runs": len(seen.wall_ms)}


@contextlib.contextmanager
def _disk_errors(folder: str) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        if e.errno not in DISK:
            raise
        raise WriteError(
            f"cannot write below {folder}: {e.strerror}",
            advice="The old release still runs. Free some space there and try again.",
        ) from e
