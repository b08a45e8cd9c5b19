"""Two documents of `edgeloop bench` in; for each row faster, slower, cannot tell or not comparable out.

The change is the second document's: its time over the first one's. Rows pair by variant, runtime and delegate; the
device may be another one, unless a document has several. `faster` and `slower` are said only where the whole 95%
interval of the ratio lies beyond the margin. The two did not alternate, so the interval comes from drawing turns of
each by itself (ratios.unpaired), and holds what happened within each run. What changed on a machine in between it
cannot see; one plan that measures both can.

Where the runs waited for something else (wall time above CPU time), or that is unknown, the CPU times must agree.
Where one of the two never reached a steady state, every turn must: the slowest of one side against the fastest of the
other.

Measured by simulation, 150 pairs of runs of one and the same thing at 100 to 400 runs each, margin 2%: "faster" or
"slower" came out never for even noise with or without rare spikes up to four times as long, in 1% where neighbouring
runs hang together (correlation 0.9), and in 13% at 100 runs, 1% at 400, where spells of 50 runs are half as slow again:
such runs are contended, and then the CPU times decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from edgeloop.edge.measure.bench_document import Record, read_bench
from edgeloop.edge.measure.bench_records import Interval
from edgeloop.edge.measure.ratios import unpaired
from edgeloop.edge.measure.statistics import turn_medians
from edgeloop.errors import DataError, OptionsError

TURN = 5  # runs: what a longer turn of one plan is cut into, so that 50 steady runs suffice
SAME = ("format", "bytes", "sha256", "batch", "threads", "scenario")

Key = tuple[str, str, str | None]


class Change(StrEnum):
    """The values are those of --fail-if and of the output."""

    FASTER = "faster"
    SLOWER = "slower"
    CANNOT_TELL = "cannot-tell"
    NOT_COMPARABLE = "not-comparable"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareOptions:
    """`margin`: a difference that does not matter, as a share: 0.02 is 2%, either way."""

    margin: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.margin < 1:
            raise OptionsError(f"--margin is {self.margin:g}", advice="It must be from 0 to below 1, e.g. 0.02 for 2%.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One row of both documents. `wall`, `cpu`: time of the second over time of the first; None: not comparable."""

    variant: str
    runtime: str
    delegate: str | None
    devices: tuple[str, str]
    change: Change
    why: str
    wall: Interval | None = None
    cpu: Interval | None = None


def compare(
    first: str | Path | Mapping[str, Any],
    second: str | Path | Mapping[str, Any],
    options: CompareOptions = CompareOptions(),
) -> list[Comparison]:
    """Compare every row that both benches have, in the order of the first.

    `first` and `second` are files that `edgeloop bench -o` wrote, or what `bench(...).to_json()` returned. The ratios
    `wall` and `cpu` are times of the second over times of the first: below 1 the second is faster.

    Raises:
        DataError: A file is no bench; they have no row in common, or one of them has the same row twice.

    Example:
        >>> for row in compare("before.json", "after.json", CompareOptions(margin=0.05)):
        ...     print(row.variant, row.runtime, row.change.value, row.why)
    """
    first, second = (read_bench(x) if isinstance(x, (str, Path)) else x for x in (first, second))
    one, other = _rows(first["bench"], "first"), _rows(second["bench"], "second")
    pairs = [
        (a, b)
        for key, rows in one.items()
        for device, a in rows.items()
        if (b := _partner(device, rows, other.get(key, {})))
    ]
    if not pairs:
        named = " and ".join(", ".join(" on ".join(key[:2]) for key in rows) for rows in (one, other))
        raise DataError(
            f"the documents have no row in common: {named}", advice="Compare documents of the same variants."
        )
    return [_compared(a, b, options) for a, b in pairs]


def _rows(records: Sequence[Record], which: str) -> dict[Key, dict[str, Record]]:
    rows: dict[Key, dict[str, Record]] = {}
    for r in records:
        same = rows.setdefault((r["variant"], r["runtime"], r["delegate"]), {})
        if r["device"] in same:
            named = f"{r['variant']} on {r['runtime']} on {r['device']}"
            raise DataError(
                f"the {which} document has {named} twice", advice="Compare documents that edgeloop bench wrote."
            )
        same[r["device"]] = r
    return rows


def _partner(device: str, rows: Mapping[str, Record], others: Mapping[str, Record]) -> Record | None:
    """The same device, or another one where there is no choice on either side."""
    if device in others:
        return others[device]
    return next(iter(others.values())) if len(rows) == len(others) == 1 else None


def _compared(a: Record, b: Record, options: CompareOptions) -> Comparison:
    wall = cpu = None
    why = _incomparable(a, b)
    change = Change.NOT_COMPARABLE
    if not why:
        wall = unpaired(_turns(b, "wall_ms"), _turns(a, "wall_ms"), options.seed)
        ticked = all(
            min(_turns(r, "cpu_ms"), default=0) > 0 for r in (a, b)
        )  # not so where the clock is too coarse for these runs, or a page does not tell
        cpu = unpaired(_turns(b, "cpu_ms"), _turns(a, "cpu_ms"), options.seed) if ticked else None
        alone = a["contended"] is False and b["contended"] is False
        change, why = change_of(wall, cpu, alone, options.margin)
        unsettled = [which for which, r in (("first", a), ("second", b)) if r["steady"]["from"] is None]
        if not why and unsettled and _beyond(_extremes(a, b), options.margin) is not change:
            change, why = (
                Change.CANNOT_TELL,
                f"the {unsettled[0]} measurement reached no steady state, and its blocks do not all agree",
            )
    return Comparison(
        variant=a["variant"],
        runtime=a["runtime"],
        delegate=a["delegate"],
        devices=(a["device"], b["device"]),
        change=change,
        why=why,
        wall=wall,
        cpu=cpu,
    )


def _incomparable(a: Record, b: Record) -> str:
    for which, r in (("first", a), ("second", b)):
        if not r["valid"]:
            return f"the {which} measurement is invalid: {r.get('invalid_because') or 'no reason given'}"
        if r["functional_only"]:
            return f"the {which} measurement ran on an emulated device, whose times are not real"
        if not len(_turns(r, "wall_ms")) or not min(_turns(r, "wall_ms")) > 0:
            return f"the {which} measurement has no block of calls with times above 0"
    for name in SAME:
        if a.get(name) != b.get(name):
            return f"{name} differs: {a.get(name)} and {b.get(name)}"
    return ""


def _turns(record: Record, name: str) -> Any:
    """Medians of the steady turns, or of all of them where no steady state was reached; in milliseconds."""
    return turn_medians(record[name][record["steady"]["from"] or 0 :], min(TURN, record["block"]))


def _extremes(a: Record, b: Record) -> Interval:
    """The ratio of wall times, as low and as high as any two turns have it."""
    of, to = _turns(b, "wall_ms"), _turns(a, "wall_ms")
    return Interval(ratio=float(of[0] / to[0]), low=float(min(of) / max(to)), high=float(max(of) / min(to)))


def change_of(wall: Interval, cpu: Interval | None, alone: bool, margin: float) -> tuple[Change, str]:
    """The change that a ratio shows, and why it shows no more; the reason is empty for faster and slower.

    `alone`: no run waited for anything else.
    """
    if wall.low is None or wall.high is None:
        return Change.CANNOT_TELL, "too few blocks of calls for an interval; measure again with more --runs"
    found = _beyond(wall, margin)
    if found is None:
        if wall.high <= 1 + margin and wall.low >= 1 / (1 + margin):
            return Change.CANNOT_TELL, f"the difference is not above {margin:.0%}"
        return Change.CANNOT_TELL, "the interval overlaps the margin; measure again with more --runs"
    if not alone and (cpu is None or _beyond(cpu, margin) is not found):
        return Change.CANNOT_TELL, "the runs may have been contended, and the CPU times do not show the same change"
    return found, ""


def _beyond(ratio: Interval, margin: float) -> Change | None:
    if ratio.low is None or ratio.high is None:
        return None
    if ratio.low > 1 + margin:
        return Change.SLOWER
    return Change.FASTER if ratio.high < 1 / (1 + margin) else None
