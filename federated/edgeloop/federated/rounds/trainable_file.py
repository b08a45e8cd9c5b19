"""What a server reads in a trainable .tflite: the size of its batch, and whether its steps are plain SGD."""

from __future__ import annotations

from dataclasses import dataclass

from edgeloop.convert.forms.flatbuffer_tree import read_tree
from edgeloop.errors import ModelError
from edgeloop.federated.rounds.trained_bundle import AGAIN, all_variables, weight_variables


@dataclass(frozen=True)
class TrainableFile:
    """Of one file.

    Attributes:
        batch: Samples of a step.
        plain: Its optimizer keeps nothing between two steps, as plain SGD; momentum and Adam keep moments.
    """

    batch: int
    plain: bool


def read_trainable(model: bytes) -> TrainableFile:
    """Read a file.

    Raises:
        ModelError: It lacks a signature.
    """
    tree = read_tree(model)
    train = next((s for s in tree.signatureDefs or () if s.signatureKey == b"train"), None)
    labels = None if train is None else next((i.tensorIndex for i in train.inputs if i.name == b"y"), None)
    if train is None or labels is None:
        raise ModelError("the trainable file has no signature train with labels y", advice=AGAIN)
    weights = {variable for parts in weight_variables(tree).values() for variable in parts}
    batch = int(tree.subgraphs[train.subgraphIndex].tensors[labels].shape[0])
    return TrainableFile(batch, plain=all_variables(tree) <= weights)
