"""Variants, runtimes and devices in, latency records out: one plan, randomly interleaved, one process a pair.

A bundle's variant is measured on a runtime it was proved on, or that agrees with reference.npz here and now.

A time is what a Python caller waits for one call: copy in, invoke, copy out. Absolute times lie on shared machines;
compare records of one plan only.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeloop.answer import Progress, silent
from edgeloop.bundle import Format, is_bundle, read_bundle
from edgeloop.edge.client import Agent, agent
from edgeloop.edge.device import Device
from edgeloop.edge.parity import Where, reason
from edgeloop.edge.reference import read_reference
from edgeloop.edge.runners import AgentRunner, runners
from edgeloop.edge.self_check import Reference, self_check
from edgeloop.errors import DeviceError, MissingExtra, ModelError, OptionsError, ParityError, TargetError

P90_RUNS = 64  # MLPerf's early stopping: fewer runs do not support a 90th percentile (11 are enough for the median)
BLOCK = 10  # calls of one pair before the next pair's turn
SUFFIXES = {".tflite": Format.TFLITE, ".onnx": Format.ONNX}


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What to run where, and how often.

    Attributes:
        devices: Where. Empty: for each runtime, the first place that has it.
        runtimes: By name. Empty: every runtime of the file's format that is installed.
    """

    devices: tuple[Device, ...] = ()
    runtimes: tuple[str, ...] = ()
    threads: int = 1
    runs: int = 100
    warmup: int = 10
    timeout_s: float = 120.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.runs < 11:
            raise OptionsError(f"{self.runs} runs do not support a median. Expected 11 or more (64 for a p90).")
        if self.threads < 1 or self.warmup < 1:
            raise OptionsError("threads and warm-up are 1 or more: the first call is never a steady one.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """One variant on one runtime of one device. `p90_ms` None: too few runs. `rss_peak_bytes` None: unknown."""

    variant: str
    format: str
    bytes: int
    runtime: str
    runtime_version: str
    device: str
    threads: int
    batch: int
    n: int
    warmup: int
    p50_ms: float
    p90_ms: float | None
    cpu_p50_ms: float
    import_ms: float
    load_ms: float
    first_ms: float
    rss_peak_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A file to measure, inside `folder`.

    Attributes:
        reference: Real inputs and the source's answers; None: inputs are made up.
        proved_on: Runtimes by name; None for a bare file, of which nobody claims anything.
    """

    variant: str
    folder: Path
    entry: str
    format: Format
    bytes: int
    reference: Reference | None = None
    proved_on: tuple[str, ...] | None = None


def targets(path: Path) -> list[Target]:
    """What of a bundle, .tflite or .onnx an agent can run.

    Raises:
        ModelError: Neither of these.
        DataError: The bundle's reference.npz is not what it should be.
    """
    if is_bundle(path):
        bundle = read_bundle(path)
        real = read_reference(bundle)
        return [
            Target(
                variant=v.id,
                folder=bundle.path,
                entry=v.entry,
                format=v.format,
                bytes=sum(bundle.manifest.files[name].bytes for name in v.files),
                reference=Reference(inputs=real[0], outputs=real[1], scheme=v.scheme, io=v.io) if real else None,
                proved_on=v.requires.runtimes,
            )
            for v in bundle.variants
            if v.format in SUFFIXES.values()
        ]
    if not path.is_file() or path.suffix not in SUFFIXES:
        found = "does not exist" if not path.exists() else "is none of these"
        raise ModelError(f"{path} {found}. Expected a bundle, a .tflite or an .onnx file.")
    size = path.stat().st_size
    return [Target(variant=path.stem, folder=path.parent, entry=path.name, format=SUFFIXES[path.suffix], bytes=size)]


def bench(
    what: Sequence[Target],
    options: BenchOptions = BenchOptions(),
    progress: Progress = silent,
    say: Callable[[str], None] = lambda line: None,
) -> list[Latency]:
    """Measure every target on every runtime of its format on every device, in blocks of 10 calls in random order.

    A variant that was not proved on a runtime is checked there first; where it disagrees, `say` is told why it is
    left out.

    Raises:
        ParityError: Every pair was left out.
        MissingExtra: Nothing installed can run any of the targets, or a runtime asked for by name is not installed.
        TargetError: A runtime refuses a target.
        DeviceError: An agent died or hung, or no device that was named runs any of the targets.
    """
    order = random.Random(options.seed)
    with contextlib.ExitStack() as stack:
        pairs = [stack.enter_context(_opened(*pair, options)) for pair in _fit(_plan(what, options), options, say)]
        blocks = [pair for pair in pairs for _ in range(-(-options.runs // BLOCK))]
        order.shuffle(blocks)
        for done, pair in enumerate(blocks):
            pair.measure(min(BLOCK, options.runs - len(pair.wall_ms)))
            progress("bench", done + 1, len(blocks))
        return [pair.record(options) for pair in pairs]


def _plan(what: Sequence[Target], options: BenchOptions) -> list[tuple[Target, AgentRunner, Device]]:
    known = {name: r for name, r in runners().items() if isinstance(r, AgentRunner)}
    for name in options.runtimes:
        if name not in known:
            raise OptionsError(f"no runtime {name!r}. Choose from {', '.join(known)}.")
    plan: list[tuple[Target, AgentRunner, Device]] = []
    reasons: list[str] = []
    for runner in (known[name] for name in options.runtimes or known):
        for device in options.devices or _where(runner, named=runner.name in options.runtimes):
            fitting = [t for t in what if t.format in runner.formats]
            if not fitting:
                continue
            if runner.name not in options.runtimes and (reason := runner.lacks(device)):
                reasons.append(reason)
                continue
            plan += [(target, runner, device) for target in fitting]
    if plan:
        return plan
    if options.devices and reasons:
        named = ", ".join(device.name for device in options.devices)
        raise DeviceError(
            f"{named} runs none of these files: {reasons[0]}. Name a Python that has a runtime: local:PYTHON."
        )
    raise MissingExtra("no installed runtime runs any of these files. Run: pip install 'edgeloop[edge]'")


def _fit(
    plan: Sequence[tuple[Target, AgentRunner, Device]], options: BenchOptions, say: Callable[[str], None]
) -> list[tuple[Target, AgentRunner, Device]]:
    """The pairs that were proved, or prove themselves now."""
    judged = [(pair, _unfit(*pair, options)) for pair in plan]
    left_out = [f"{t.variant} on {runner.name} was not measured: {why}." for (t, runner, _), why in judged if why]
    if len(left_out) == len(plan):
        raise ParityError(f"{left_out[0]} Name another runtime, or convert the model again.")
    for line in left_out:
        say(line)
    return [pair for pair, why in judged if not why]


def _unfit(target: Target, runner: AgentRunner, device: Device, options: BenchOptions) -> str:
    """Why a target must not run there; empty where it may."""
    if target.proved_on is None or runner.name in target.proved_on:
        return ""
    if target.reference is None:
        return "it was not proved there, and the bundle has no reference.npz to check it with"
    try:
        with agent(device, runner.name, target.folder, options.timeout_s) as running:
            signature, specs = _inference(running.prepare(target.entry, options.threads)["signatures"], target)
            where = Where(target.variant, runner.name, device=device.label)
            rows = self_check(running, where, target.reference, signature, _batch(specs))
    except (TargetError, DeviceError) as e:
        return str(e).rstrip(".")
    return next((reason(row) for row in rows if not row.passed), "")


def _where(runner: AgentRunner, named: bool) -> tuple[Device, ...]:
    try:
        return (runner.device(),)
    except MissingExtra:
        if named:
            raise
        return ()


class _Pair:
    """A target loaded in an agent, and what was measured of it so far."""

    def __init__(
        self, target: Target, runner: AgentRunner, device: Device, agent: Agent, options: BenchOptions
    ) -> None:
        self.target, self.runner, self.device, self.agent = target, runner, device, agent
        self.version = agent.probe()["version"]
        loaded = agent.prepare(target.entry, options.threads)
        self.import_ms, self.load_ms = loaded["import_ms"], loaded["load_ms"]
        self.signature, specs = _inference(loaded["signatures"], target)
        self.inputs = _sample(specs, target.reference)
        self.batch = next(iter(self.inputs.values())).shape[0]
        self.first_ms = agent.run(self.inputs, self.signature).wall_ms[0]
        self.rss_peak_bytes = agent.run(self.inputs, self.signature, runs=options.warmup).rss_peak_bytes
        self.wall_ms: list[float] = []
        self.cpu_ms: list[float] = []

    def measure(self, runs: int) -> None:
        answer = self.agent.run(self.inputs, self.signature, runs=runs)
        self.wall_ms += answer.wall_ms
        self.cpu_ms += answer.cpu_ms
        self.rss_peak_bytes = answer.rss_peak_bytes

    def record(self, options: BenchOptions) -> Latency:
        enough = len(self.wall_ms) >= P90_RUNS
        return Latency(
            variant=self.target.variant,
            format=self.target.format.value,
            bytes=self.target.bytes,
            runtime=self.runner.name,
            runtime_version=self.version,
            device=self.device.label,
            threads=options.threads,
            batch=self.batch,
            n=len(self.wall_ms),
            warmup=options.warmup,
            p50_ms=_percentile(self.wall_ms, 50),
            p90_ms=_percentile(self.wall_ms, 90) if enough else None,
            cpu_p50_ms=_percentile(self.cpu_ms, 50),
            import_ms=self.import_ms,
            load_ms=self.load_ms,
            first_ms=self.first_ms,
            rss_peak_bytes=self.rss_peak_bytes,
        )


@contextlib.contextmanager
def _opened(target: Target, runner: AgentRunner, device: Device, options: BenchOptions):  # type: ignore[no-untyped-def]
    with agent(device, runner.name, target.folder, options.timeout_s) as running:
        yield _Pair(target, runner, device, running, options)


def _inference(signatures: Mapping[str, dict], target: Target) -> tuple[str, dict[str, dict]]:
    """The signature that takes the sample's inputs; without a sample, `infer`, `serving_default`, or the first."""
    for name, spec in signatures.items():
        if target.reference is not None and set(spec["inputs"]) == set(target.reference.inputs):
            return name, spec["inputs"]
    name = next((n for n in ("infer", "serving_default") if n in signatures), next(iter(signatures)))
    return name, signatures[name]["inputs"]


def _sample(specs: Mapping[str, dict], reference: Reference | None) -> dict[str, np.ndarray]:
    """One sample, repeated where the model's own batch is larger; made up where none is given."""
    if reference is not None and set(specs) == set(reference.inputs):
        return reference.feed(0, _batch(specs))
    rng = np.random.default_rng(0)
    arrays = {}
    for name, spec in specs.items():
        shape = [1 if d is None else d for d in spec["shape"]]
        made_up = rng.random(shape) if np.dtype(spec["dtype"]).kind == "f" else rng.integers(0, 2, shape)
        arrays[name] = made_up.astype(spec["dtype"])
    return arrays


def _batch(specs: Mapping[str, dict]) -> int:
    """The model's own batch; 1 where it is free."""
    return next(iter(specs.values()))["shape"][0] or 1


def _percentile(values: Sequence[float], q: int) -> float:
    return float(np.percentile(values, q, method="higher"))  # a time that was measured, never one in between
