"""Files, runtimes and devices in; what to measure out: which file on which runtime of which device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from edgeloop.bundle import Format
from edgeloop.edge.measure.bench_targets import BenchTarget
from edgeloop.edge.measure.scenarios import Driver, Scenario
from edgeloop.edge.on_device.percentiles import FEWEST_RUNS
from edgeloop.errors import MissingExtra, OptionsError
from edgeloop.quantities import above_zero
from edgeloop.runtime.device import BROWSER, Device, device_environment, parse_device
from edgeloop.runtime.page_engines import PAGE_ENGINES
from edgeloop.runtime.runners import AgentRunner, DeviceRunner, runners
from edgeloop.runtime_table import LITERT

LOCAL = "local"


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What to run where, and how often.

    Attributes:
        devices: Where to run. Empty: for each runtime, the first place where it is installed.
        runtimes: By name. Empty: every runtime of the file's format that is installed.
        delegate: `edgetpu`, or a delegate's library as the device finds it; None: the runtime's own kernels.
        threads: Of the runtime.
        runs: Measured queries of each pair; a query is one call, but for the scenarios that say otherwise. Offline:
            samples of the one query.
        warmup: Calls before them.
        driver: LoadGen issues as many queries before the turns, in a run of its own; the record's samples stay ours,
            and its peak memory includes LoadGen's, some 2 MB.
        together: Pairs loaded at a time, each a process; more are measured in groups that share the first pair.
        profile: Also measure the time of each operator, after everything else.
        timeout_s: For one answer of a device.
        shapes: Sizes of inputs, for those that the model leaves free, by name; None: as the model or reference has it.
        seed: Of the order of turns, the groups and the bootstrap.
    """

    devices: tuple[Device, ...] = ()
    runtimes: tuple[str, ...] = ()
    delegate: str | None = None
    threads: int = 1
    runs: int = 200  # half of them at least are steady where a steady state is: 100 runs for a p90
    warmup: int = 10
    scenario: Scenario = Scenario.SINGLE_STREAM
    driver: Driver = Driver.EDGELOOP
    together: int = 8
    profile: bool = False
    timeout_s: float = 120.0
    shapes: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        fewest = FEWEST_RUNS[50]
        if self.runs < fewest:
            raise OptionsError(
                f"--runs is {self.runs}, too few for a median", advice=f"It must be {fewest} or more (64 for a p90)."
            )
        for name, value, least in (
            ("--threads", self.threads, 1),
            ("--warmup", self.warmup, 1),  # the first call is never a steady one
            ("--at-once", self.together, 2),  # one alone cannot take turns
        ):
            if value < least:
                raise OptionsError(f"{name} is {value}", advice=f"It must be {least} or more.")
        above_zero(self.timeout_s, "timeout_s")
        names = [device.name for device in self.devices]
        for name in {name for chosen in (names, self.runtimes) for name in chosen if chosen.count(name) > 1}:
            raise OptionsError(f"{name} is named twice", advice="Name it once.")
        if self.profile and self.runtimes and LITERT.name not in self.runtimes:
            raise OptionsError(
                "--profile works only with LiteRT, and --runtime leaves LiteRT out",
                advice=f"Add --runtime {LITERT.name}.",
            )
        if BROWSER in self.devices:
            self._check_browser()
        if self.delegate is not None and self.profile:
            raise OptionsError("--profile does not work with --delegate", advice="Pass one of the two.")

    def _check_browser(self) -> None:
        for option, given in (("--delegate", self.delegate), ("--driver loadgen", self.driver is Driver.LOADGEN)):
            if given:
                raise OptionsError(
                    f"{option} does not work in a browser, and --on names one",
                    advice="Leave one of them out.",
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchCandidate:
    """A file on a runtime of a device, not loaded yet."""

    target: BenchTarget
    runner: DeviceRunner
    device: Device

    def __str__(self) -> str:
        return f"{self.target.variant} on {self.runner.name} on {self.device.name}"


def plan_candidates(what: Sequence[BenchTarget], options: BenchOptions) -> list[BenchCandidate]:
    """Every file on every runtime of its format on every device, or where the runtime is found first.

    A runtime of a page is on the device `browser` alone, and no other runtime is there.

    Raises:
        OptionsError: A runtime by a name that none has, or one that runs none of the files or on none of the devices;
            or a device that has none of the runtimes.
        MissingExtra: A runtime that was named is installed nowhere here.
    """
    found = [
        BenchCandidate(target=target, runner=runner, device=device)
        for runner in _runtimes(what, options)
        for device in _places(runner, options)
        for target in what
        if target.format in runner.formats
    ]
    for device in options.devices:
        if all(candidate.device != device for candidate in found):
            raise OptionsError(
                f"none of these runtimes runs these files on {device.name}", advice="Name another --runtime for it."
            )
    if not found:
        raise MissingExtra("no runtime for these files is installed", advice="Run: pip install 'edgeloop[edge]'")
    return found


def _runtimes(what: Sequence[BenchTarget], options: BenchOptions) -> Iterator[DeviceRunner]:
    known = _known(options)
    formats = {target.format for target in what} if options.delegate is None else {Format.TFLITE}
    for name in options.runtimes or known:
        if name not in known:
            raise OptionsError(f"there is no runtime {name!r}", advice=f"Choose one of: {', '.join(known)}.")
        if known[name].formats & formats:
            yield known[name]
        elif options.runtimes:
            wanted = ", ".join(sorted(format.value for format in formats))
            raise OptionsError(
                f"{name} does not run {wanted} files", advice="Choose another --runtime, or leave it out."
            )


def _known(options: BenchOptions) -> dict[str, DeviceRunner]:
    """By name: those of the table, and where there is a browser or they are named, the engines of its page."""
    known: dict[str, DeviceRunner] = {
        name: runner for name, runner in runners(options.runtimes).items() if isinstance(runner, AgentRunner)
    }
    engines = {
        name: engine
        for name, engine in PAGE_ENGINES.items()
        if name in options.runtimes or (BROWSER in options.devices and not engine.comparison)
    }
    return known | engines


def _places(runner: DeviceRunner, options: BenchOptions) -> tuple[Device, ...]:
    """The devices that were named, of the kind that this runtime is for; where none was, this interpreter if the
    runtime is installed in it, else the device environment, which is asked when loading."""
    in_page = runner.name in PAGE_ENGINES
    if options.devices:
        return tuple(device for device in options.devices if (device == BROWSER) == in_page)
    if in_page:
        return (BROWSER,)
    named, local = runner.name in options.runtimes, parse_device(LOCAL)
    if not runner.lacks(local):
        return (local,)
    try:
        return (device_environment(),)
    except MissingExtra:
        if named:
            raise
        return ()
