"""Something that cannot be imported in, the refusal out: with the options under which the model can be, if there are.

What is computed from a free size or an input is known only on the device. Fixed sizes (`--shape`) and fixed inputs
(`--fix`) make it known, so these are tried, and the ones that pass are named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.convert.sources.onnx_sizes import named_sizes
from edgeloop.convert.sources.source_value import Shape
from edgeloop.errors import ModelError

if TYPE_CHECKING:
    from edgeloop.convert.onnx.importer import Tensor
    from edgeloop.convert.onnx.trials import Recipe
    from edgeloop.convert.sources.onnx_source import OnnxFile

INSTEAD = "Convert the model that the .onnx was exported from, or export it without that."
IMAGE = 224  # pixels of height and width that are tried first
FEW = 4  # elements of an input that a user would write down
Shapes = Mapping[str, Shape]
Values = Mapping[str, np.ndarray]


def refusal(found: Exception, file: OnnxFile) -> ModelError:
    """What to raise for an Unsupported that importing the file met."""
    from edgeloop.convert.onnx.importer import NodeRefused, UnknownOperator

    said = str(found) if isinstance(found, NodeRefused) else f"it cannot be imported: {found}"
    if isinstance(found, NodeRefused) and not isinstance(found.cause, UnknownOperator):
        for shapes, values in _candidates(file):
            if _passes(file, shapes, values):
                options = " ".join(_options(file, shapes, values))
                advice = f"Fix what it depends on, at the sizes and values you use the model with, e.g. {options}"
                return ModelError(said, advice=advice)
    return ModelError(said, advice=INSTEAD)


def _candidates(file: OnnxFile) -> Iterator[tuple[Shapes, Values]]:
    """A batch of one, fixed values, fixed sizes, fixed sizes and values: the fewest first, all from inputs that ONNX
    Runtime accepts."""
    from edgeloop.convert.onnx.trials import make_trials, with_batch_of_one

    inputs = file.function().inputs
    try:
        trials, recipe = make_trials(file.original, inputs)
    except ModelError:
        return
    fed, batch = _alone(file, inputs, recipe) or trials[0].fed, with_batch_of_one(inputs)
    shapes = {t.name: fed[t.name].shape for t in inputs if None in t.shape}
    values = {t.name: fed[t.name] for t in inputs if None not in t.shape and fed[t.name].size <= FEW}
    if len(values) == len(inputs):
        values = {}
    found: list[tuple[Shapes, Values]] = [(batch, {}), ({}, values), (shapes, {}), (shapes, values)]
    yield from (one for one in found if any(one))


def _alone(file: OnnxFile, inputs: Sequence[Tensor], recipe: Recipe) -> Mapping[str, np.ndarray]:
    """Inputs of one sample, images of the usual size, if ONNX Runtime takes them."""
    from edgeloop.convert.onnx.trials import made_up

    one = replace(recipe, batches=(1, 1))
    usual = replace(one, heights=(IMAGE, IMAGE), sizes=(IMAGE, IMAGE))
    images = any(len(t.shape) == 4 and None in t.shape[1:] for t in inputs)
    for chosen in (usual, one) if images else (one,):
        fed = made_up(np.random.default_rng(0), inputs, chosen, 0)
        with suppress(ModelError):
            file.original.run(fed)
            return fed
    return {}


def _passes(file: OnnxFile, shapes: Shapes, values: Values) -> bool:
    from edgeloop.convert.onnx.value import Unsupported

    try:
        file.function(shapes, values).traced()
    except Unsupported:
        return False
    return True


def _options(file: OnnxFile, shapes: Shapes, values: Values) -> Iterator[str]:
    for name, shape in shapes.items():
        yield f"--shape {file.inputs[name]}={named_sizes(shape)}"
    for name, array in values.items():
        yield f"--fix {file.inputs[name]}={','.join(f'{number:g}' for number in array.ravel())}"
