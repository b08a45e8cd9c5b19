"""Batches of examples, made by tf.data. What a batch holds is a function of (seed, step), whatever else is chosen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeloop.cloud.input.augment import augmentation
from edgeloop.cloud.input.cache import cached
from edgeloop.cloud.input.examples import WHOLE, Examples, Numbered, Shard
from edgeloop.cloud.input.options import PipelineOptions
from edgeloop.cloud.input.order import (
    ENDLESS,
    Run,
    numbers_of_steps,
    parallel,
    records_of_epochs,
    stored,
    unconverted,
)
from edgeloop.cloud.input.service.reading import through_service
from edgeloop.errors import DataError
from edgeloop.extras import need


def steps_per_epoch(examples: Examples, batch: int, workers: int = 1) -> int | None:
    """Whole batches that every worker gets from one pass over the data; None: not known before all are read.

    Raises:
        DataError: Too few examples for one batch on each worker, or fewer shards than workers.
    """
    source = examples.source
    if isinstance(source, Numbered):
        steps = source.count // (batch * workers)
    else:
        shards = len(source.files)
        if shards < workers:
            raise DataError(
                f"{examples.name} has {shards} {'shard' if shards == 1 else 'shards'} for {workers} workers",
                advice="Write at least one shard for each worker beside those held out, or start fewer workers.",
            )
        if source.counts is None:
            return None
        steps = min(sum(source.counts[i::workers]) for i in range(workers)) // batch
    if steps < 1:
        place = "" if workers == 1 else f" on each of {workers} workers"
        raise DataError(
            f"{examples.name} has {examples.count} examples, too few for one batch of {batch}{place}",
            advice="Pass more examples, or a smaller batch.",
        )
    return steps


def batches(
    examples: Examples,
    options: PipelineOptions,
    *,
    seed: int = 0,
    start_step: int = 0,
    epochs: int | None = None,
    shard: Shard = WHOLE,
) -> Any:
    """A tf.data.Dataset of training batches (features, labels), each of `options.batch` examples.

    The workers' batches of step k together hold the same examples as one worker's batch of step k that is
    `shard.count` times as large (where examples are `Numbered` and not drawn by their times). What remains after the
    last whole batch of an epoch is left out of that epoch.

    Args:
        seed: Of all that is drawn; the same seed gives the same batches.
        start_step: The first step, e.g. of a resumed training; steps count over all epochs from 0.
        epochs: Where the dataset ends; None: it does not.

    Raises:
        DataError: As `steps_per_epoch`; a cache larger than the memory.
        OptionsError: An augmentation that is not known; a half-life, but no times.
    """
    examples = cached(examples, options)
    steps = steps_per_epoch(examples, options.batch, shard.count)
    run = Run(seed=seed, start_step=start_step, epochs=epochs, steps=steps, shard=shard)
    augment = augmentation(options.augment, seed)
    if isinstance(examples.source, Numbered):
        numbers = numbers_of_steps(examples.source, options, run)
        if _at_once(examples, options):
            return _made(examples, options, numbers, augment, start_step)
        return _made(examples, options, numbers.unbatch(), augment, start_step)
    return _made(examples, options, records_of_epochs(examples.source, options, run), augment, start_step)


def evaluation_batches(examples: Examples, options: PipelineOptions, shard: Shard = WHOLE) -> Any:
    """One pass over the data in their stored order, without augmentation; the last batch may be smaller."""
    examples = cached(examples, options)
    items = stored(examples.source, shard)
    if isinstance(examples.source, Numbered) and _at_once(examples, options):
        items = items.batch(options.batch)
    return _made(examples, options, items, None, 0, whole=False)


def in_order(examples: Examples, shard: Shard) -> Any:
    """Single examples (features, label), once, as they are stored."""
    return stored(examples.source, shard).map(unconverted(_then_finish(examples, examples.source.decode)))


def _at_once(examples: Examples, options: PipelineOptions) -> bool:
    return options.vectorised_map and examples.source.decode_batch is not None


def _made(
    examples: Examples,
    options: PipelineOptions,
    items: Any,
    augment: Callable | None,
    start_step: int,
    whole: bool = True,
) -> Any:
    """Numbers or records -> batches: decode, finish, augment, prefetch."""
    tf = need("tensorflow", extra="cloud")
    calls = parallel(options.parallel_map)

    def mapped(dataset: Any, function: Callable) -> Any:
        return dataset.map(function, **calls)

    source = examples.source
    if _at_once(examples, options):
        assert source.decode_batch is not None  # `_at_once` looked
        items = items if isinstance(source, Numbered) else items.batch(options.batch, drop_remainder=whole)
        made = mapped(items, unconverted(_then_finish(examples, source.decode_batch)))
    else:
        late = options.vectorised_map and examples.finish is not None
        made = mapped(items, unconverted(source.decode if late else _then_finish(examples, source.decode)))
        made = made.batch(options.batch, drop_remainder=whole)
        made = mapped(made, unconverted(_then_finish(examples, lambda *batch: batch))) if late else made
    if options.service is not None:
        made = through_service(made, options.service, options.service_timeout_s)
    if augment is not None:
        steps = tf.data.Dataset.range(start_step, ENDLESS)
        made = mapped(tf.data.Dataset.zip((made, steps)), lambda batch, step: augment(*batch, step))
    if options.prefetch != 0:
        made = made.prefetch(tf.data.AUTOTUNE if options.prefetch is None else options.prefetch)
    return _unsharded(tf, made)


def _then_finish(examples: Examples, decode: Callable) -> Callable:
    finish = examples.finish
    if finish is None:
        return decode

    def finished(*record: Any) -> tuple[Any, ...]:
        features, *label = decode(*record)
        return (finish(features), *label)

    return finished


def _unsharded(tf: Any, dataset: Any) -> Any:
    """Workers' parts are chosen above: a strategy that distributes the dataset must not choose again."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options)
