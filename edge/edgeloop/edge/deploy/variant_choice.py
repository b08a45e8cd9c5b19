"""A bundle, a device's status and measurements in; which variant the device gets, on which runtime, out.

A pair of variant and runtime fits where the variant was proved on the runtime when it was converted, the machine has
what the variant requires, and its outputs are accurate enough: at most one percentage point, or one sample where few
were evaluated, below the best float variant. That is accuracy on labelled data or, without labels, the share of samples
whose class agrees with the source's. Where a model is no classifier, being proved is enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeloop.bundle import TRAIN, Bundle, Scheme, Variant
from edgeloop.edge.deploy.proof_summary import ProofSummary, summarize_proof
from edgeloop.errors import BudgetError, DeviceError, OptionsError, TargetError
from edgeloop.quantities import above_zero
from edgeloop.runtime.proof import read_proof
from edgeloop.runtime_table import DEVICE_RUNTIMES

FLOATS = (Scheme.FLOAT32, Scheme.FLOAT16)
MAX_DROP = 0.01  # of accuracy or agreement, as a share: what a device may lose for speed without being asked


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployConstraints:
    """Which variants the user accepts.

    Attributes:
        variant: By id; no other is considered then. None: the fastest that fits.
        runtime: By name. None: any that is installed on the device.
        min_accuracy: On labelled data, 0 to 1. None: as this module's docstring says.
        max_ram_bytes: Peak memory of the process that runs the model.
    """

    variant: str | None = None
    runtime: str | None = None
    min_accuracy: float | None = None
    max_ram_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.runtime is not None and self.runtime not in DEVICE_RUNTIMES:
            raise OptionsError(f"--runtime is {self.runtime!r}", advice=f"Choose one of: {', '.join(DEVICE_RUNTIMES)}.")
        if self.min_accuracy is not None and not 0 <= self.min_accuracy <= 1:
            raise OptionsError(f"--min-accuracy is {self.min_accuracy:g}", advice="It must be from 0 to 1, e.g. 0.97.")
        if self.max_ram_bytes is not None:
            above_zero(self.max_ram_bytes / 1e6, "--max-ram-mb")


@dataclass(frozen=True, slots=True)
class VariantFit:
    """A variant that may run on that runtime of the device."""

    variant: Variant
    runtime: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredSpeed:
    """Measured on the device. `ms`: median wall time of one sample; `rss_peak_bytes` None: unknown."""

    ms: float
    rss_peak_bytes: int | None


def fitting_variants(bundle: Bundle, machine: Mapping[str, Any], constraints: DeployConstraints) -> list[VariantFit]:
    """Every pair that fits that machine, in the manifest's order; at least one.

    Raises:
        ModelError: The bundle has no variant of that name.
        OptionsError: A minimum accuracy, and the bundle was converted without labels.
        BudgetError: No variant is accurate enough.
        TargetError: No variant was proved on such a runtime, or the machine lacks what each of them requires.
    """
    variants = [bundle.variant(constraints.variant)] if constraints.variant else _for_inference(bundle)
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
    return _accurate(bundle, able, constraints)


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


def _for_inference(bundle: Bundle) -> list[Variant]:
    """Without variants that train, whose batch is the one they train with, unless there are no others."""
    return [v for v in bundle.variants if TRAIN not in v.signatures] or list(bundle.variants)


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


def _accurate(bundle: Bundle, able: Sequence[VariantFit], constraints: DeployConstraints) -> list[VariantFit]:
    if constraints.variant is not None and constraints.min_accuracy is None:
        return list(able)
    proof = summarize_proof(read_proof(bundle))
    labelled = any(proved.accuracy is not None for proved in proof.values())
    if constraints.min_accuracy is not None and not labelled:
        raise OptionsError(
            f"{bundle.path} has no accuracy to compare", advice="Convert with --eval F.npz, which holds labels as y."
        )
    shares = {id: proved.accuracy if labelled else proved.top1_agreement for id, proved in proof.items()}
    least = _least(bundle, proof, shares) if constraints.min_accuracy is None else constraints.min_accuracy
    if least is None:
        return list(able)
    # what JSON rounded must not decide: 0.99 - 0.01 is not 0.98 in binary
    enough = [fit for fit in able if (share := shares.get(fit.variant.id)) is not None and share >= least - 1e-9]
    if not enough:
        best = max((share for fit in able if (share := shares.get(fit.variant.id)) is not None), default=0.0)
        what = "accuracy" if labelled else "agreement with the source"
        raise BudgetError(
            f"the most accurate variant that fits has {best:.1%} {what}; the minimum is {least:.1%}",
            advice="Lower --min-accuracy, or convert again.",
        )
    return enough


def _least(bundle: Bundle, proof: Mapping[str, ProofSummary], shares: Mapping[str, float | None]) -> float | None:
    """The accuracy a variant needs where the user does not say; None: the proof has none to compare with."""
    floats = [v.id for v in bundle.manifest.variants if v.scheme in FLOATS]
    best = max(((share, id) for id in floats if (share := shares.get(id)) is not None), default=None)
    return None if best is None else best[0] - max(MAX_DROP, 1 / proof[best[1]].samples)
