"""A source in, the same source at fixed sizes out: of a batch, or of any dimension that the model leaves free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgeloop.bundle import TensorSpec
from edgeloop.convert.sources.source_value import Shape, Source
from edgeloop.errors import ModelError, OptionsError, one_line
from edgeloop.extras import need


def with_shapes(source: Source, shapes: Mapping[str, Shape]) -> Source:
    """The source with these inputs at these sizes; None keeps what the model has. Its outputs follow.

    Raises:
        OptionsError: An input that it does not have, another number of dimensions, or a size that it has otherwise.
        ModelError: It is a .tflite file, or cannot take these sizes.
    """
    unknown = sorted(set(shapes) - {spec.name for spec in source.inputs})
    if unknown:
        raise OptionsError(
            f"--shape names the input {unknown[0]!r}, which {source.path} does not have",
            advice=f"It has: {', '.join(spec.name for spec in source.inputs)}.",
        )
    inputs = tuple(_fixed(spec, shapes[spec.name]) if spec.name in shapes else spec for spec in source.inputs)
    if inputs == source.inputs:
        return source
    if source.graph is None:
        raise ModelError(
            f"{source.path} is a .tflite file, whose sizes cannot be fixed", advice="Convert the Keras model instead."
        )
    return replace(source, inputs=inputs, outputs=_outputs(source, inputs))


def with_batch(source: Source, batch: int) -> Source:
    """The source with a free first dimension of every input fixed at `batch`."""
    return with_shapes(source, {spec.name: (batch, *spec.shape[1:]) for spec in source.inputs if _is_free(spec)})


def has_free_batch(inputs: Sequence[TensorSpec]) -> bool:
    return all(map(_is_free, inputs))


def _is_free(spec: TensorSpec) -> bool:
    return bool(spec.shape) and spec.shape[0] is None


def _fixed(spec: TensorSpec, shape: Shape) -> TensorSpec:
    fits = len(shape) == len(spec.shape) and all(
        None in (have, wanted) or have == wanted for have, wanted in zip(spec.shape, shape, strict=True)
    )
    if not fits:
        has, given = (",".join("?" if size is None else str(size) for size in each) for each in (spec.shape, shape))
        raise OptionsError(
            f"--shape {spec.name}={given} does not fit the input {spec.name!r} of shape {has}",
            advice="Give every dimension a size or ?, and only free ones (?) another than the model's.",
        )
    sizes = (have if wanted is None else wanted for have, wanted in zip(spec.shape, shape, strict=True))
    return replace(spec, shape=tuple(sizes))


def _outputs(source: Source, inputs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    tf = need("tensorflow", extra="convert")
    call = source.graph
    assert call is not None  # with_shapes sees to it
    specs = {spec.name: tf.TensorSpec(spec.shape, spec.dtype) for spec in inputs}
    try:
        traced = tf.function(lambda **tensors: call(**tensors), autograph=False).get_concrete_function(**specs)
    except Exception as e:  # Keras and TensorFlow raise many types here; each means that the sizes do not fit
        sizes = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in inputs)
        raise ModelError(
            f"{source.path} cannot take inputs of these sizes: {sizes} ({one_line(e, 200)})",
            advice="Pass other sizes with --shape and --batch.",
        ) from e
    shapes = [tensor.shape for tensor in traced.outputs]
    return tuple(
        replace(spec, shape=tuple(shape.as_list())) if shape.rank is not None else spec
        for spec, shape in zip(source.outputs, shapes, strict=True)
    )
