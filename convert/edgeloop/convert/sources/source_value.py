"""What every kind of source becomes: one signature, with its tensors, its answers and its graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.bundle import Kind, Scheme, TensorSpec
from edgeloop.convert.sources.identify import SourceKind

INFER = "infer"  # the signature of a model that has no name for it

Arrays = Mapping[str, np.ndarray]
Call = Callable[[Arrays], dict[str, np.ndarray]]
Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Lookup:
    """What was cut off before an input: `text` is the input of words that the model had there, and `numbers` gives what
    the model takes now, [n, ...], of texts in UTF-8, bytes [n, *text.shape[1:]]."""

    text: TensorSpec
    numbers: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One signature of one model.

    Attributes:
        signature: Its name. "infer" for Keras and ONNX models and for .tflite files without one.
        call: Runs the original: named arrays with the batch in, named arrays out. ModelError where it cannot.
        graph: Named tensors in, list of tensors in the order of `outputs` out, to be traced. None for a .tflite.
        model: The Keras 3 model. None for every other source, and for an .h5 that only tf_keras could load.
        layers: Of an imported ONNX model: builds a Keras model of it whose last layers devices can train.
        flatbuffer: The .tflite itself, with its signature, where that is the source.
        judge: Of an imported ONNX model: raises ModelError where it computes something else than the original on one of
            these calls.
        bounded: Outputs that end in a sigmoid or softmax.
        rounds: It rounds its values to 8 bits itself: in the ranges that it states (int8), which therefore needs no
            real inputs to measure them with; or in those of every call (dynamic).
        unstated: Inputs of its operators with weights whose ranges it does not state, though it rounds others.
        below: Whole numbers that are made up for it are smaller: 2 where nothing is known, an index into any table.
        sizes: Of an imported ONNX model: shapes of its inputs that the original accepts, for made-up samples.
        notes: What a user should know of how it was read: what was allowed, which Keras read it.
        files: Go into the bundle beside the variants, by name: the words that are looked up before the model.
        lookups: How they are looked up, by the name of the input.
    """

    path: Path
    kind: SourceKind
    sha256: str
    signature: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    call: Call
    graph: Callable[..., list[Any]] | None = None
    model: Any = None
    layers: Callable[[], Any] | None = None
    flatbuffer: bytes | None = None
    judge: Callable[[Sequence[Arrays]], None] | None = None
    rounds: Scheme | None = None
    unstated: int = 0
    bounded: tuple[str, ...] = ()
    below: int = 2
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    lookups: Mapping[str, Lookup] = field(default_factory=dict)

    @property
    def states_ranges(self) -> bool:
        return self.rounds is Scheme.INT8 and not self.unstated


def layered(source: Source) -> Source:
    """With a Keras model, where one can be built of it.

    Raises:
        ModelError: It has no layers that train.
    """
    return source if source.model is not None or source.layers is None else replace(source, model=source.layers())


def tensor_specs(names: Sequence[str], shapes: Sequence[tuple[Shape, str]]) -> tuple[TensorSpec, ...]:
    """Names with their (shape, dtype). Four dimensions with 1, 3 or 4 channels last are taken for an image."""
    return tuple(
        TensorSpec(name, tuple(shape), dtype, _kind(shape), layout="NHWC" if _kind(shape) is Kind.IMAGE else None)
        for name, (shape, dtype) in zip(names, shapes, strict=True)
    )


def _kind(shape: Shape) -> Kind:
    return Kind.IMAGE if len(shape) == 4 and shape[3] in (1, 3, 4) else Kind.OTHER
