"""The model and the loss that fit the examples of a training."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeloop.cloud.input.examples import Examples, LabelKind
from edgeloop.cloud.train.config.train_config import TrainConfig
from edgeloop.cloud.train.data.training_data import training_and_validation, validation_batches
from edgeloop.cloud.train.distill.objective import distillation_objective
from edgeloop.cloud.train.distill.soft_labels import check_width
from edgeloop.cloud.train.model.models import build_model
from edgeloop.cloud.train.step.evaluation import evaluation_here
from edgeloop.cloud.train.step.objective import Objective, gives_probabilities, make_objective, resolve_loss
from edgeloop.errors import DataError


def label_width(examples: Examples) -> int:
    """Units of a last layer: classes, or numbers to predict."""
    if examples.label_kind is LabelKind.CLASSES:
        return examples.class_count
    return 1 if examples.label is None else int(np.prod(examples.label.shape, dtype=np.int64))


def fitting_objective(config: TrainConfig, model: Any, examples: Examples) -> Objective:
    """The loss of the config for this model and these examples. Raises as `resolve_loss` and `check_width`."""
    outputs = int(model.outputs[0].shape[-1])
    classes = examples.class_count if examples.label_kind is LabelKind.CLASSES else None
    loss = resolve_loss(config.loop.loss, classes, outputs)
    logits = not gives_probabilities(model) if config.loop.from_logits is None else config.loop.from_logits
    objective = make_objective(loss, logits)
    if config.distill.targets is None:
        return objective
    check_width(config.distill.targets, outputs)
    return distillation_objective(objective, config.distill, logits)


def score_of(model: Any, config: TrainConfig) -> float:
    """What the metric of `fitting_objective` says of a model on the examples that the training holds out."""
    validation = training_and_validation(config.data, config.pipeline, config.loop.seed)[1]
    objective = fitting_objective(config, model, validation)
    return evaluation_here(model, objective)(validation_batches(validation, config.pipeline)).score


def fitting_model(config: TrainConfig, examples: Examples) -> Any:
    """The model for these examples.

    Raises:
        DataError: Its inputs or its classes are others than those of the data.
    """
    shapes = {name: tensor.shape for name, tensor in examples.features.items()}
    classify = examples.label_kind is LabelKind.CLASSES
    model = build_model(config.model, shapes, label_width(examples), classify)
    if len(model.inputs) != len(shapes):
        raise DataError(
            f"the model has {len(model.inputs)} inputs, and the data has {', '.join(shapes)}",
            advice="Store one array for each input.",
        )
    by_name = {tensor.name: tensor for tensor in model.inputs}
    inputs = [by_name[name] for name in shapes] if set(by_name) == set(shapes) else model.inputs
    for (name, shape), tensor in zip(shapes.items(), inputs, strict=True):
        expected = tuple(tensor.shape[1:])
        if len(shape) != len(expected) or any(e not in (None, s) for s, e in zip(shape, expected, strict=True)):
            raise DataError(
                f"{name} has the shape {shape} in the data, and the model takes {expected}",
                advice="Choose another model, or bring the data into that shape.",
            )
    return model
