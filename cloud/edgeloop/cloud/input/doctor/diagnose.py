"""Find what limits a training, and which changes of its input make it faster here.

Every remedy is measured in turns with the pipeline as it is by then, and kept only if it is faster beyond the spread of
its pairs: on two cores, parallel reading lost for a set of small images.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.cloud.input.cache import cached
from edgeloop.cloud.input.doctor.bound import Figures, Verdict, verdict
from edgeloop.cloud.input.doctor.measure import REPEATS, Subject, both, figures
from edgeloop.cloud.input.doctor.remedies import REMEDIES, changed
from edgeloop.cloud.input.doctor.trial import Gain, Trial, in_turns
from edgeloop.cloud.input.examples import Examples, Numbered
from edgeloop.cloud.input.options import Cache, DataOptions, PipelineOptions
from edgeloop.cloud.input.parts import take
from edgeloop.cloud.input.readers import open_examples
from edgeloop.cloud.input.schema import write_schema
from edgeloop.cloud.input.writers import WriteOptions, write_examples
from edgeloop.errors import DataError, OptionsError
from edgeloop.leftovers import temporary_folder
from edgeloop.progress import Progress, silent

PAIRS = 5  # of each remedy
LAST_PAIRS = 10  # of the chosen pipeline against the given one
LARGER = 4  # times the batch
WRITTEN = 1024  # examples that are written to try another format, in SHARDS files
SHARDS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What limits a training, and what was tried.

    Attributes:
        before: Figures of the given pipeline.
        options: The chosen pipeline; the given one, where nothing helps.
        gain: Of the chosen over the given one, measured once more at the end; None: they are the same.
    """

    before: Figures
    verdict: Verdict
    trials: tuple[Trial, ...]
    options: PipelineOptions
    gain: Gain | None


def run_seconds(max_time_s: float) -> float:
    """How long one short run may take so that all of them fit into `max_time_s`."""
    runs = 3 * REPEATS + 2 * PAIRS * (len(REMEDIES) + 2) + 2 * LAST_PAIRS
    return min(1.0, 0.6 * max_time_s / runs)  # the rest: caches are filled, threads begin, functions are traced


def diagnose(
    subject: Subject, options: PipelineOptions, *, deadline_s: float, progress: Progress = silent
) -> Diagnosis:
    """Measure, try every remedy, and measure the chosen pipeline against the given one.

    Args:
        deadline_s: `time.monotonic()` after which no remedy is tried any more.
    """
    total = len(REMEDIES) + 4
    given = _Pipeline(options, subject.examples)
    before = figures(subject, given.ready(), options)
    progress("measure", 1, total)
    best = given
    trials: list[Trial] = []
    for done, name in enumerate(REMEDIES, 2):
        trial, best = _tried(subject, name, best, deadline_s)
        trials.append(trial)
        progress(name, done, total)
    trials.append(_other_format(subject, best, deadline_s))
    trials.append(_larger_batch(subject, best, deadline_s))
    progress("storage format and batch size", total - 1, total)
    gain = None
    if best is not given:
        gain = in_turns(both(subject, given.ready(), given.plain), both(subject, best.ready(), best.plain), LAST_PAIRS)
        if not gain.helps:
            best = given
    progress("compare", total, total)
    return Diagnosis(before=before, verdict=verdict(before), trials=tuple(trials), options=best.options, gain=gain)


class _Pipeline:
    """Options, and their examples, of which a cache is filled once."""

    def __init__(self, options: PipelineOptions, examples: Examples) -> None:
        self.options, self.examples = options, examples
        self.filled: Examples | None = None

    @property
    def plain(self) -> PipelineOptions:
        """For examples that are cached already."""
        return replace(self.options, cache=Cache.NONE, cache_folder=None)

    def ready(self) -> Examples:
        if self.filled is None:
            self.filled = cached(self.examples, self.options)
        return self.filled

    def with_change(self, change: dict[str, Any]) -> _Pipeline:
        made = _Pipeline(changed(self.options, change), self.examples)
        if "cache" not in change:
            made.filled = self.filled
        return made


def _tried(subject: Subject, name: str, best: _Pipeline, deadline_s: float) -> tuple[Trial, _Pipeline]:
    change = dict(REMEDIES[name](best.options, subject.examples))
    if not change:
        return Trial(remedy=name, change={}, gain=None, kept=False, why="It changes nothing here."), best
    if time.monotonic() > deadline_s:
        return Trial(remedy=name, change=change, gain=None, kept=False, why="There was no time left to try."), best
    new = best.with_change(change)
    try:
        gain = in_turns(both(subject, best.ready(), best.plain), both(subject, new.ready(), new.plain), PAIRS)
    except (DataError, OptionsError) as e:
        return Trial(remedy=name, change=change, gain=None, kept=False, why=str(e)), best
    why = "It is faster in three of four pairs or more." if gain.helps else "It is not faster beyond the spread."
    if gain.high < 1:
        why = "It is slower here."
    return Trial(remedy=name, change=change, gain=gain, kept=gain.helps, why=why), new if gain.helps else best


def _larger_batch(subject: Subject, best: _Pipeline, deadline_s: float) -> Trial:
    """Measured, and never kept: another batch is another training."""
    change: dict[str, Any] = {"batch": best.options.batch * LARGER}
    count = subject.examples.count
    if time.monotonic() > deadline_s or (count is not None and count < change["batch"]):
        return Trial(remedy="batch size", change=change, gain=None, kept=False, why="It was not tried.")
    new = best.with_change(change)
    gain = in_turns(both(subject, best.ready(), best.plain), both(subject, new.ready(), new.plain), PAIRS)
    why = "It is never kept: another batch changes what a training learns."
    return Trial(remedy="batch size", change=change, gain=gain, kept=False, why=why)


def _other_format(subject: Subject, best: _Pipeline, deadline_s: float) -> Trial:
    """TFRecord files of some of the examples, already decoded; never kept, for a user has to write all of them."""
    name, change = "storage format", {"format": "tfrecord"}
    examples = subject.examples
    if best.options.cache is not Cache.NONE or not isinstance(examples.source, Numbered) or examples.source.in_memory:
        return Trial(remedy=name, change={}, gain=None, kept=False, why="It changes nothing here.")
    if time.monotonic() > deadline_s:
        return Trial(remedy=name, change=change, gain=None, kept=False, why="There was no time left to try.")
    some = take(examples, np.arange(min(examples.source.count, WRITTEN)))
    with temporary_folder() as folder:
        schema, counts = write_examples(some, Path(folder), WriteOptions(shards=min(SHARDS, some.count or 1)))
        write_schema(Path(folder), replace(schema, counts=counts))
        records = open_examples(DataOptions(path=Path(folder)))
        gain = in_turns(both(subject, some, best.options), both(subject, records, best.options), PAIRS)
    why = "It is never kept by itself: edgeloop data write writes such files."
    return Trial(remedy=name, change=change, gain=gain, kept=False, why=why)
