"""What may make an input faster: one change of the pipeline each, in the order they are tried."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from edgeloop.cloud.input.examples import Examples, Numbered, Sharded
from edgeloop.cloud.input.memory import see_that_it_fits
from edgeloop.cloud.input.options import Cache, PipelineOptions
from edgeloop.errors import DataError

Change = Mapping[str, Any]  # fields of PipelineOptions; empty: the remedy cannot change anything here


def _cache(options: PipelineOptions, examples: Examples) -> Change:
    if options.cache is not Cache.NONE or _in_memory(examples):
        return {}
    if examples.count is None:
        return {"cache": Cache.MEMORY}
    try:
        see_that_it_fits(examples.name, examples.count * examples.stored_bytes)
    except DataError:
        return {"cache": Cache.DISK}
    return {"cache": Cache.MEMORY}


def _parallel_map(options: PipelineOptions, examples: Examples) -> Change:
    return {"parallel_map": 0 if options.parallel_map == 1 else 1}


def _parallel_reads(options: PipelineOptions, examples: Examples) -> Change:
    shards = len(examples.source.files) if isinstance(examples.source, Sharded) else 1
    if shards == 1 or options.cache is not Cache.NONE:
        return {}
    return {"parallel_reads": 0 if options.parallel_reads == 1 else 1}


def _prefetch(options: PipelineOptions, examples: Examples) -> Change:
    return {"prefetch": None if options.prefetch == 0 else 0}


def _vectorised_map(options: PipelineOptions, examples: Examples) -> Change:
    at_once = examples.source.decode_batch is not None or options.cache is not Cache.NONE
    return {"vectorised_map": not options.vectorised_map} if at_once or examples.finish is not None else {}


REMEDIES: Mapping[str, Callable[[PipelineOptions, Examples], Change]] = {
    "cache": _cache,
    "parallel reads": _parallel_reads,
    "parallel map": _parallel_map,
    "vectorised map": _vectorised_map,
    "prefetch": _prefetch,
}


def changed(options: PipelineOptions, change: Change) -> PipelineOptions:
    """The options with the change."""
    return replace(options, **change)


def _in_memory(examples: Examples) -> bool:
    return isinstance(examples.source, Numbered) and examples.source.in_memory
