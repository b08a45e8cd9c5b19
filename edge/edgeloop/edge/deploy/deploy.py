"""One bundle, one device: status, choose, begin, push, check, trial, activate. The device decides, the host reports.

However a deploy ends (a signal, a lost connection, a full disk), the device has its old release or the new one, whole:
see on_device/releases/release_agent.py. Files that were pushed stay there, and the next deploy resumes with them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from edgeloop.bundle import MANIFEST, SIGNATURE, Bundle
from edgeloop.edge.deploy.deploy_result import DeployOptions, DeployResult, DeployStatus
from edgeloop.edge.deploy.device_findings import clock_remarks
from edgeloop.edge.deploy.parallel import Step
from edgeloop.edge.deploy.release_client import release_client
from edgeloop.edge.deploy.speed_cache import available_runtimes, measure_speeds
from edgeloop.edge.on_device.releases.protocol import DeviceStatus, SlotStatus
from edgeloop.edge.on_device.releases.release_client import ReleaseClient
from edgeloop.edge.on_device.variants.variant_choice import VariantFit, choose_fastest, fitting_variants
from edgeloop.errors import EdgeloopError, IntegrityError, TargetError, error_from_json
from edgeloop.runtime.device import Device


def deploy_to(
    bundle: Bundle, device: Device, options: DeployOptions, step: Step, answers: Callable[[Device], None]
) -> DeployResult:
    """Deploy the bundle to the device. Any EdgeloopError becomes the result's. `answers` is called once the device has
    answered."""
    deployment = _Deployment(bundle, device, options, step, answers)
    try:
        deployment.begin("connect")
        with release_client(device, options.timeout_s) as client:
            return deployment.run(client)
    except EdgeloopError as e:
        hint = ""
        if deployment.result.step == "activate":
            hint = " Run edgeloop devices to see which release the device runs now."
        return replace(
            deployment.result, result=DeployStatus.FAILED, reason=f"{e.told_beside(device.name)}{hint}", error=e
        )


class _Deployment:
    """One deploy to one device; `result` is what is known of it so far."""

    def __init__(
        self, bundle: Bundle, device: Device, options: DeployOptions, step: Step, answers: Callable[[Device], None]
    ) -> None:
        self.bundle, self.device, self.options, self._step, self._answers = bundle, device, options, step, answers
        self.slot = bundle.manifest.name
        self.result = DeployResult(
            device=device, result=DeployStatus.FAILED, version=bundle.manifest.version, reason=""
        )

    def run(self, client: ReleaseClient) -> DeployResult:
        status = client.status()
        held = status.slots.get(self.slot)
        self._answers(self.device)
        self.result = replace(
            self.result, before=held.current if held else None, remarks=clock_remarks(status.clock_s, time.time())
        )
        _refuse_early(self.bundle, status, held)
        self.begin("choose")
        fit, why = self._choose(status, held)
        self.result = replace(self.result, variant=fit.variant.id, runtime=fit.runtime)
        self.begin("begin")
        manifest = self.bundle.file(MANIFEST).read_bytes()
        threads, take_over = self.options.threads, self.options.take_over
        missing = client.begin(self.slot, fit.variant.id, fit.runtime, threads, manifest, take_over)
        if missing is None:
            return replace(self.result, result=DeployStatus.UNCHANGED, reason="the device runs this release already")
        self.begin("push")
        self._push(client, missing)
        self.begin("check")
        client.check(self.slot, fit.runtime)
        self.begin("trial")
        client.trial(self.slot, fit.runtime, self.options.threads)
        self.begin("activate")
        return self._activate(client, why)

    def begin(self, name: str) -> None:
        self._step(name)
        self.result = replace(self.result, step=name)

    def _choose(self, status: DeviceStatus, held: SlotStatus | None) -> tuple[VariantFit, str]:
        fitting = fitting_variants(self.bundle, status.machine, self.options.constraints)
        if held and held.state == "committed" and held.manifest_sha256 == self.bundle.manifest_sha256:
            for fit in fitting:
                if (fit.variant.id, fit.runtime) == (held.variant, held.runtime):
                    return fit, "the variant that runs there still fits"
        if len(fitting) == 1:
            return fitting[0], "the only variant that fits"
        if len({fit.variant.id for fit in fitting}) == 1:  # named, or the only one: no need to measure its runtimes
            installed = available_runtimes(self.device, [fit.runtime for fit in fitting])
            return next(
                fit for fit in fitting if fit.runtime == installed[0]
            ), "the first runtime that is installed there"
        speeds = measure_speeds(
            self.bundle, self.device, fitting, self.options.threads, self.options.timeout_s, self._report
        )
        return choose_fastest(fitting, speeds, self.options.constraints)

    def _report(self, what: str, done: int, total: int) -> None:
        self._step("choose")

    def _push(self, client: ReleaseClient, missing: Sequence[str]) -> None:
        signed = [SIGNATURE] if self.bundle.file(SIGNATURE).is_file() else []
        files = {path: self.bundle.file(path) for path in [*missing, *signed]}
        total_bytes = sum(file.stat().st_size for file in files.values())

        def sent(size_bytes: int) -> None:
            self.result = replace(self.result, sent_bytes=self.result.sent_bytes + size_bytes)
            self._step("push", self.result.sent_bytes, total_bytes)

        for path, file in files.items():
            client.push(self.slot, file, path, sent)

    def _activate(self, client: ReleaseClient, why: str) -> DeployResult:
        probation = client.activate(self.slot, self.options.probation, self.options.p90_budget_ms)
        result = replace(self.result, runs=probation.runs, p50_ms=probation.p50_ms, p90_ms=probation.p90_ms)
        if probation.failure is None:
            return replace(result, result=DeployStatus.COMMITTED, reason=why)
        version, before = self.result.version, self.result.before
        back = f"it runs release {before} again" if before else "it runs no release"
        cause = error_from_json(probation.failure, TargetError, doing="the probation")
        error = type(cause)(
            f"release {version} was rolled back ({cause.found}); {back}.", advice=cause.advice, where=self.device.name
        )
        return replace(result, result=DeployStatus.ROLLED_BACK, reason=str(cause), error=error)


def _refuse_early(bundle: Bundle, status: DeviceStatus, held: SlotStatus | None) -> None:
    """Refuse now what the device would refuse once all has been measured and pushed."""
    if status.enrolled and not bundle.file(SIGNATURE).is_file():
        raise IntegrityError(
            f"{bundle.path} is not signed, and the device takes signed bundles only",
            advice="Run: edgeloop convert ... --sign KEY",
        )
    manifest = bundle.manifest
    if held and held.manifest_sha256 != bundle.manifest_sha256 and manifest.version <= held.floor:
        raise IntegrityError(
            f"release {manifest.version} of {manifest.name} is not above release {held.floor}, which the device "
            "has committed",
            advice=f"Convert with --release {held.floor + 1} or higher.",
        )
