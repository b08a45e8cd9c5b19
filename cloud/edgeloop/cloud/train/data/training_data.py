"""The examples of a training: opened and checked before the first step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeloop.cloud.input.cache import cached
from edgeloop.cloud.input.damage import named_damage
from edgeloop.cloud.input.examples import WHOLE, Examples, LabelKind, Shard, Sharded
from edgeloop.cloud.input.options import Cache, DataOptions, PipelineOptions
from edgeloop.cloud.input.parts import hold_out, numbers_held_out, numbers_of_share, share_of
from edgeloop.cloud.input.pipeline import evaluation_batches
from edgeloop.cloud.input.readers import open_examples
from edgeloop.cloud.train.data.data_config import DataConfig, plain_options
from edgeloop.cloud.train.distill.soft_labels import read_targets, with_soft_targets
from edgeloop.errors import DataError
from edgeloop.extras import need

EVALUATION_BATCH = 256  # no gradients are kept: more fits than in a training step


def training_and_validation(
    data: DataConfig, pipeline: PipelineOptions, seed: int, targets: Path | None = None
) -> tuple[Examples, Examples]:
    """What steps train on, and what decides when to stop; both counted, checked and, if asked, cached.

    Args:
        targets: Soft targets of all examples at `data.path`, in their stored order; each example gets its own
            beside its label.

    Raises:
        DataError: They cannot be read, have no labels or labels out of range, or are too few.
    """
    seed = seed if data.split_seed is None else data.split_seed
    options = plain_options(data)
    whole = _checked(open_examples(options))
    if data.validation is None:
        training, validation = hold_out(whole, data.held_out, seed)
    else:
        training, validation = whole, _checked(_validation_examples(options, data.validation, whole))
        if validation.class_count > whole.class_count or set(validation.features) != set(whole.features):
            raise DataError(
                f"{data.validation} has other classes or features than {data.path}",
                advice="Validate on data of the same kind.",
            )
    if data.share < 1:
        training = share_of(training, data.share, seed)
    trained, validation = cached(training, pipeline), cached(validation, pipeline)
    if targets is not None:
        taught = read_targets(targets, whole)
        if data.validation is None:
            taught = taught[numbers_held_out(len(taught), round(len(taught) * data.held_out), seed)[0]]
        if data.share < 1:
            taught = taught[numbers_of_share(len(taught), data.share, seed)]
        trained = with_soft_targets(trained, taught)
    return trained, validation


def _validation_examples(options: DataOptions, path: Path, whole: Examples) -> Examples:
    """The classes have the numbers they have in training; times decide nothing here, so they may be missing."""
    options = replace(options, path=path, classes=whole.classes)
    try:
        return open_examples(options)
    except DataError as refused:
        if options.time is None:
            raise
        try:
            return open_examples(replace(options, time=None))
        except DataError:
            raise refused from None


def uncached(pipeline: PipelineOptions, batch: int) -> PipelineOptions:
    """How to make batches of what `training_and_validation` has cached already."""
    return replace(pipeline, batch=batch, cache=Cache.NONE, cache_folder=None)


def validation_batches(examples: Examples, pipeline: PipelineOptions, shard: Shard = WHOLE) -> Any:
    """Every example of one worker's part once, in order, without augmentation."""
    return evaluation_batches(examples, uncached(pipeline, EVALUATION_BATCH), shard)


def _checked(examples: Examples) -> Examples:
    """The same, with the number of examples and of classes, which some formats tell only when all is read."""
    if examples.label_kind is None:
        raise DataError(f"{examples.name} has no labels", advice="Name the array or column of labels: [data] label.")
    with named_damage(examples):
        if examples.count is None and isinstance(examples.source, Sharded):
            examples = replace(examples, source=_counted(examples.source))
        if examples.label_kind is LabelKind.CLASSES and not examples.class_count:
            examples = replace(examples, class_count=_class_count(examples))
    return examples


def _counted(source: Sharded) -> Sharded:
    tf = need("tensorflow", extra="cloud")
    one = tf.constant(1, tf.int64)
    counts = (source.records(tf.constant(str(file))).reduce(one * 0, lambda n, *_: n + one) for file in source.files)
    return replace(source, counts=tuple(int(count) for count in counts))


def _class_count(examples: Examples) -> int:
    """The largest label and one.

    Raises:
        DataError: A label is below 0.
    """
    largest = -1
    for place, (_, label) in enumerate(examples.dataset().as_numpy_iterator()):
        if label < 0:
            raise DataError(
                f"{examples.name}: the label of example {place} is {label}, expected 0 or more",
                advice="Number the classes from 0.",
            )
        largest = max(largest, int(label))
    return largest + 1
