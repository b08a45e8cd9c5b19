"""Files, runtimes and devices in, latency records and their ratios out: one plan, whose models take turns.

A pair is a file on a runtime of a device, loaded in a process of its own. They are loaded one after the other, so that
no load is measured while another one runs. Then come rounds: in each, every pair has one turn, in random order, so
that what slows the machine down for a while slows all of them. A bundle's variant is measured on a runtime it was
proved on, or that agrees with reference.npz here and now.

Of more pairs than fit (`together`), groups are measured one after the other. The first pair of the plan belongs to
every group, for the others are compared with it; which other ones share a group is drawn at random.
"""

from __future__ import annotations

import contextlib
import os
import platform
import random
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edgeloop.edge.measure.bench_plan import BenchCandidate, BenchOptions, plan_candidates
from edgeloop.edge.measure.bench_records import Bench
from edgeloop.edge.measure.bench_summary import ratio, summarize
from edgeloop.edge.measure.bench_targets import BenchTarget, find_targets
from edgeloop.edge.measure.loadgen_client import measure_with_loadgen
from edgeloop.edge.measure.pair_loader import PairLoader
from edgeloop.edge.measure.prepared_model import PreparedModel
from edgeloop.edge.measure.profile import profile
from edgeloop.edge.measure.scenarios import Driver, ScenarioResult
from edgeloop.processes.messages import to_header
from edgeloop.progress import Progress, silent
from edgeloop.runtime.agent.protocol import ProbeReply

DEFAULTS = BenchOptions()


def bench(
    what: str | Path | Sequence[BenchTarget],
    options: BenchOptions = DEFAULTS,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda line: None,
) -> Bench:
    """Measure every variant on every runtime of its format on every device, side by side.

    Args:
        what: A bundle folder, a .tflite or an .onnx file; or what `find_targets` found in several.
        progress: Told how many rounds of turns are over.
        say: Told, as soon as it is known, which pair is left out and why; the result's notes say it too.

    Returns:
        A record for each pair, times in milliseconds, sizes in bytes, every run kept; and the ratio of each record to
        the first, with its 95% interval.

    Raises:
        ModelError: `what` is none of these files.
        DataError: The bundle's reference.npz is damaged.
        OptionsError: A runtime by a name that none has, or one that runs none of the targets.
        MissingExtra: Nothing installed can run any of the targets; a runtime asked for by name, or LoadGen, is not
            installed.
        ParityError, TargetError: A device or a runtime that was named runs none of the targets, or no
            target can be measured at all; the class is that of the reason. With a delegate: any of the pairs.
        DeviceError: As these two; or a named device cannot be reached, or an agent died or hung while it was measured.

    Example:
        >>> found = bench("m/", BenchOptions(runtimes=("litert",), runs=200))
        >>> [(r.variant, r.p50_ms, r.p90_ms) for r in found.records]
    """
    candidates = plan_candidates(find_targets(Path(what)) if isinstance(what, (str, Path)) else what, options)
    order = random.Random(options.seed)
    groups = _groups(candidates, options.together, order)
    pairs: list[tuple[PreparedModel, int]] = []  # with the runs of the first pair that came before its group
    profiles: dict[int, Any] = {}
    driven: dict[int, ScenarioResult] = {}
    with contextlib.ExitStack() as stack:
        loader = PairLoader(candidates, options, stack, say)
        for done, group in enumerate(groups):
            opened = loader.load(group)
            members = [*(pair for pair, _ in pairs[:1]), *opened]
            pairs += [(pair, len(members[0].samples.wall_ms)) for pair in opened]
            if (
                options.driver is Driver.LOADGEN
            ):  # before the turns: a device without LoadGen is found out within a second
                driven |= {id(pair): _by_loadgen(pair) for pair in opened}
            for turn in _rounds(members, order):
                progress("bench", done * members[0].turns + turn, len(groups) * members[0].turns)
            for pair in members[1:]:
                profiles[id(pair)] = profile(pair, loader.note) if options.profile else None
                pair.close()
        (first, _), *rest = pairs
        # last, for it has turns in every group and a profile takes memory: 44 MB became 120
        profiles[id(first)] = profile(first, loader.note) if options.profile else None
    rest.sort(key=lambda found: candidates.index(found[0].candidate))
    to = summarize(first, profiles[id(first)], driven.get(id(first)))
    others = [(summarize(pair, profiles[id(pair)], driven.get(id(pair))), skipped) for pair, skipped in rest]
    return Bench(
        records=(to, *(of for of, _ in others)),
        ratios=tuple(ratio(of, to, skipped, options.seed) for of, skipped in others),
        devices={pair.candidate.device.label: _described(pair.about) for pair, _ in reversed(pairs)},
        host=_host(),
        seed=options.seed,
        notes=tuple(loader.notes),
    )


def _described(about: ProbeReply) -> dict[str, Any]:
    return {name: value for name, value in to_header(about).items() if name != "backend"}


def _by_loadgen(pair: PreparedModel) -> ScenarioResult:
    return measure_with_loadgen(pair.agent, pair.inputs, pair.signature, pair.query, pair.queries).outcome


def _groups(
    candidates: Sequence[BenchCandidate], together: int, order: random.Random
) -> list[Sequence[BenchCandidate]]:
    """As few as there can be; the first pair of the first group joins the others, so they have room for one less."""
    if len(candidates) <= together:
        return [candidates]
    first, *rest = candidates
    order.shuffle(rest)
    room = together - 1
    return [[first, *rest[:room]], *(rest[i : i + room] for i in range(room, len(rest), room))]


def _rounds(members: Sequence[PreparedModel], order: random.Random) -> Iterator[int]:
    """One turn of each member, in random order, as often as there are turns; yields how many rounds are over."""
    stations = {pair.candidate.device: pair for pair in reversed(members)}  # one agent reads for all of its device

    def read_conditions() -> None:
        for device, station in stations.items():
            reading = station.read_conditions()
            for pair in members:
                if pair.candidate.device == device:
                    pair.samples.readings.append(reading)

    read_conditions()
    for turn in range(members[0].turns if members else 0):
        for pair in order.sample(members, len(members)):
            pair.take_turn()
        read_conditions()
        yield turn + 1


def _host() -> dict[str, Any]:
    """This machine, without its name."""
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "edgeloop": version("edgeloop"),
    }
