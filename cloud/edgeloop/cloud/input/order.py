"""In which order examples are read, as tf.data.Datasets of numbers or of records: a function of (seed, step) alone.

Of `Numbered` examples each step computes its examples' numbers by a permutation of the epoch, so resuming at step k is
a range that begins at k. Of `Sharded` examples each epoch has its order of shards and its shuffle buffer, both seeded
by (seed, epoch), and resuming skips records before they are decoded.

Source of the permutation: tf.random.experimental.index_shuffle, the block cipher Simon (Beaulieu et al. 2013).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeloop.cloud.input.examples import Numbered, Shard, Sharded
from edgeloop.cloud.input.options import PipelineOptions
from edgeloop.cloud.input.seeds import Purpose, seed_of
from edgeloop.errors import OptionsError
from edgeloop.extras import need

ENDLESS = np.iinfo(np.int64).max
GRAPH_SEED = 1
INTERLEAVED = 8  # shards whose records alternate; how many of them are read at once changes no order


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Which steps are asked for.

    Attributes:
        start_step: Steps count over all epochs from 0.
        epochs: Where the steps end; None: they do not.
        steps: Of one epoch; None: an epoch ends where the data end.
    """

    seed: int
    start_step: int
    epochs: int | None
    steps: int | None
    shard: Shard


def numbers_of_steps(source: Numbered, options: PipelineOptions, run: Run) -> Any:
    """The numbers of each step's examples on one worker, int64 [batch]."""
    tf = need("tensorflow", extra="cloud")
    steps = run.steps or 1
    within = run.shard.index * options.batch + tf.range(options.batch, dtype=tf.int64)
    key = tf.constant(seed_of(run.seed, Purpose.ORDER), tf.int64)
    cumulative = None if options.half_life is None else tf.constant(recency(source, options.half_life))

    def numbers(step: Any) -> Any:
        place = (step % steps) * (options.batch * run.shard.count) + within
        if cumulative is not None:
            draw = tf.stack([key, step * run.shard.count + run.shard.index])
            drawn = tf.random.stateless_uniform([options.batch], draw, dtype=tf.float64)
            return tf.searchsorted(cumulative, drawn, side="right", out_type=tf.int64)
        if not options.shuffle:
            return place
        return tf.random.experimental.index_shuffle(place, tf.stack([key, step // steps]), source.count - 1)

    last = ENDLESS if run.epochs is None else run.epochs * steps
    return tf.data.Dataset.range(run.start_step, last).map(numbers)


def records_of_epochs(source: Sharded, options: PipelineOptions, run: Run) -> Any:
    """The records of one worker's shards, epoch after epoch, from `run.start_step` on."""
    tf = need("tensorflow", extra="cloud")
    files = _files(tf, source, run.shard)
    shards = int(files.shape[0])
    key = tf.constant(seed_of(run.seed, Purpose.SHARDS), tf.int64)
    buffer_key = seed_of(run.seed, Purpose.BUFFER)

    def epoch(number: Any) -> Any:
        places = tf.data.Dataset.range(shards)
        if options.shuffle:
            places = places.map(
                lambda place: tf.random.experimental.index_shuffle(place, tf.stack([key, number]), shards - 1)
            )
        records = places.interleave(
            unconverted(lambda place: source.records(files[place])),
            cycle_length=min(shards, INTERLEAVED),
            **parallel(options.parallel_reads, most=min(shards, INTERLEAVED)),
        )
        if options.shuffle:
            # of this function alone: the global seed would change the order, and 0 be compared with a tensor (TF 2.21)
            tf.compat.v1.get_default_graph().seed = GRAPH_SEED
            records = records.shuffle(options.shuffle_buffer, buffer_key + number, reshuffle_each_iteration=False)
        return records if run.steps is None else records.take(run.steps * options.batch)

    first, skipped = (0, run.start_step) if run.steps is None else divmod(run.start_step, run.steps)
    if options.service is not None:  # its workers share epochs, and each would skip as much: the epoch begins again
        skipped = 0
    last = ENDLESS if run.epochs is None else run.epochs
    return tf.data.Dataset.range(first, last).flat_map(epoch).skip(skipped * options.batch)


def stored(source: Numbered | Sharded, shard: Shard) -> Any:
    """Numbers or records of one worker's part, once, as they are stored."""
    tf = need("tensorflow", extra="cloud")
    if isinstance(source, Numbered):
        return tf.data.Dataset.range(shard.index, source.count, shard.count)
    return tf.data.Dataset.from_tensor_slices(_files(tf, source, shard)).flat_map(unconverted(source.records))


def recency(source: Numbered, half_life: float) -> np.ndarray:
    """The cumulative share of draws, float64 [count], of examples drawn half as often per `half_life` of age.

    Raises:
        OptionsError: The data have no times.
    """
    if source.times is None:
        raise OptionsError(
            "half-life is given, but the examples have no times",
            advice="Name the column of times in [data]: time = NAME. TFRecord files and images have none.",
        )
    weights = np.cumsum(np.exp2((source.times - source.times.max()) / half_life))
    return weights / weights[-1]


def parallel(asked: int, most: int | None = None) -> dict[str, Any]:
    """Arguments for tf.data: 0 is AUTOTUNE (-1), 1 is none at all; `most` bounds a number. The order stays."""
    if asked == 1:
        return {}
    calls = -1 if asked == 0 else asked if most is None else min(asked, most)
    return {"num_parallel_calls": calls, "deterministic": True}


def unconverted(function: Callable) -> Callable:
    """For tf.data: AutoGraph need not look into what holds no Python loop or condition on tensors."""
    return need("tensorflow", extra="cloud").autograph.experimental.do_not_convert(function)


def _files(tf: Any, source: Sharded, shard: Shard) -> Any:
    return tf.constant([str(file) for file in source.files[shard.index :: shard.count]])
