"""A bundle to many devices, in waves; after the first failure no further wave starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgeloop.bundle import read_bundle
from edgeloop.edge.deploy.deploy import deploy_to
from edgeloop.edge.deploy.deploy_result import STEPS, DeployOptions, DeployResult, DeployStatus
from edgeloop.edge.deploy.parallel import Interrupted, Step, refuse_twice, run_on_all
from edgeloop.edge.deploy.waves import wave_sizes
from edgeloop.progress import Progress, silent
from edgeloop.runtime.device import Device

ALL = "100%"


def deploy(
    path: Path,
    devices: Sequence[Device],
    options: DeployOptions,
    waves: str = ALL,
    progress: Progress = silent,
) -> list[DeployResult]:
    """Check the bundle here, then deploy to each wave's devices at once; results in the devices' order.

    A device that fails keeps its release, or has rolled back to it by itself; the others of its wave finish.

    Raises:
        ModelError, IntegrityError: It is no bundle, or was changed: nothing is sent.
        OptionsError: Waves or devices contradict each other.
        Interrupted: Ctrl-C; its `results` are those of all devices.
    """
    refuse_twice(devices)
    sizes = wave_sizes(waves, len(devices))
    bundle = read_bundle(path)

    def work(device: Device, step: Step) -> DeployResult:
        return deploy_to(bundle, device, options, step)

    def tell(device: Device, step: str) -> None:
        progress(f"deploy to {device.label}", STEPS.index(step), len(STEPS))

    results = [_not_started(device, bundle.manifest.version, wave) for device, wave in _waves(devices, sizes)]
    for wave in range(1, len(sizes) + 1):
        begun = [device for device, number in _waves(devices, sizes) if number == wave]
        try:
            done = run_on_all(begun, work, tell)
        except Interrupted as e:
            raise Interrupted(_with(results, e.results)) from e
        results = _with(results, done)
        for result in done:
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
