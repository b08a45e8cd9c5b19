"""A candidate in, a model that is loaded and computes the right outputs out; then its turns, one after another."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from edgeloop.edge.measure.bench_plan import BenchCandidate, BenchOptions
from edgeloop.edge.measure.bench_records import Reading
from edgeloop.edge.measure.bench_targets import BenchTarget
from edgeloop.edge.measure.scenarios import Query, Scenario, query_of
from edgeloop.errors import MissingExtra, OptionsError, ParityError, TargetError
from edgeloop.runtime.client import RunResult, RuntimeClient
from edgeloop.runtime.parity.compare import RunContext, reason
from edgeloop.runtime.parity.self_check import Reference, batch_of, inference, sample, self_check

QUERIES_A_TURN = 5  # 100 runs are 20 turns: the bootstrap and the change-point test have something to draw from
# A turn begins with calls that find the caches, and the agent asleep, as the turns of others left them. Measured with
# four models of 12 to 550 us taking turns: the first call took 1.1 to 3.6 times the median of the fifth to tenth, the
# second 1.01 to 1.2 times, the third 1.0 to 1.1. With the first one counted, every p90 was its time.
ENTRY = 2
CALLS_AT_ONCE = 4000  # of one request: three times each, as JSON, in a frame header of 1 MiB


@dataclass
class TimingSamples:
    """What was measured of one pair, in order; the fields are those of `Latency`, but that `started_s` counts from
    the agent's first run, which was `epoch_s` seconds after the plan's start or a little later."""

    first_ms: float
    epoch_s: float
    warmup_ms: tuple[float, ...] = ()
    entry_ms: list[float] = field(default_factory=list)
    wall_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    started_s: list[float] = field(default_factory=list)
    switches: list[int | None] = field(default_factory=list)  # involuntary ones, of each request
    rss_bytes: int | None = None
    rss_peak_bytes: int | None = None
    readings: list[Reading] = field(default_factory=list)


class PreparedModel:
    """A model in an agent. `began_s`: the plan's start on this machine's monotonic clock; `close` ends the agent."""

    def __init__(
        self,
        candidate: BenchCandidate,
        agent: RuntimeClient,
        options: BenchOptions,
        began_s: float,
        close: Callable[[], None],
    ) -> None:
        """Load, run once, check against the reference where no proof says so, warm up.

        Raises:
            MissingExtra: The runtime does not load there.
            DeviceError: The agent died or did not answer in time.
            TargetError: The runtime or the delegate refuses the model.
            ParityError: Its outputs differ from its source's.
        """
        self.candidate, self.agent, self.options = candidate, agent, options
        self.began_s, self.close = began_s, close
        self.about = agent.probe(refused=MissingExtra)
        target, delegate = candidate.target, None if options.delegate is None else {"library": options.delegate}
        self.prepared = agent.prepare(target.entry, options.threads, delegate=delegate)
        self.signature, specs = inference(self.prepared.signatures or {}, target.reference)
        specs = with_sizes(specs, options.shapes)
        reference = None if options.shapes else target.reference
        real = reference is not None and set(specs) == set(reference.inputs)
        self.assumed_sizes = () if real else free_sizes(specs)
        self.query, self.inputs = query_and_inputs(specs, reference, target, options)
        self.queries = 1 if options.scenario is Scenario.OFFLINE else options.runs
        self.queries_a_turn = min(QUERIES_A_TURN, self.queries)
        asked_s = time.monotonic() - began_s
        self.samples = TimingSamples(first_ms=self._run(1).wall_ms[0], epoch_s=asked_s)
        self._check(batch_of(specs))
        self.samples.warmup_ms = tuple(self._run(options.warmup).wall_ms)

    @property
    def turns(self) -> int:
        return -(-self.queries // self.queries_a_turn)

    @property
    def block(self) -> int:
        """Runs of a turn."""
        return self.queries_a_turn * self.query.calls

    def take_turn(self) -> None:
        """Measure the next turn.

        Raises:
            DeviceError: The agent died or did not answer in time.
            TargetError: The runtime fails.
        """
        samples, runs_of_a_group = self.samples, self.queries * self.query.calls
        left, entry = min(self.block, runs_of_a_group - len(samples.wall_ms) % runs_of_a_group), ENTRY
        while left:
            runs, asked_s = min(left, CALLS_AT_ONCE), time.monotonic() - self.began_s
            answer = self._run(entry + runs)
            # no run began before it was asked for: the latest of these bounds is the closest
            samples.epoch_s = max(samples.epoch_s, asked_s - answer.started_s[0])
            samples.entry_ms += answer.wall_ms[:entry]
            samples.wall_ms += answer.wall_ms[entry:]
            samples.cpu_ms += answer.cpu_ms[entry:]
            samples.started_s += answer.started_s[entry:]
            samples.switches.append(answer.involuntary_switches)
            samples.rss_bytes, samples.rss_peak_bytes = answer.rss_bytes, answer.rss_peak_bytes
            left, entry = left - runs, 0

    def read_conditions(self) -> Reading:
        """The device's state now, with `at_s` since the plan's start."""
        return {"at_s": time.monotonic() - self.began_s, **self.agent.conditions()}

    def _run(self, runs: int) -> RunResult:
        return self.agent.run(self.inputs, self.signature, runs=runs)

    def _check(self, batch: int) -> None:
        target, runtime = self.candidate.target, self.candidate.runner.name
        if target.proved_on is None or runtime in target.proved_on:
            return
        if target.reference is None:
            raise ParityError(
                "it was not proved on this runtime, and the bundle has no reference.npz to check it with",
                advice="Choose another --runtime, or convert without --no-reference.",
            )
        where = RunContext(target.variant, runtime, device=self.candidate.device.label)
        rows = self_check(self.agent, where, target.reference, self.signature, batch)
        wrong = [reason(row) for row in rows if not row.passed]
        if wrong:
            raise ParityError(wrong[0], advice="Run edgeloop verify BUNDLE for every output.")


def query_and_inputs(
    specs: Mapping[str, dict], reference: Reference | None, target: BenchTarget, options: BenchOptions
) -> tuple[Query, dict[str, np.ndarray]]:
    """What one query is on this model, and the inputs of one of its calls: real ones of `reference`, or made up.

    A first axis is a batch only where something says so: the model, by leaving it free, or the bundle.
    """
    for name, spec in specs.items():
        if np.dtype(spec["dtype"]).kind not in "fiubc":
            raise TargetError(
                f"input {name!r} is of type {spec['dtype']}, and only numbers can be made up",
                advice="Measure a model that takes numbers.",
            )
    whole = target.reference is not None and target.reference.whole  # then its first axis, free or not, is no batch
    free = not whole and [spec["shape"][:1] for spec in specs.values()][:1] == [[None]]
    fixed = batch_of(specs) if target.batched or (target.reference is not None and not whole) else 1
    samples = options.runs if options.scenario is Scenario.OFFLINE else None
    query = query_of(options.scenario, None if free else fixed, samples)
    inputs = sample(specs, reference)
    for name, spec in specs.items():
        if not whole and spec["shape"][:1] == [None]:
            inputs[name] = np.repeat(inputs[name], query.samples_per_call, axis=0)
    return query, inputs


def with_sizes(specs: Mapping[str, dict], shapes: Mapping[str, tuple[int | None, ...]]) -> dict[str, dict]:
    """The specs, with the free sizes that the user named.

    Raises:
        OptionsError: The model has no input of that name.
        TargetError: The sizes do not fit this file; another variant may take them.
    """
    found = {name: dict(spec) for name, spec in specs.items()}
    have = ", ".join(f"{name} {spec['shape']}".replace("None", "?") for name, spec in specs.items()) or "none"
    for name, sizes in shapes.items():
        if name not in found:
            raise OptionsError(f"--shape names the input {name!r}", advice=f"The model's inputs are: {have}.")
        own = found[name]["shape"]
        if len(own) != len(sizes) or any(
            None not in pair and len(set(pair)) > 1 for pair in zip(own, sizes, strict=False)
        ):
            raise TargetError(
                f"--shape {name}={','.join('?' if d is None else str(d) for d in sizes)} does not fit its inputs, "
                f"which are {have}",
                advice="Give sizes only where the model has a ?.",
            )
        found[name]["shape"] = [b if a is None else a for a, b in zip(own, sizes, strict=True)]
    return found


def free_sizes(specs: Mapping[str, dict]) -> tuple[str, ...]:
    """Inputs with a free size besides the batch."""
    return tuple(name for name, spec in specs.items() if None in spec["shape"][1:])
