"""What a server reads in a trainable .tflite: its batch, its labels, whether its steps are plain SGD."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from edgeloop.convert.forms.flatbuffer_tree import read_tree
from edgeloop.errors import ModelError
from edgeloop.federated.rounds.statistics.told import Labels
from edgeloop.federated.rounds.trained_bundle import AGAIN, all_variables, weight_variables

INT32 = 2  # of TensorType in the schema of .tflite


@dataclass(frozen=True)
class TrainableFile:
    """Of one file.

    Attributes:
        batch: Samples of a step.
        plain: Its optimizer keeps nothing between two steps, as plain SGD; momentum and Adam keep moments.
        labels: What its labels are.
    """

    batch: int
    plain: bool
    labels: Labels


def read_trainable(model: bytes) -> TrainableFile:
    """Read a file.

    Raises:
        ModelError: It lacks a signature.
    """
    tree = read_tree(model)
    train, infer = (
        next((s for s in tree.signatureDefs or () if s.signatureKey == key), None) for key in (b"train", b"infer")
    )
    y = None if train is None else next((i.tensorIndex for i in train.inputs if i.name == b"y"), None)
    if train is None or infer is None or y is None:
        raise ModelError("the trainable file has no signatures train, with labels y, and infer", advice=AGAIN)
    weights = {variable for parts in weight_variables(tree).values() for variable in parts}
    labels = tree.subgraphs[train.subgraphIndex].tensors[y]
    answers = tree.subgraphs[infer.subgraphIndex].tensors[infer.outputs[0].tensorIndex]
    return TrainableFile(int(labels.shape[0]), all_variables(tree) <= weights, _labels(labels, answers))


def _labels(labels: Any, answers: Any) -> Labels:
    """As a device tells them apart (docs/trainable.md)."""
    shape, units = [int(n) for n in labels.shape], int(answers.shape[-1])
    if labels.type != INT32:
        return Labels()
    if units > 1 and len(shape) < len(answers.shape):
        return Labels(units, math.prod(shape[1:]))
    return Labels(2) if len(shape) == 1 else Labels()
