"""Kinds of models, and how often the prediction for the Edge TPU was exact for each on models that no rule had seen.

A kind is reliable if at least 95% of five or more architectures, that is sequences of operators, were exact; for any
other kind the prediction is uncertain. docs/targets.md has the pairs; a test counts them again.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from edgeloop.files.graph_facts import GraphFacts

RELIABLE_SHARE, RELIABLE_ARCHITECTURES = 0.95, 5
CONVOLUTIONS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"})
RECURRENT = ("LSTM", "RNN", "WHILE")  # parts of names


class ModelKind(enum.StrEnum):
    """By what a graph computes and puts out."""

    DENSE = "a dense network"
    CLASSIFIER = "a convolutional network with a vector as output"
    DETECTOR = "a detector"
    IMAGE = "a convolutional network with an image as output"
    RECURRENT = "a recurrent network"


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Exact predictions on held-out architectures."""

    exact: int
    architectures: int

    @property
    def reliable(self) -> bool:
        return self.architectures >= RELIABLE_ARCHITECTURES and self.exact >= RELIABLE_SHARE * self.architectures


HELD_OUT = {
    ModelKind.DENSE: Score(exact=7, architectures=7),
    ModelKind.CLASSIFIER: Score(exact=9, architectures=9),
    ModelKind.DETECTOR: Score(exact=4, architectures=4),
    ModelKind.IMAGE: Score(exact=2, architectures=3),
    ModelKind.RECURRENT: Score(exact=0, architectures=0),
}


def model_kind(graph: GraphFacts) -> ModelKind:
    """The first that fits: recurrent, detector (boxes, or several rows as output), image, convolutional, dense."""
    operators = {step.op for step in graph.steps}
    shapes = [graph.values[i].shape for i in graph.outputs]
    wide = [shape for shape in shapes if sum(size != 1 for size in shape) > 1]
    if any(part in op for op in operators for part in RECURRENT):
        return ModelKind.RECURRENT
    if "TFLite_Detection_PostProcess" in operators or any(len(shape) < 4 for shape in wide):
        return ModelKind.DETECTOR
    if wide:
        return ModelKind.IMAGE
    return ModelKind.CLASSIFIER if operators & CONVOLUTIONS else ModelKind.DENSE
