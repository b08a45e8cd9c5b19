"""Parts of a set of examples: what is trained on, and what is held out to decide by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from edgeloop.cloud.input.examples import Examples, Sharded
from edgeloop.cloud.input.seeds import Purpose, seed_of
from edgeloop.errors import DataError, OptionsError
from edgeloop.extras import need


def hold_out(examples: Examples, share: float, seed: int) -> tuple[Examples, Examples]:
    """What to train on, and `share` of it (above 0, below 1) to validate on; together every example once.

    Of `Numbered` examples single ones are drawn, of `Sharded` ones whole shards.

    Raises:
        DataError: Too few examples or shards for two parts.
    """
    if not 0 < share < 1:
        raise OptionsError(f"the share held out is {share:g}", advice="It must be above 0 and below 1.")
    sharded = isinstance(examples.source, Sharded)
    count = len(examples.source.files) if isinstance(examples.source, Sharded) else examples.source.count
    held = max(1, round(count * share)) if sharded else round(count * share)
    if not 0 < held < count:
        what = "shards" if sharded else "examples"
        raise DataError(
            f"{examples.name} has {count} {what}, too few to hold out {share:.0%}",
            advice="Pass more of them, or name data to validate on.",
        )
    trained_on, held_out = numbers_held_out(count, held, seed)
    return take(examples, trained_on), take(examples, held_out)


def share_of(examples: Examples, share: float, seed: int) -> Examples:
    """Some of the examples or shards, drawn; a smaller share is a part of every larger one.

    Raises:
        DataError: The share has none.
    """
    count = len(examples.source.files) if isinstance(examples.source, Sharded) else examples.source.count
    numbers = numbers_of_share(count, share, seed)
    if not len(numbers):
        raise DataError(
            f"{examples.name} has {count} to train on, of which {share:g} is none", advice="Choose a larger share."
        )
    return take(examples, numbers)


def numbers_of_share(count: int, share: float, seed: int) -> np.ndarray:
    """Which of `count` examples or shards belong to a share, sorted."""
    order = np.random.default_rng(seed_of(seed, Purpose.SHARE)).permutation(count)
    return np.sort(order[: round(count * share)])


def numbers_held_out(count: int, held: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of `count` examples or shards are trained on, and which `held` ones are held out; both sorted."""
    order = np.random.default_rng(seed_of(seed, Purpose.HOLD_OUT)).permutation(count)
    return np.sort(order[held:]), np.sort(order[:held])


def take(examples: Examples, numbers: np.ndarray) -> Examples:
    """Some of the examples (of `Numbered` ones), or some of the shards, by number, in the order given."""
    source = examples.source
    if isinstance(source, Sharded):
        counts = None if source.counts is None else tuple(source.counts[k] for k in numbers)
        return replace(examples, source=replace(source, files=tuple(source.files[k] for k in numbers), counts=counts))
    chosen = _of_chosen(numbers.astype(np.int64))
    part = replace(
        source,
        count=len(numbers),
        decode=chosen(source.decode),
        decode_batch=None if source.decode_batch is None else chosen(source.decode_batch),
        times=None if source.times is None else source.times[numbers],
    )
    return replace(examples, source=part)


def _of_chosen(numbers: np.ndarray) -> Callable[[Callable], Callable]:
    """Makes of a `decode` of all examples one of the chosen: place -> number -> example."""

    def chosen(decode: Callable) -> Callable:
        def at(places: Any) -> Any:
            tf = need("tensorflow", extra="cloud")
            return decode(tf.gather(tf.constant(numbers), places))

        return at

    return chosen
