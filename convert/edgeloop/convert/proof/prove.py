"""Variants and the source's answers in, parity of each in every runtime at hand out.

Each runs in a process of its own, because the same file can be right on one runtime, garbage on a second and the death
of a third. What happens there is a record; what the records mean is for `parity.py` to say.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from edgeloop.bundle import TRAIN, Format, Scheme, Signature, Variant
from edgeloop.convert.calls import NotBatchedError
from edgeloop.convert.proof.distrust import distrust, far_apart
from edgeloop.convert.proof.few_samples import few_of, settled
from edgeloop.convert.proof.run_variant import inference_signature, run_variant
from edgeloop.convert.proof.worst_layer import layer_snr, worst
from edgeloop.convert.samples import Samples
from edgeloop.errors import DeviceError, EdgeloopError, MissingExtra, OptionsError, TargetError
from edgeloop.progress import Progress, silent
from edgeloop.runtime.device import Device
from edgeloop.runtime.parity.compare import (
    Parity,
    RunContext,
    bounded_outputs,
    classifies,
    compare,
    failed,
    floor_of,
    is_classifier,
    judged_as,
    rounds_itself,
)
from edgeloop.runtime.runners import AgentRunner, Session, runners

# On the other runtimes: of 1,000 samples a share has a standard error below 1.6 points, and SNR a far smaller one.
# Their accuracy is left out, since it would be another number than that of all samples. Measured on 13,000 MNIST
# images, 6 variants: tflite-runtime 22 s -> 3 s. TF.js is its format's only runtime, so it answers all of them: 25 s,
# of which its plain JavaScript kernels take nine tenths. Without labels a few may settle it: few_samples.py.
AGREEMENT_SAMPLES = 1000

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProveOptions:
    """Where to prove, and how strictly.

    Attributes:
        on: Devices to try beside this interpreter and the device environment.
        unproved: Formats that are written, marked so, where no runtime of theirs is installed.
        min_snr_db: Raises the floor of every quantized scheme to this.
    """

    on: tuple[Device, ...] = ()
    unproved: frozenset[Format] = frozenset()
    min_snr_db: float | None = None

    def __post_init__(self) -> None:
        if self.min_snr_db is not None and not (math.isfinite(self.min_snr_db) and self.min_snr_db > 0):
            raise OptionsError(f"--min-snr is {self.min_snr_db}", advice="It must be above 0 dB, e.g. 20.")


@dataclass(frozen=True, slots=True)
class RuntimeOnDevice:
    """A runtime on a device. `device` None: this machine, by a program that is no Python (Node)."""

    runtime: str
    device: Device | None
    open: Callable[[Path, str], contextlib.AbstractContextManager[Session]]

    @property
    def label(self) -> str:
        return self.device.label if self.device else "local"


def refuse_missing(variant: Variant, e: MissingExtra) -> None:
    raise e


def prove(
    folder: Path,
    variants: Sequence[Variant],
    signatures: Mapping[str, Signature],
    samples: Samples,
    expected: Mapping[str, np.ndarray],
    options: ProveOptions = ProveOptions(),
    progress: Progress = silent,
    *,
    layers: Collection[str] = (),
    source: Mapping[str, str] = {},
    missing: Callable[[Variant, MissingExtra], None] = refuse_missing,
) -> list[Parity]:
    """Run every variant on `samples` in every runtime of its format at hand.

    `expected` {output: [n, ...]} are the source's answers, by the signature that takes these inputs. `layers` are the
    Keras model's own names, to name the worst one by; `source` is what the manifest says of the original. A variant of
    a format that no runtime runs is skipped.

    Args:
        missing: Called for a variant of a format that no runtime here can run, and that `options.unproved` lacks.

    Raises:
        MissingExtra: `missing` was left as it is, and called.
        DeviceError: A device that was named has no runtime for any of the variants.
        ModelError: A variant has no signature with these inputs.
    """
    places, lacking = places_of(tuple(dict.fromkeys(v.format for v in variants)), options)
    classifier = _classifies(samples, signatures, expected)
    job = _Job(folder, tuple(variants), signatures, expected, options, classifier, tuple(layers), source)
    rows: list[Parity] = []
    for done, variant in enumerate(variants):
        own: list[Parity] = []
        first: dict[str, np.ndarray] | None = None
        for place in places.get(variant.format, []):
            try:
                made, answers = _on(job, variant, place, samples, first, own)
                own += made
                first = answers if first is None and all(row.passed for row in made) else first
            except MissingExtra as e:
                lacking.setdefault(variant.format, e)
        if not own and variant.format in lacking and variant.format not in options.unproved:
            missing(variant, lacking[variant.format])
        rows += own
        progress("prove", done + 1, len(variants))
    # of a source that rounds to 8 bits, float32 may be off by a step at a tie, which says nothing of the runtime
    return rows if rounds_itself(source) else distrust(rows, variants)


def places_of(
    formats: Sequence[Format], options: ProveOptions
) -> tuple[dict[Format, list[RuntimeOnDevice]], dict[Format, MissingExtra]]:
    """Where each format can run, and why not for the first runtime that is missing.

    The first place that is there and agrees answers all samples, and so says the accuracy.

    Raises:
        DeviceError: A device of `options.on` has no runtime for any of `formats`.
    """
    proving = [runner for runner in runners().values() if runner.proves]
    places: dict[Format, list[RuntimeOnDevice]] = {format: [] for format in formats}
    missing: dict[Format, MissingExtra] = {}
    used: dict[Device, str] = {}
    for format in formats:
        for runner in (r for r in proving if format in r.formats):
            if not isinstance(runner, AgentRunner):
                places[format].append(RuntimeOnDevice(runner.name, None, runner.open))
                continue
            devices = dict.fromkeys(options.on)
            try:
                devices = dict.fromkeys([runner.device(), *devices])
            except MissingExtra as e:
                missing.setdefault(format, e)
            for device in devices:
                lacks = runner.lacks(device)
                if not lacks:
                    places[format].append(RuntimeOnDevice(runner.name, device, partial(runner.open, device=device)))
                used[device] = "" if not lacks else used.get(device, lacks)
    for device in options.on:
        if used.get(device):
            raise DeviceError(
                f"{device.name} cannot run any of these files: {used[device]}",
                advice="Choose a Python that has a runtime for them.",
            )
    return places, missing


@dataclass(frozen=True, slots=True)
class _Job:
    folder: Path
    variants: tuple[Variant, ...]
    signatures: Mapping[str, Signature]
    expected: Mapping[str, np.ndarray]
    options: ProveOptions
    classifier: bool
    layers: tuple[str, ...]
    source: Mapping[str, str]


def _on(
    job: _Job,
    variant: Variant,
    place: RuntimeOnDevice,
    samples: Samples,
    first: Arrays | None,
    before: Sequence[Parity],
) -> tuple[list[Parity], dict[str, np.ndarray]]:
    """The records of one variant at one place, and what it answered; a refusal and a crash are records too.

    `first` are the answers of a place that passed on all samples, if any; `before` the records of other places.
    """
    samples = samples if first is None else _some(samples)
    expected = {name: value[: len(samples)] for name, value in job.expected.items()}
    version = None
    try:
        with place.open(job.folder, variant.entry) as session:
            version = session.version
            where = RunContext(variant.id, place.runtime, version, place.label)
            scheme = judged_as(variant.scheme, job.source)
            floor = floor_of(scheme, job.options.min_snr_db, bounded_outputs(job.source))
            few = _few(job, variant, samples, first)
            if few is not None:
                wanted = {name: value[few] for name, value in expected.items()}
                got = run_variant(session, variant, job.signatures, samples.copies(few))
                rows = compare(where, floor, wanted, got, classifier=job.classifier)
                like = None if first is None else {name: value[few] for name, value in first.items()}
                # few samples may have other noise than all, for which no runtime is to blame
                if settled(rows, floor, wanted, got, like) and not far_apart(rows, before):
                    return rows, {}
            got = run_variant(session, variant, job.signatures, samples)
    except (TargetError, DeviceError, NotBatchedError) as e:
        where = RunContext(variant.id, place.runtime, version, place.label)
        return failed(where, expected, _words(e, job.folder)), {}
    rows = compare(
        where, floor, expected, got, samples.labels, label_output=samples.label_output, classifier=job.classifier
    )
    if all(row.passed for row in rows):
        return rows, got
    blame = _worst_layer(job, variant, place, samples)
    return [row if row.passed else replace(row, worst_layer=blame) for row in rows], got


def _few(job: _Job, variant: Variant, samples: Samples, first: Arrays | None) -> np.ndarray | None:
    """Which samples to ask first where the others may be spared. None: all, which metrics are about, and shares of
    equal classes that variants are compared by."""
    if samples.labels is not None:
        return None
    if first is None and (variant.scheme is not Scheme.INT16X8 or job.classifier):
        return None
    few = few_of(samples)
    return few if len(few) < len(samples) else None


def _worst_layer(job: _Job, variant: Variant, place: RuntimeOnDevice, samples: Samples) -> str | None:
    """Where the error enters, in words; None where there is no float .tflite to compare with, or it cannot be seen."""
    floats = [v for v in job.variants if v.format is Format.TFLITE and v.scheme is Scheme.FLOAT32]
    floats = [v for v in floats if TRAIN not in v.signatures and v.id != variant.id]
    if variant.format is not Format.TFLITE or not floats or place.device is None:
        return None
    name = inference_signature(variant, job.signatures, samples.inputs)
    float32, quantized = ((job.folder / v.entry).read_bytes() for v in (floats[0], variant))
    try:
        rows = layer_snr(
            float32, quantized, samples, name, runtime=place.runtime, device=place.device, layers=job.layers
        )
    except (TargetError, DeviceError):  # it runs only with its delegate there; that it fails is on record already
        return None
    found = worst(rows)
    return found.text if found else None


def _classifies(samples: Samples, signatures: Mapping[str, Signature], expected: Mapping[str, np.ndarray]) -> bool:
    named = {t.name for s in signatures.values() for t in s.outputs if t.labels}
    return classifies(expected, samples.labels) or is_classifier(expected, bool(named & set(expected)))


def _some(samples: Samples) -> Samples:
    return samples if len(samples) <= AGREEMENT_SAMPLES else replace(samples.take(AGREEMENT_SAMPLES), labels=None)


def _words(e: EdgeloopError, folder: Path) -> str:
    """What was found, without this machine's paths and another's user: others read the proof. What to do about it is
    advised by whoever raises the failed proof."""
    return e.found.replace(f"{folder}/", "")
