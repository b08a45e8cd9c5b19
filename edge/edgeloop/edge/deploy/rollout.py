"""A bundle to many devices, in waves; after a failure no further wave starts. One that ended early resumes."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from edgeloop.bundle import Bundle, read_bundle
from edgeloop.edge.deploy.deploy import deploy_to
from edgeloop.edge.deploy.deploy_result import STEPS, DeployOptions, DeployResult, DeployStatus
from edgeloop.edge.deploy.device_options import refuse_other_slots
from edgeloop.edge.deploy.history import History, kept_history
from edgeloop.edge.deploy.history_rows import STARTED, HistoryAction, HistoryRow, now, of_device, shown_time
from edgeloop.edge.deploy.parallel import InterruptedRun, Step, refuse_twice, run_on_all
from edgeloop.edge.deploy.resume import DONE, FAILED, INTERRUPTED, demands, done_before, known_of_slot, unfinished
from edgeloop.edge.deploy.waves import failures_allowed, wave_sizes
from edgeloop.progress import Progress, Say, silent
from edgeloop.runtime.device import Device

log = logging.getLogger(__name__)
ALL = "100%"
DEFAULTS = DeployOptions()
NONE: Mapping[Device, DeployOptions] = MappingProxyType({})
KEPT = ("before", "variant", "runtime", "step", "runs", "p50_ms", "p90_ms", "sent_bytes", "duration_s", "reason")


def deploy(
    path: str | Path,
    devices: Sequence[Device],
    options: DeployOptions = DEFAULTS,
    waves: str = ALL,
    progress: Progress = silent,
    own: Mapping[Device, DeployOptions] = NONE,
    resume: bool = False,
    max_failed: str = "0",
    say: Say | None = None,
) -> list[DeployResult]:
    """Deliver a bundle: read and checked here first, then sent to all devices of a wave at once.

    A device where a check fails keeps the release it runs, or has returned to it by itself; the other devices of its
    wave finish, and later waves do not start if more devices failed than may. What happens is kept in the history.

    Args:
        path: The bundle folder. A device that enrolled signers takes a signed one alone.
        options: For devices that have none of their `own`.
        waves: Cumulative rollout waves, as counts or percentages: `"1,10%,100%"`.
        resume: Continue the last rollout of this release, if it ended early: devices that have the release, as the
            history knows, are not asked again.
        max_failed: How many devices may fail in the whole rollout before no further wave starts: `"2"` or `"5%"`.
        say: Told which wave begins, and if no history was kept. None: that is logged.

    Returns:
        One result a device, in their order; `error` is None where every check passed. Times in milliseconds, sizes in
        bytes.

    Raises:
        ModelError, IntegrityError: The bundle is none, or was changed: nothing is sent.
        OptionsError: Waves or devices contradict each other, or a device takes bundles of another name.
        InterruptedRun: Ctrl-C; its `results` are the outcomes of all devices.

    Example:
        >>> (result,) = deploy("m/", [parse_device("ssh://pi@camera.local")])
        >>> result.result, result.variant, result.p90_ms
    """
    refuse_twice(devices)
    sizes, allowed = wave_sizes(waves, len(devices)), failures_allowed(max_failed, len(devices))
    bundle = read_bundle(path)
    each = {device: own.get(device, options) for device in devices}
    refuse_other_slots(bundle.manifest.name, each)
    numbers = [wave for wave, size in enumerate(sizes, 1) for _ in range(size)]
    with kept_history(say) as history:
        rollout = _Rollout(bundle, each, dict(zip(devices, numbers, strict=True)), history, say or log.info)
        rollout.begin(waves, resume)
        return rollout.run(allowed, progress)


class _Rollout:
    """One command's part of a rollout; `results` has each device, with the number of its wave from 1."""

    def __init__(
        self,
        bundle: Bundle,
        each: Mapping[Device, DeployOptions],
        waves: Mapping[Device, int],
        history: History,
        say: Say,
    ) -> None:
        self.bundle, self.each, self.waves, self.history, self.say = bundle, each, waves, history, say
        self.number: int | None = None
        self.results = {
            device: DeployResult(
                device=device,
                result=DeployStatus.NOT_STARTED,
                version=bundle.manifest.version,
                wave=wave,
                reason="nothing was changed",
            )
            for device, wave in waves.items()
        }

    def begin(self, waves: str, resume: bool) -> None:
        """Write the rollout down, or take up the last one."""
        manifest, sha256, count = self.bundle.manifest, self.bundle.manifest_sha256, len(self.waves)
        release = f"release {manifest.version} of {manifest.name}"
        known = self.history.read(lambda db: known_of_slot(db, manifest.name))
        last = unfinished(known, sha256)
        if known is None or last is None:
            if resume:
                self.say(f"The history has no rollout of {release} that ended early: every device is asked.")
            self.number = self.history.begin_rollout(manifest.name, manifest.version, sha256, waves, count)
            return
        done = done_before(known, sha256, self.each)
        if not resume:
            if done:
                self.say(
                    f"A rollout of {release} ended early; {len(done)} of {count} devices have this release. "
                    "With --resume they are not asked again."
                )
            self.number = self.history.begin_rollout(manifest.name, manifest.version, sha256, waves, count)
            return
        self.number = last.number
        for device, row in done.items():
            self.results[device] = _from_history(self.results[device], row)
        self.say(f"Resuming the rollout of {shown_time(last.at)} UTC: {len(done)} of {count} devices have {release}.")

    def run(self, allowed: int, progress: Progress) -> list[DeployResult]:
        """Every wave that has a device without the release, until more than the allowed number of devices failed."""
        try:
            for wave in range(1, max(self.waves.values()) + 1):
                done = self._wave(wave, progress)
                for result in done:
                    if result.error is None:
                        progress(f"deploy to {result.device.label}", len(STEPS), len(STEPS))
                if self._failed() > allowed:
                    break
        except KeyboardInterrupt as e:
            self._take(e.results if isinstance(e, InterruptedRun) else ())
            self.history.end_rollout(self.number, INTERRUPTED)
            raise InterruptedRun(list(self.results.values())) from e
        self.history.end_rollout(self.number, FAILED if self._failed() else DONE)
        return list(self.results.values())

    def _failed(self) -> int:
        return sum(result.error is not None for result in self.results.values())

    def _wave(self, wave: int, progress: Progress) -> list[DeployResult]:
        """Results of its devices that were not done before."""

        def tell(device: Device, step: str, done_bytes: int, total_bytes: int) -> None:
            progress(f"deploy to {device.label}", STEPS.index(step), len(STEPS))
            if total_bytes:
                progress(f"send kB to {device.label}", done_bytes // 1000, total_bytes // 1000)

        last = max(self.waves.values())
        begun = [o.device for o in self.results.values() if o.wave == wave and o.result is DeployStatus.NOT_STARTED]
        if begun and last > 1:
            self.say(f"Wave {wave} of {last}: {len(begun)} {'device' if len(begun) == 1 else 'devices'}.")
        done = run_on_all(begun, self._work, tell)
        self._take(done)
        return done

    def _take(self, done: Sequence[DeployResult]) -> None:
        for result in done:
            self.results[result.device] = replace(result, wave=self.waves[result.device])

    def _work(self, device: Device, step: Step) -> DeployResult:
        begun_s = time.monotonic()
        id = self.history.begin(self._row(device))
        result = deploy_to(self.bundle, device, self.each[device], step, self.history.remember)
        result = replace(result, duration_s=time.monotonic() - begun_s)
        known = {name: getattr(result, name) for name in KEPT}
        error = result.error.exit_code if result.error else None
        self.history.end(id, {**known, "result": result.result.value, "exit_code": error})
        return result

    def _row(self, device: Device) -> HistoryRow:
        """Of a deploy that nothing is known of yet."""
        return HistoryRow(
            **of_device(now(), HistoryAction.DEPLOY, device),
            result=STARTED,
            slot=self.bundle.manifest.name,
            version=self.bundle.manifest.version,
            manifest_sha256=self.bundle.manifest_sha256,
            rollout=self.number,
            wave=self.waves[device],
            options=demands(self.each[device]),
        )


def _from_history(result: DeployResult, row: HistoryRow) -> DeployResult:
    """Of a device that is not asked again."""
    return replace(
        result,
        result=DeployStatus.DONE_BEFORE,
        reason=f"the device has had this release since {shown_time(row.at)} UTC and was not asked again",
        variant=row.variant,
        runtime=row.runtime,
        runs=row.runs,
        p50_ms=row.p50_ms,
        p90_ms=row.p90_ms,
    )
