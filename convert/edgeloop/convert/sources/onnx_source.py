"""An .onnx file as a source: imported into TensorFlow, and judged by ONNX Runtime, which answers as the original."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.bundle import Scheme
from edgeloop.convert.sources.float32 import with_distance
from edgeloop.convert.sources.identify import SourceKind, source_digest
from edgeloop.convert.sources.names import arguments, identifiers
from edgeloop.convert.sources.onnx_bounded import bounded_outputs
from edgeloop.convert.sources.onnx_refusal import refusal
from edgeloop.convert.sources.onnx_sizes import InputSettings, as_array, own_names, with_sizes
from edgeloop.convert.sources.source_value import INFER, Arrays, Shape, Source, tensor_specs
from edgeloop.errors import EdgeloopError, ModelError, OptionsError, one_line
from edgeloop.extras import need

if TYPE_CHECKING:
    from edgeloop.convert.onnx.importer import OnnxFunction
    from edgeloop.convert.onnx.judge import Judge
    from edgeloop.convert.onnx.trials import Trial

ONE_SAMPLE = "ONNX Runtime runs the model with a batch of 1 alone, so the batch is fixed to 1."
# operators whose results have 8 bits and a scale, which the model has or computes of every call's values
QUANTIZED, DYNAMIC = ("QuantizeLinear", "QLinear", "QGemm"), ("DynamicQuantize",)


def open_onnx(path: Path, settings: InputSettings) -> Source:
    """Import a file that `safety.check` has looked at.

    Names are as `onnx_names` gives them, shapes in ONNX's order of dimensions, and a free dimension stays free.

    Raises:
        ModelError: Damaged, ONNX Runtime refuses it, an operator cannot be imported, or computes something else.
        OptionsError: `settings` name an input that it does not have, or do not fit one.
    """
    try:
        return OnnxFile(path, settings).source()
    except EdgeloopError as e:
        if isinstance(e, ModelError) and str(path) not in e.found:
            raise e.at(str(path)) from e
        raise
    except Exception as e:  # of onnx and protobuf, which raise many types for a damaged graph
        raise ModelError(
            f"it cannot be imported ({type(e).__name__}: {one_line(e, 200)})",
            advice="Check the file with onnx.checker, or export it again.",
            where=str(path),
        ) from e


def onnx_names(model: Any) -> tuple[dict[str, str], dict[str, str]]:
    """Inputs and outputs of a ModelProto: ONNX's own name of each, in its order, to the one it has here."""
    from edgeloop.convert.onnx.external import input_names

    inputs, outputs = input_names(model), [value.name for value in model.graph.output]
    return (
        dict(zip(inputs, arguments(inputs), strict=True)),
        dict(zip(outputs, identifiers(outputs), strict=True)),
    )


class OnnxFile:
    """A file with the user's settings applied: its graph, its weights, and ONNX Runtime's session of it.

    Attributes:
        model: The ModelProto without large constants, which are `weights`.
        inputs: ONNX's names of its inputs to the ones here, without those that are fixed; `outputs` likewise.
        original: What ONNX Runtime computes.
    """

    def __init__(self, path: Path, settings: InputSettings):
        from edgeloop.convert.onnx.external import read_onnx
        from edgeloop.convert.onnx.original import OriginalModel, fix_inputs

        self.path = path
        self.model, self.weights = read_onnx(path)
        inputs, self.outputs = onnx_names(self.model)
        values = {value.name: value for value in self.model.graph.input}
        given = own_names(settings.fixed, inputs, "--fix")
        fixed = {name: as_array(values[name], numbers, inputs[name]) for name, numbers in given.items()}
        for name, shape in own_names(settings.shapes, inputs, "--shape").items():
            with_sizes(values[name], shape, inputs[name])
        self.inputs = {old: new for old, new in inputs.items() if old not in fixed}
        if not self.inputs:
            raise OptionsError("--fix names every input of the model", advice="Leave at least one of them free.")
        self.original = OriginalModel(path, self.model, fixed)
        fix_inputs(self.model, fixed)

    def function(
        self, shapes: Mapping[str, Shape] | None = None, fixed: Mapping[str, np.ndarray] | None = None
    ) -> OnnxFunction:
        """What it imports to, with further inputs (by ONNX's names) of fixed sizes or fixed altogether.

        Raises:
            Unsupported: Something in it cannot be imported.
        """
        from edgeloop.convert.onnx.importer import import_onnx
        from edgeloop.convert.onnx.original import fix_inputs

        model = self.model
        if fixed:
            model = type(model).FromString(model.SerializeToString())
            fix_inputs(model, fixed)
        return import_onnx(model, shapes, self.weights, widen=True)

    def source(self) -> Source:
        """The source, once ONNX Runtime has agreed."""
        from edgeloop.convert.onnx.judge import Judge
        from edgeloop.convert.onnx.trials import make_trials, with_batch_of_one

        function, traced = self._traced({})
        trials: list[Trial] = []
        undecided, below = None, 2
        notes: tuple[str, ...] = ()
        try:
            trials, recipe = make_trials(self.original, function.inputs)
        except ModelError as e:  # the user's data has to judge
            undecided = e
        else:
            below, alone = recipe.below, with_batch_of_one(function.inputs)
            if alone and recipe.alone:  # an exporter called it free, and wrote a 1 into some Reshape
                (function, traced), notes = self._traced(alone), (ONE_SAMPLE,)
        judge = Judge(self.original, function, traced, bounded_outputs(self.model.graph))
        judge.check(trials)
        sizes = {new: trials[0].fed[old].shape for old, new in self.inputs.items()} if trials else {}
        source = self._source(function, traced, trials, sizes)
        source = replace(source, below=below, notes=(*source.notes, *notes))
        return replace(source, judge=self._judged_by_samples(judge, undecided))

    def _traced(self, shapes: Mapping[str, Shape]) -> tuple[OnnxFunction, Any]:
        from edgeloop.convert.onnx.value import Unsupported

        try:
            function = self.function(shapes)
            return function, function.traced()
        except Unsupported as e:
            raise refusal(e, self) from e

    def _source(
        self, function: OnnxFunction, traced: Any, trials: Sequence[Trial], sizes: Mapping[str, tuple[int, ...]]
    ) -> Source:
        from edgeloop.convert.onnx.layered import layered

        tf = need("tensorflow", extra="convert")
        in_names, out_names = list(self.inputs.values()), list(self.outputs.values())
        specs = function.specs()
        shapes = [self._output_shape(i, traced, trials) for i in range(len(out_names))]

        def converted(arrays: Arrays) -> dict[str, np.ndarray]:
            values = [tf.constant(arrays[n], s.dtype) for n, s in zip(in_names, specs, strict=True)]
            made = traced(*values)
            return {name: np.asarray(made[f"output_{i}"]) for i, name in enumerate(out_names)}

        source = Source(
            path=self.path,
            kind=SourceKind.ONNX,
            sha256=source_digest(self.path),
            signature=INFER,
            inputs=tensor_specs(in_names, [(tuple(s.shape.as_list()), s.dtype.name) for s in specs]),
            outputs=tensor_specs(
                out_names,
                [(shapes[i], traced.structured_outputs[f"output_{i}"].dtype.name) for i in range(len(shapes))],
            ),
            call=converted,
            graph=self._graph(function, traced, shapes),
            layers=cache(partial(layered, function, in_names, out_names[0])),
            sizes=sizes,
            bounded=tuple(self.outputs[name] for name in bounded_outputs(self.model.graph)),
            rounds=_rounds(self.model.graph),
        )
        types = {t.name: t.dtype for t in function.inputs}
        original = replace(source, call=self._answers(types))
        # of other floats, what is converted is compared with what devices compute in, and its distance is told
        return with_distance(source, original, sorted(function.floats)) if function.floats else original

    def _graph(self, function: OnnxFunction, traced: Any, shapes: Sequence[Shape]) -> Callable[..., list[Any]]:
        """The function by names of inputs, with what is known of the outputs' shapes."""
        names, specs = list(self.inputs.values()), function.specs()

        def graph(**tensors: Any) -> list[Any]:
            values = [tensors[name] for name in names]
            if all(v.shape.as_list() == s.shape.as_list() for v, s in zip(values, specs, strict=True)):
                made = traced(*values)
                results = [made[f"output_{i}"] for i in range(len(shapes))]
            else:  # of other sizes: what is computed from them may be constant now
                results = function(*values)
            for result, shape in zip(results, shapes, strict=True):
                result.set_shape(shape)
            return results

        return graph

    def _answers(self, types: Mapping[str, np.dtype]) -> Any:
        outputs = list(self.outputs.values())

        def call(arrays: Arrays) -> dict[str, np.ndarray]:
            fed = {old: np.asarray(arrays[new]).astype(types[old], copy=False) for old, new in self.inputs.items()}
            found = self.original.run(fed)
            return dict(zip(outputs, found, strict=True))

        return call

    def _output_shape(self, i: int, traced: Any, trials: Sequence[Trial]) -> Shape:
        """As it was traced; a size that is free there as ONNX declares it, where the answers bear that out."""
        shape = traced.structured_outputs[f"output_{i}"].shape.as_list()
        tensor = self.model.graph.output[i].type.tensor_type
        said = [d.dim_value if d.dim_value > 0 else None for d in tensor.shape.dim]
        if not trials or len(said) != len(shape):
            return tuple(shape)
        seen = zip(*(trial.answers[i].shape for trial in trials), strict=True)
        return tuple(
            d if own is None and set(sizes) == {d} else own for own, d, sizes in zip(shape, said, seen, strict=True)
        )

    def _judged_by_samples(self, judge: Judge, undecided: ModelError | None) -> Any:
        """Judges the import on the user's inputs; without any, refuses what could not be judged before."""
        from edgeloop.convert.onnx.trials import Trial

        def check(calls: Sequence[Arrays]) -> None:
            if undecided is not None and not calls:
                raise undecided
            types = {t.name: t.dtype for t in judge.inputs}
            for arrays in calls:
                fed = {old: np.asarray(arrays[new]).astype(types[old]) for old, new in self.inputs.items()}
                judge.check([Trial(fed, self.original.run(fed))])

        return check


def _rounds(graph: Any) -> Scheme | None:
    """How the main graph rounds to 8 bits; dynamic where both ways are in it, for then some ranges are not stated."""
    kinds = [node.op_type for node in graph.node]
    if any(kind.startswith(DYNAMIC) for kind in kinds):
        return Scheme.DYNAMIC
    return Scheme.INT8 if any(kind.startswith(QUANTIZED) for kind in kinds) else None
