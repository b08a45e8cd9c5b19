"""A traced source in, its graph without variables out; every export starts from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from edgeloop.convert.forms.graph_nodes import drop_control_inputs, expand_dims, fix_list_batch, infer_one_size, prune
from edgeloop.convert.forms.lookup_tables import has_table, replace_tables, table_handles
from edgeloop.convert.forms.node_functions import EVERYWHERE
from edgeloop.convert.forms.tfjs_loops import hold_back_constants
from edgeloop.convert.sources.names import LOOKUP
from edgeloop.convert.sources.source_value import Source
from edgeloop.errors import ModelError
from edgeloop.extras import need

# Of a function that one TFLite operator stands for: non-maximum suppression. A Keras 2 LSTM has "api_implements", and
# its operator UNIDIRECTIONAL_SEQUENCE_LSTM goes on with the state of the call before: 34 dB from the second call on.
COMPOSITE = "_implements"
CALLS, COMPILED = ("PartitionedCall", "StatefulPartitionedCall"), "_XlaMustCompile"


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenGraph:
    """A graph whose weights are constants.

    Attributes:
        graph: The GraphDef. Nobody changes it: every export reads the same one.
        inputs: Names of its input tensors (`image:0`), in the order of the source's inputs.
        outputs: Names of its output tensors (`Identity:0`), in the order of the source's outputs.
    """

    graph: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class FrozenSource:
    """A source's graph as each export wants it: one and the same where the model has no loop and no branch.

    Attributes:
        functional: Loops and branches are operations on functions (While, If). ONNX and TFLite are made from it.
        traced: The function it was frozen from.
        compiled: It calls functions that XLA was to compile, and that stay calls unless inlining is told otherwise.
        tables: Handles of the tables that it looks numbers up in.
    """

    functional: FrozenGraph
    traced: Any = field(repr=False)
    compiled: bool = False
    tables: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def lowered(self) -> FrozenGraph:
        """Loops and branches as Enter and Exit, Switch and Merge. TF.js is made from it."""
        if not self.functional.graph.library.function:
            return self.functional
        constants = _constants()
        data = constants._FunctionConverterDataInEager(
            func=self.traced, lower_control_flow=True, aggressive_inlining=self.compiled
        )
        return _frozen(constants, data, self.functional.inputs, self.functional.outputs, self.tables)

    @cached_property
    def composite(self) -> FrozenGraph:
        """As `functional`, with the calls that become one TFLite operator, which need not compute quite the same."""
        library = self.traced.graph.as_graph_def().library.function
        if not any(COMPOSITE in function.attr for function in library):
            return self.functional
        constants = _constants()

        class WithCalls(constants._FunctionConverterDataInEager):  # type: ignore[name-defined]
            def __init__(self, func: Any) -> None:
                self._func = func
                graph = constants.disable_lower_using_switch_merge(func.graph.as_graph_def())
                constants._ConverterData.__init__(self, graph)
                self._build_tensor_data()

        data = WithCalls(self.traced)
        return _frozen(constants, data, self.functional.inputs, self.functional.outputs, self.tables)


def at_batch(frozen: FrozenSource, batch: int) -> FrozenGraph:
    """The graph for TFLite of a source whose inputs have this batch, where its loops were traced with a free one."""
    graph = type(frozen.functional.graph).FromString(frozen.functional.graph.SerializeToString())
    fix_list_batch(graph, batch)
    return replace(frozen.functional, graph=graph)


def freeze(source: Source, *, words: bool = False) -> FrozenSource:
    """The source's signature as a graph. The inputs keep their names and their free dimensions.

    Args:
        words: Keep tables of words, for what cuts them off.

    Raises:
        ModelError: The source is a .tflite, or holds state (a variable it writes, a table).
    """
    tf = need("tensorflow", extra="convert")
    if source.graph is None:
        raise ModelError(
            f"{source.path} is a .tflite file, which has no TensorFlow graph", advice="Convert the Keras model instead."
        )
    names = [t.name for t in source.inputs]
    specs = [tf.TensorSpec(t.shape, t.dtype, name=t.name) for t in source.inputs]
    call = source.graph

    def identities(*tensors: Any) -> list[Any]:
        # an input that is returned as it is, or a constant, would be no node of its own in the other formats
        return [tf.identity(value) for value in call(**dict(zip(names, tensors, strict=True)))]

    traced = tf.function(identities, input_signature=specs, autograph=False).get_concrete_function()
    constants, compiled = _constants(), _calls_compiled(traced)
    data = constants._FunctionConverterDataInEager(func=traced, lower_control_flow=False, aggressive_inlining=compiled)
    replaced = {tensor.index for tensor in data.tensor_data.values() if tensor.index is not None}
    captured = traced.graph.internal_captures
    state = [t.name for i, t in enumerate(captured) if i not in replaced and t.dtype == tf.resource]
    tables = table_handles(traced) if state else {}
    if state and not tables:
        raise ModelError(
            f"{source.path} keeps state in {state[0]!r}, and stateful models are not converted",
            advice="Make the state an input and an output.",
        )
    inputs = tuple(t.name for t in traced.inputs[: len(specs)])
    outputs = tuple(t.name for t in traced.outputs)
    functional = _frozen(constants, data, inputs, outputs, tables)
    if has_table(functional.graph) and not words:
        raise ModelError(f"{source.path} looks values up in the table {state[0]!r}", advice=LOOKUP)
    return FrozenSource(functional=functional, traced=traced, compiled=compiled, tables=tables)


def _calls_compiled(traced: Any) -> bool:
    """Whether it or a function of it calls functions that XLA is to compile, as Keras's convolution of groups is. From
    now on its GraphDef does not say so: they would stay calls, which only TFLite's converter resolves.
    """
    graph = traced.graph
    outer = (operation.node_def for operation in graph.get_operations() if operation.type in CALLS)
    inner = (node for function in graph._functions.values() for node in function.cached_definition.node_def)
    if not any(COMPILED in node.attr for node in (*outer, *inner)):
        return False
    written = graph.as_graph_def

    def uncompiled(*args: Any, **options: Any) -> Any:
        made = written(*args, **options)
        for node in (*made.node, *(node for function in made.library.function for node in function.node_def)):
            node.attr.pop(COMPILED, None)
        return made

    graph.as_graph_def = uncompiled
    return True


def _constants() -> Any:
    # The public convert_variables_to_constants_v2 imports the finished graph once more to make a function of it, and
    # so does TFLiteConverter: on MobileNetV2 2.7 CPU seconds from the trace to the flatbuffer, 0.8 without.
    return need("tensorflow.python.framework.convert_to_constants", extra="convert")


def _frozen(
    constants: Any, data: Any, inputs: tuple[str, ...], outputs: tuple[str, ...], tables: Mapping[str, Any]
) -> FrozenGraph:
    graph, _ = constants._replace_variables_by_constants(data)
    replace_tables(graph, tables)
    for write in EVERYWHERE:
        write(graph)
    hold_back_constants(graph)
    drop_control_inputs(graph)
    infer_one_size(graph)
    expand_dims(graph)
    prune(graph, {name.split(":")[0] for name in (*inputs, *outputs)})
    return FrozenGraph(graph=graph, inputs=inputs, outputs=outputs)
