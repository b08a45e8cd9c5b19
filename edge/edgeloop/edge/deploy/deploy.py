"""One bundle, one device: status, choose, begin, push, check, trial, activate. The device decides, the host reports.

Whatever ends this (a signal, a dead line, a full disk) leaves the device with its old release or the new one, whole:
the work of on_device/releases/keep.py. What was pushed stays there, and the next deploy goes on with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgeloop.bundle import MANIFEST, SIGNATURE, Bundle
from edgeloop.edge.deploy.deploy_result import DeployOptions, DeployResult, DeployStatus
from edgeloop.edge.deploy.fleet import add_devices
from edgeloop.edge.deploy.parallel import Step
from edgeloop.edge.deploy.release_client import DeviceStatus, ReleaseClient, SlotStatus, release_client
from edgeloop.edge.deploy.speed_cache import available_runtimes, measure_speeds
from edgeloop.edge.deploy.variant_choice import VariantFit, choose_fastest, fitting_variants
from edgeloop.errors import DataError, DeviceError, EdgeloopError, IntegrityError, ParityError, TargetError
from edgeloop.runtime.device import Device

CAUSES = {error.__name__: error for error in (ParityError, TargetError, DeviceError, DataError)}


def deploy_to(bundle: Bundle, device: Device, options: DeployOptions, step: Step) -> DeployResult:
    """Bring the bundle to the device and see it through. Any EdgeloopError becomes the outcome's."""
    run = _Run(bundle, device, options, step)
    try:
        run.begin("connect")
        with release_client(device, options.timeout_s) as keep:
            return run.through(keep)
    except EdgeloopError as e:
        hint = ""
        if run.outcome.step == "activate":
            hint = " What runs there now, the old or the new, says: edgeloop devices"
        return replace(run.outcome, result=DeployStatus.FAILED, reason=f"{e}{hint}", error=e)


class _Run:
    """One deploy, and what is known of it so far."""

    def __init__(self, bundle: Bundle, device: Device, options: DeployOptions, step: Step) -> None:
        self.bundle, self.device, self.options, self._step = bundle, device, options, step
        self.slot = bundle.manifest.name
        self.outcome = DeployResult(
            device=device, result=DeployStatus.FAILED, version=bundle.manifest.version, reason=""
        )

    def through(self, keep: ReleaseClient) -> DeployResult:
        status = keep.status()
        held = status.slots.get(self.slot)
        add_devices([self.device])
        self.outcome = replace(self.outcome, before=held.current if held else None)
        _refuse_early(self.bundle, status, held)
        self.begin("choose")
        fit, why = self._choose(status, held)
        self.outcome = replace(self.outcome, variant=fit.variant.id, runtime=fit.runtime)
        self.begin("begin")
        manifest = self.bundle.file(MANIFEST).read_bytes()
        missing = keep.begin(self.slot, fit.variant.id, fit.runtime, self.options.threads, manifest)
        if missing is None:
            return replace(self.outcome, result=DeployStatus.UNCHANGED, reason="this release runs there already")
        self.begin("push")
        self._push(keep, missing)
        self.begin("check")
        keep.check(self.slot, fit.runtime)
        self.begin("trial")
        keep.trial(self.slot, fit.runtime, self.options.threads)
        self.begin("activate")
        return self._activate(keep, why)

    def begin(self, name: str) -> None:
        self._step(name)
        self.outcome = replace(self.outcome, step=name)

    def _choose(self, status: DeviceStatus, held: SlotStatus | None) -> tuple[VariantFit, str]:
        fitting = fitting_variants(self.bundle, status.machine, self.options.constraints)
        if held and held.state == "committed" and held.manifest_sha256 == self.bundle.manifest_sha256:
            for fit in fitting:
                if (fit.variant.id, fit.runtime) == (held.variant, held.runtime):
                    return fit, "what runs there still fits"
        if len(fitting) == 1:
            return fitting[0], "the only one that fits"
        if len({fit.variant.id for fit in fitting}) == 1:  # named, or the only one: no need to measure its runtimes
            there = available_runtimes(self.device, [fit.runtime for fit in fitting])
            return next(fit for fit in fitting if fit.runtime == there[0]), "the first runtime that is there"
        speeds = measure_speeds(self.bundle, self.device, fitting, self.options.threads, self._measuring)
        return choose_fastest(fitting, speeds, self.options.constraints)

    def _measuring(self, what: str, done: int, total: int) -> None:
        self._step("choose")

    def _push(self, keep: ReleaseClient, missing: Sequence[str]) -> None:
        signed = [SIGNATURE] if self.bundle.file(SIGNATURE).is_file() else []
        for path in [*missing, *signed]:
            file = self.bundle.file(path)
            keep.push(self.slot, file, path)
            self.outcome = replace(self.outcome, sent_bytes=self.outcome.sent_bytes + file.stat().st_size)
            self._step("push")

    def _activate(self, keep: ReleaseClient, why: str) -> DeployResult:
        verdict = keep.activate(self.slot, self.options.probation, self.options.p90_budget_ms)
        outcome = replace(self.outcome, p50_ms=verdict.p50_ms, p90_ms=verdict.p90_ms)
        if verdict.committed:
            return replace(outcome, result=DeployStatus.COMMITTED, reason=why)
        version, before = self.outcome.version, self.outcome.before
        back = f"release {before} runs there again" if before else "nothing runs there"
        error = CAUSES.get(verdict.cause or "", TargetError)(
            f"{self.device.name}: release {version} was rolled back: {verdict.reason}; {back}"
        )
        return replace(outcome, result=DeployStatus.ROLLED_BACK, reason=verdict.reason, error=error)


def _refuse_early(bundle: Bundle, status: DeviceStatus, held: SlotStatus | None) -> None:
    """What the device would refuse when all has been measured and pushed."""
    if status.enrolled and not bundle.file(SIGNATURE).is_file():
        raise IntegrityError(
            f"{bundle.path} is not signed, and the device is enrolled. Run: edgeloop convert ... --sign KEY"
        )
    manifest = bundle.manifest
    if held and held.manifest_sha256 != bundle.manifest_sha256 and manifest.version <= held.floor:
        raise IntegrityError(
            f"release {manifest.version} of {manifest.name} is not above {held.floor}, the highest committed there. "
            f"Convert it with --release {held.floor + 1}."
        )
