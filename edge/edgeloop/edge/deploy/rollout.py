"""A bundle to many devices, in waves; after the first failure no further wave starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from edgeloop.bundle import read_bundle
from edgeloop.edge.deploy.deploy import deploy_to
from edgeloop.edge.deploy.deploy_result import STEPS, DeployOptions, DeployResult, DeployStatus
from edgeloop.edge.deploy.device_options import refuse_other_slots
from edgeloop.edge.deploy.parallel import InterruptedRun, Step, refuse_twice, run_on_all
from edgeloop.edge.deploy.waves import wave_sizes
from edgeloop.progress import Progress, silent
from edgeloop.runtime.device import Device

ALL = "100%"
DEFAULTS = DeployOptions()
NONE: Mapping[Device, DeployOptions] = MappingProxyType({})


def deploy(
    path: str | Path,
    devices: Sequence[Device],
    options: DeployOptions = DEFAULTS,
    waves: str = ALL,
    progress: Progress = silent,
    own: Mapping[Device, DeployOptions] = NONE,
) -> list[DeployResult]:
    """Deliver a bundle: read and checked here first, then sent to all devices of a wave at once.

    A device where a check fails keeps the release it runs, or has returned to it by itself; the other devices of its
    wave finish, and later waves do not start.

    Args:
        path: The bundle folder. A device that enrolled signers takes a signed one alone.
        options: For devices that have none of their `own`.
        waves: Cumulative rollout waves, as counts or percentages: `"1,10%,100%"`.

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
    sizes = wave_sizes(waves, len(devices))
    bundle = read_bundle(path)
    each = {device: own.get(device, options) for device in devices}
    refuse_other_slots(bundle.manifest.name, each)

    def work(device: Device, step: Step) -> DeployResult:
        return deploy_to(bundle, device, each[device], step)

    def tell(device: Device, step: str, done_bytes: int, total_bytes: int) -> None:
        progress(f"deploy to {device.label}", STEPS.index(step), len(STEPS))
        if total_bytes:
            progress(f"send kB to {device.label}", done_bytes // 1000, total_bytes // 1000)

    results = [_not_started(device, bundle.manifest.version, wave) for device, wave in _waves(devices, sizes)]
    for wave in range(1, len(sizes) + 1):
        begun = [device for device, number in _waves(devices, sizes) if number == wave]
        try:
            done = run_on_all(begun, work, tell)
        except InterruptedRun as e:
            raise InterruptedRun(_with(results, e.results)) from e
        results = _with(results, done)
        for result in done:
            if result.error is None:
                progress(f"deploy to {result.device.label}", len(STEPS), len(STEPS))
        if any(result.error for result in done):
            break
    return results


def _waves(devices: Sequence[Device], sizes: Sequence[int]) -> list[tuple[Device, int]]:
    """Each device with the number of its wave, from 1."""
    numbers = [wave for wave, size in enumerate(sizes, 1) for _ in range(size)]
    return list(zip(devices, numbers, strict=True))


def _not_started(device: Device, version: int, wave: int) -> DeployResult:
    return DeployResult(
        device=device,
        result=DeployStatus.NOT_STARTED,
        version=version,
        wave=wave,
        reason="nothing was changed",
    )


def _with(results: Sequence[DeployResult], done: Sequence[DeployResult]) -> list[DeployResult]:
    """`results`, with those of `done` put in for their devices."""
    new = {result.device: result for result in done}
    return [replace(new[o.device], wave=o.wave) if o.device in new else o for o in results]
