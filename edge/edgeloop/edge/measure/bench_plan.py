"""Files, runtimes and devices in, the pairs to measure out: which file runs on which runtime of which device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgeloop.bundle import Format
from edgeloop.edge.measure.bench_targets import BenchTarget
from edgeloop.edge.measure.scenarios import Driver, Scenario
from edgeloop.edge.on_device.percentiles import FEWEST_RUNS
from edgeloop.errors import MissingExtra, OptionsError
from edgeloop.runtime.device import Device, device_environment, parse_device
from edgeloop.runtime.runners import LITERT, AgentRunner, runners

LOCAL = "local"


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What to run where, and how often.

    Attributes:
        devices: Where. Empty: for each runtime, the first place that has it.
        runtimes: By name. Empty: every runtime of the file's format that is installed.
        delegate: `edgetpu`, or a delegate's library as the device finds it; None: the runtime's own kernels.
        threads: Of the runtime.
        runs: Measured queries of each pair; a query is one call, but for the scenarios that say otherwise. Offline:
            samples of the one query.
        warmup: Calls before them.
        driver: LoadGen asks as many queries before the turns, in a run of its own; the samples of the record stay ours,
            its peak memory is with LoadGen's, some 2 MB.
        together: Pairs loaded at a time, each a process; more are measured in groups that share the first pair.
        profile: Ask for the time of each operator, after everything else.
        timeout_s: For one answer of a device.
        seed: Of the order of turns, the groups and the bootstrap.
    """

    devices: tuple[Device, ...] = ()
    runtimes: tuple[str, ...] = ()
    delegate: str | None = None
    threads: int = 1
    runs: int = 130  # of which half support a p90, so it is there wherever a steady state is
    warmup: int = 10
    scenario: Scenario = Scenario.SINGLE_STREAM
    driver: Driver = Driver.EDGELOOP
    together: int = 8
    profile: bool = False
    timeout_s: float = 120.0
    seed: int = 0

    def __post_init__(self) -> None:
        fewest = FEWEST_RUNS[50]
        if self.runs < fewest:
            raise OptionsError(f"{self.runs} runs do not support a median. Expected {fewest} or more (64 for a p90).")
        if self.threads < 1 or self.warmup < 1:
            raise OptionsError("threads and warm-up are 1 or more: the first call is never a steady one.")
        if self.together < 2:
            raise OptionsError(f"{self.together} at a time cannot take turns. Expected 2 or more.")
        names = [device.name for device in self.devices]
        for name in {name for chosen in (names, self.runtimes) for name in chosen if chosen.count(name) > 1}:
            raise OptionsError(f"{name} is named twice. Name it once.")
        if self.profile and self.runtimes and LITERT.name not in self.runtimes:
            raise OptionsError(f"operators are timed by LiteRT's own profiler: add --runtime {LITERT.name}.")
        if self.delegate is not None and self.profile:
            raise OptionsError("LiteRT's profiler takes no delegate. Ask for one of the two.")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchCandidate:
    """A file on a runtime of a device, not tried yet."""

    target: BenchTarget
    runner: AgentRunner
    device: Device

    def __str__(self) -> str:
        return f"{self.target.variant} on {self.runner.name} on {self.device.name}"


def plan_candidates(what: Sequence[BenchTarget], options: BenchOptions) -> list[BenchCandidate]:
    """Every file on every runtime of its format on every device, or where the runtime is found first.

    Raises:
        OptionsError: A runtime by a name that none has, or one that runs none of the files.
        MissingExtra: A runtime that was named is installed nowhere here.
    """
    found = [
        BenchCandidate(target=target, runner=runner, device=device)
        for runner in _runtimes(what, options)
        for device in options.devices or _places(runner, named=runner.name in options.runtimes)
        for target in what
        if target.format in runner.formats
    ]
    if not found:
        raise MissingExtra("no installed runtime runs any of these files. Run: pip install 'edgeloop[edge]'")
    return found


def _runtimes(what: Sequence[BenchTarget], options: BenchOptions) -> Iterator[AgentRunner]:
    known = {name: runner for name, runner in runners(options.runtimes).items() if isinstance(runner, AgentRunner)}
    formats = {target.format for target in what} if options.delegate is None else {Format.TFLITE}
    for name in options.runtimes or known:
        if name not in known:
            raise OptionsError(f"no runtime {name!r}. Choose from {', '.join(known)}.")
        if known[name].formats & formats:
            yield known[name]
        elif options.runtimes:
            wanted = ", ".join(sorted(format.value for format in formats))
            raise OptionsError(f"{name} does not run {wanted}. Choose another --runtime, or leave it out.")


def _places(runner: AgentRunner, named: bool) -> tuple[Device, ...]:
    """This interpreter if it has the runtime, else the device environment, which may have it: opening it will tell."""
    local = parse_device(LOCAL)
    if not runner.lacks(local):
        return (local,)
    try:
        return (device_environment(),)
    except MissingExtra:
        if named:
            raise
        return ()
