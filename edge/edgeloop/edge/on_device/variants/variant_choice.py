"""A bundle, a device's status and measurements in; which variant the device gets, on which runtime, out.

A pair of variant and runtime fits where the variant was proved on the runtime when it was converted, the machine has
what the variant requires, and its outputs are accurate enough: accuracy_rule.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeloop.bundle import TRAIN, Bundle, Variant
from edgeloop.edge.on_device.variants.accuracy_rule import AccuracyLimits, accurate_variants
from edgeloop.errors import DeviceError, OptionsError, TargetError
from edgeloop.quantities import above_zero
from edgeloop.runtime_table import DEVICE_RUNTIMES


@dataclass(frozen=True)
class DeployConstraints:
    """Which variants the user accepts.

    Attributes:
        variant: By id; no other is considered then. None: the fastest that fits.
        runtime: By name. None: any that is installed on the device.
        min_accuracy: On labelled data (AUC where there is no accuracy), 0 to 1. None: as accuracy_rule.py says.
        max_rmse: Of a model that predicts numbers, in their unit. None: as above.
        max_ram_bytes: Peak memory of the process that runs the model.
    """

    variant: str | None = None
    runtime: str | None = None
    min_accuracy: float | None = None
    max_rmse: float | None = None
    max_ram_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.runtime is not None and self.runtime not in DEVICE_RUNTIMES:
            raise OptionsError(f"--runtime is {self.runtime!r}", advice=f"Choose one of: {', '.join(DEVICE_RUNTIMES)}.")
        if self.min_accuracy is not None and not 0 <= self.min_accuracy <= 1:
            raise OptionsError(f"--min-accuracy is {self.min_accuracy:g}", advice="It must be from 0 to 1, e.g. 0.97.")
        if self.max_rmse is not None and not 0 <= self.max_rmse < math.inf:
            raise OptionsError(f"--max-rmse is {self.max_rmse:g}", advice="It must be 0 or more.")
        if self.max_ram_bytes is not None:
            above_zero(self.max_ram_bytes / 1e6, "--max-ram-mb")


@dataclass(frozen=True)
class VariantFit:
    """A variant that may run on that runtime of the device."""

    variant: Variant
    runtime: str


@dataclass(frozen=True)
class MeasuredSpeed:
    """Measured on the device. `ms`: median wall time of one sample; `rss_peak_bytes` None: unknown."""

    ms: float
    rss_peak_bytes: int | None


def fitting_variants(
    bundle: Bundle,
    machine: Mapping[str, Any],
    constraints: DeployConstraints,
    offered: Sequence[Variant] | None = None,
) -> list[VariantFit]:
    """Every pair that fits that machine, in the manifest's order; at least one.

    `offered`: the variants there are; None: those whose files are in the bundle's folder.

    Raises:
        ModelError: The bundle has no variant of that name.
        OptionsError: A minimum accuracy or maximum RMSE, and the bundle was converted without such labels.
        BudgetError: No variant is accurate enough.
        TargetError: No variant was proved on such a runtime, or the machine lacks what each of them requires.
    """
    here = bundle.variants if offered is None else offered
    variants = [bundle.variant(constraints.variant)] if constraints.variant else _for_inference(here)
    proved = [VariantFit(v, r) for v in variants for r in v.requires.runtimes if _drives(r, v)]
    asked = [fit for fit in proved if constraints.runtime in (None, fit.runtime)]
    if not asked:
        what = f"variant {constraints.variant!r}" if constraints.variant else "a variant"
        on = constraints.runtime or "a runtime for devices"
        have = ", ".join(sorted({f"{fit.variant.id} on {fit.runtime}" for fit in proved})) or "none"
        raise TargetError(
            f"{bundle.path} has no proof of {what} on {on}; proved are: {have}",
            advice="Choose one of these, or convert again.",
        )
    lacking = {fit.variant.id: _lacking(fit.variant, machine, constraints) for fit in asked}
    able = [fit for fit in asked if not lacking[fit.variant.id]]
    if not able:
        id, reason = next(iter(lacking.items()))
        raise TargetError(
            f"no variant of {bundle.path} fits the device: {id} {reason}", advice="Choose or convert a smaller variant."
        )
    limits = AccuracyLimits(min_accuracy=constraints.min_accuracy, max_rmse=constraints.max_rmse)
    if constraints.variant is not None and limits == AccuracyLimits():
        return able
    accurate = accurate_variants(bundle, {fit.variant.id for fit in able}, limits)
    return [fit for fit in able if fit.variant.id in accurate]


def choose_fastest(
    fitting: Sequence[VariantFit], speeds: Mapping[tuple[str, str], MeasuredSpeed], constraints: DeployConstraints
) -> tuple[VariantFit, str]:
    """The one to install, and why; of equals the first in the manifest.

    Args:
        speeds: By variant id and runtime, for some of `fitting` at least.

    Raises:
        TargetError: Every variant that was measured takes more memory than is allowed.
        DeviceError: No variant was measured.
    """
    measured = [(fit, speeds[key]) for fit in fitting if (key := (fit.variant.id, fit.runtime)) in speeds]
    if not measured:
        raise DeviceError(
            "none of the variants that fit could be measured on the device",
            advice="Name one: --variant ID --runtime NAME.",
        )
    limit = constraints.max_ram_bytes
    small = [(fit, s) for fit, s in measured if not (limit and s.rss_peak_bytes and s.rss_peak_bytes > limit)]
    if not small:
        least = min(s.rss_peak_bytes for _, s in measured if s.rss_peak_bytes)
        assert limit is not None
        found = f"the smallest variant takes {least / 1e6:.0f} MB on the device, and --max-ram-mb is {limit / 1e6:.0f}"
        raise TargetError(f"{found}", advice="Raise the limit, or convert a smaller variant.")
    fit, speed = min(small, key=lambda pair: pair[1].ms)
    return fit, f"the fastest of {len(small)} measured there: {speed.ms:.3g} ms per sample"


def _for_inference(variants: Sequence[Variant]) -> list[Variant]:
    """Without variants that train, whose batch is the one they train with, unless there are no others."""
    return [v for v in variants if TRAIN not in v.signatures] or list(variants)


def _drives(runtime: str, variant: Variant) -> bool:
    return runtime in DEVICE_RUNTIMES and variant.format in DEVICE_RUNTIMES[runtime].formats


def _lacking(variant: Variant, machine: Mapping[str, Any], constraints: DeployConstraints) -> str:
    """What the machine lacks for the variant; empty: nothing. The device checks again before it installs."""
    needs, free = variant.requires.ram_bytes, machine.get("ram_available_bytes")
    if needs is not None and isinstance(free, int) and needs > free:
        return f"needs {needs / 1e6:.0f} MB of memory, {free / 1e6:.0f} MB are free"
    if needs is not None and constraints.max_ram_bytes is not None and needs > constraints.max_ram_bytes:
        return f"needs {needs / 1e6:.0f} MB of memory, {constraints.max_ram_bytes / 1e6:.0f} MB are allowed"
    features = machine.get("cpu_features")
    missing = sorted(set(variant.requires.cpu_features) - set(features)) if isinstance(features, list) else []
    return f"needs the CPU features {', '.join(missing)}, which the machine lacks" if missing else ""
