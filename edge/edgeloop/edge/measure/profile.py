"""A loaded .tflite in, the time of each of its operators out, with the shapes that it works on.

LiteRT's profiler names what ran. Where XNNPACK did, that is an operator of its own, with its own number: it turns a
1x1 convolution into a fully connected one, and puts reshapes and clamps between. They come in the model's order, so
the k-th that multiplies by weights is the model's k-th that does, as long as there are as many; of one that cannot be
told, the shapes are null.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgeloop.bundle import Format
from edgeloop.edge.measure.prepared_model import PreparedModel
from edgeloop.errors import DeviceError, TargetError
from edgeloop.files.flatbuffer import Graph, Operator, read_tflite
from edgeloop.runtime.agent.machine.sysfs import UNSUPPORTED

RUNS = 50
KINDS = (  # how XNNPACK's names begin, and the operators of a model that become these
    (
        ("Convolution", "Fully Connected", "Deconvolution", "Batch Matrix Multiply"),
        ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "BATCH_MATMUL"),
    ),
    (("Add (",), ("ADD",)),
    (("Multiply (",), ("MUL",)),
    (("Subtract (",), ("SUB",)),
    (("Average Pooling",), ("AVERAGE_POOL_2D",)),
    (("Max Pooling",), ("MAX_POOL_2D",)),
    (("Softmax",), ("SOFTMAX",)),
    (("Sigmoid",), ("LOGISTIC",)),
)


def profile(loaded: PreparedModel, say: Callable[[str], None]) -> list[dict[str, Any]] | None:
    """Operators in the order they ran; None where they cannot be timed: `say` is given the reason.

    It is also given a note where other kernels ran than usual.

    Returns:
        [{index, graph, name, delegated, calls, mean_us, share (of all operators), operator, inputs, output}]: the last
        three are the model's name for it and its shapes, null where unknown; a free dimension is null.
    """
    target = loaded.candidate.target
    if target.format is not Format.TFLITE:
        return None
    try:
        answer = loaded.agent.profile(loaded.inputs, loaded.signature, RUNS)
        ops, why = answer.ops, answer.why
    except (TargetError, DeviceError) as e:
        ops, why = UNSUPPORTED, str(e)
    if isinstance(ops, str):
        say(f"{target.variant} on {loaded.candidate.runner.name} has no profile: {why.rstrip('.')}.")
        return None
    if why:
        say(f"Profile of {target.variant} on {loaded.candidate.runner.name}: {why}")
    return with_shapes(ops, read_tflite((target.folder / target.entry).read_bytes()).graphs)


def with_shapes(ops: Sequence[Mapping[str, Any]], graphs: Sequence[Graph]) -> list[dict[str, Any]]:
    """The profiler's operators, with the file's name and shapes of each."""
    found: dict[int, tuple[Graph, Operator]] = {}
    for number, graph in enumerate(graphs):
        mine = [(k, op) for k, op in enumerate(ops) if op["graph"] == number]
        own = {op["index"]: k for k, op in mine if not op["delegated"]}
        found |= {k: (graph, graph.operators[index]) for index, k in own.items() if index < len(graph.operators)}
        for beginnings, names in KINDS:
            ran = [k for k, op in mine if op["delegated"] and op["name"].startswith(beginnings)]
            theirs = [o for index, o in enumerate(graph.operators) if o.name in names and index not in own]
            if len(ran) == len(theirs):
                found |= {k: (graph, operator) for k, operator in zip(ran, theirs, strict=True)}
    return [{**op, **_shapes(*found.get(k, (None, None)))} for k, op in enumerate(ops)]


def _shapes(graph: Graph | None, operator: Operator | None) -> dict[str, Any]:
    if graph is None or operator is None:
        return {"operator": None, "inputs": None, "output": None}
    shapes = [list(graph.tensors[i].shape) for i in operator.inputs]
    return {"operator": operator.name, "inputs": shapes, "output": list(graph.tensors[operator.outputs[0]].shape)}
