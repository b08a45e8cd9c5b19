"""A bundle, a device's own words and its measurements in; which variant it gets, on which runtime, out.

A pair of variant and runtime is fit where the runtime proved the variant when it was converted, the machine has what
the variant requires, and its answers are good enough. What is good enough, unless the user says so: at most one
percentage point, or one sample where few were evaluated, below the best float pair: of its accuracy on labelled data,
or, without labels, of the share of samples whose class agrees with the source's. Where a model is no classifier, being
proved is enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeloop.bundle import Bundle, Scheme, Variant
from edgeloop.edge.deploy.proof_summary import ProofSummary, read_proof
from edgeloop.errors import BudgetError, DeviceError, OptionsError, TargetError
from edgeloop.runtime.runners import LITERT, ONNXRUNTIME, TFLITE_RUNTIME

RUNNERS = {runner.name: runner for runner in (LITERT, TFLITE_RUNTIME, ONNXRUNTIME)}
FLOATS = (Scheme.FLOAT32, Scheme.FLOAT16)
MAX_DROP = 0.01  # of accuracy or agreement, as a share: what a device may lose for speed without being asked
TRAIN = "train"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployConstraints:
    """What the user wants of a variant.

    Attributes:
        variant: By id: nothing is compared then. None: the fastest that is fit.
        runtime: By name. None: any that the device has.
        min_accuracy: Of labelled data, 0 to 1. None: as this module's docstring says.
        max_ram_bytes: Peak of the process that runs the model.
    """

    variant: str | None = None
    runtime: str | None = None
    min_accuracy: float | None = None
    max_ram_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.runtime is not None and self.runtime not in RUNNERS:
            raise OptionsError(f"no runtime {self.runtime!r} on devices. Choose from {', '.join(RUNNERS)}.")
        if self.min_accuracy is not None and not 0 <= self.min_accuracy <= 1:
            raise OptionsError(f"the accuracy {self.min_accuracy:g} is no share. Expected 0 to 1, as 0.97.")
        if self.max_ram_bytes is not None and self.max_ram_bytes <= 0:
            raise OptionsError("no model runs in no memory. Expected a maximum above 0.")


@dataclass(frozen=True, slots=True)
class VariantFit:
    """A variant that may run on that runtime there."""

    variant: Variant
    runtime: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredSpeed:
    """Of a fit on the device. `ms`: median wall time of one sample; `rss_peak_bytes` None: unknown."""

    ms: float
    rss_peak_bytes: int | None


def fitting_variants(bundle: Bundle, machine: Mapping[str, Any], constraints: DeployConstraints) -> list[VariantFit]:
    """Every pair that is fit for that machine, in the manifest's order; at least one.

    Raises:
        ModelError: The bundle has no variant of that name.
        OptionsError: An accuracy is asked of a bundle that was converted without labels.
        BudgetError: None is accurate enough.
        TargetError: None was proved on a runtime that devices have, or the machine lacks what they require.
    """
    variants = [bundle.variant(constraints.variant)] if constraints.variant else _for_answering(bundle)
    proved = [VariantFit(v, r) for v in variants for r in v.requires.runtimes if _drives(r, v)]
    asked = [fit for fit in proved if constraints.runtime in (None, fit.runtime)]
    if not asked:
        what = f"variant {constraints.variant!r}" if constraints.variant else "variant"
        on = constraints.runtime or "a runtime of devices"
        have = ", ".join(sorted({f"{fit.variant.id} on {fit.runtime}" for fit in proved})) or "none"
        raise TargetError(f"{bundle.path} has no {what} that was proved on {on}. Proved: {have}.")
    lacking = {fit.variant.id: _lacking(fit.variant, machine, constraints) for fit in asked}
    able = [fit for fit in asked if not lacking[fit.variant.id]]
    if not able:
        id, reason = next(iter(lacking.items()))
        raise TargetError(f"no variant of {bundle.path} fits: {id} {reason}. Convert a smaller one.")
    return _accurate(bundle, able, constraints)


def choose_fastest(
    fitting: Sequence[VariantFit], speeds: Mapping[tuple[str, str], MeasuredSpeed], constraints: DeployConstraints
) -> tuple[VariantFit, str]:
    """The one to install, and why; of equals the first in the manifest.

    Args:
        speeds: By variant id and runtime, for some of `fitting` at least.

    Raises:
        TargetError: Every one that was measured takes more memory than is wanted.
        DeviceError: None of them was measured.
    """
    measured = [(fit, speeds[key]) for fit in fitting if (key := (fit.variant.id, fit.runtime)) in speeds]
    if not measured:
        raise DeviceError("none of the variants that fit could be measured there. Name one: --variant ID --runtime R.")
    limit = constraints.max_ram_bytes
    small = [(fit, s) for fit, s in measured if not (limit and s.rss_peak_bytes and s.rss_peak_bytes > limit)]
    if not small:
        least = min(s.rss_peak_bytes for _, s in measured if s.rss_peak_bytes)
        raise TargetError(f"the smallest variant takes {least / 1e6:.0f} MB there, {limit / 1e6:.0f} MB are wanted.")  # type: ignore[operator]
    fit, speed = min(small, key=lambda pair: pair[1].ms)
    return fit, f"fastest of {len(small)} measured there: {speed.ms:.3g} ms a sample"


def _for_answering(bundle: Bundle) -> list[Variant]:
    """A variant that trains answers at the batch it trains with: only who names it wants it."""
    return [v for v in bundle.variants if TRAIN not in v.signatures] or list(bundle.variants)


def _drives(runtime: str, variant: Variant) -> bool:
    return runtime in RUNNERS and variant.format in RUNNERS[runtime].formats


def _lacking(variant: Variant, machine: Mapping[str, Any], constraints: DeployConstraints) -> str:
    """What the machine lacks for it, or the empty string. The device itself checks again before it installs."""
    needs, free = variant.requires.ram_bytes, machine.get("ram_available_bytes")
    if needs is not None and isinstance(free, int) and needs > free:
        return f"needs {needs / 1e6:.0f} MB of memory, {free / 1e6:.0f} MB are free"
    if needs is not None and constraints.max_ram_bytes is not None and needs > constraints.max_ram_bytes:
        return f"needs {needs / 1e6:.0f} MB of memory, {constraints.max_ram_bytes / 1e6:.0f} MB are wanted"
    features = machine.get("cpu_features")
    missing = sorted(set(variant.requires.cpu_features) - set(features)) if isinstance(features, list) else []
    return f"needs the CPU features {', '.join(missing)}, which the machine lacks" if missing else ""


def _accurate(bundle: Bundle, able: Sequence[VariantFit], constraints: DeployConstraints) -> list[VariantFit]:
    if constraints.variant is not None and constraints.min_accuracy is None:
        return list(able)
    proof = read_proof(bundle)
    labelled = any(proved.accuracy is not None for proved in proof.values())
    if constraints.min_accuracy is not None and not labelled:
        raise OptionsError(f"{bundle.path} has no accuracy to compare. Convert it with --eval F.npz, labels in y.")
    shares = {id: proved.accuracy if labelled else proved.top1_agreement for id, proved in proof.items()}
    least = _least(bundle, proof, shares) if constraints.min_accuracy is None else constraints.min_accuracy
    if least is None:
        return list(able)
    # what JSON rounded must not decide: 0.99 - 0.01 is not 0.98 in binary
    enough = [fit for fit in able if (share := shares.get(fit.variant.id)) is not None and share >= least - 1e-9]
    if not enough:
        best = max((share for fit in able if (share := shares.get(fit.variant.id)) is not None), default=0.0)
        what = "accuracy" if labelled else "agreement with the source"
        raise BudgetError(f"the best that fits of {bundle.path} has {best:.1%} {what}, {least:.1%} are wanted.")
    return enough


def _least(bundle: Bundle, proof: Mapping[str, ProofSummary], shares: Mapping[str, float | None]) -> float | None:
    """What a variant must reach where the user does not say; None: there is nothing to go by."""
    floats = [v.id for v in bundle.manifest.variants if v.scheme in FLOATS]
    best = max(((share, id) for id in floats if (share := shares.get(id)) is not None), default=None)
    return None if best is None else best[0] - max(MAX_DROP, 1 / proof[best[1]].samples)
