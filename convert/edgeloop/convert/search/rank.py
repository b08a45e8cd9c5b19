"""A float32 and an int8 .tflite of one model in, its layers with what quantizing damages in each out.

An output's SNR falls along the network, so an operator is charged with the noise it adds: noise over signal of its
output, less that of its noisiest input. Measured on a digits net where one channel is scaled up by 1000 and down again
by the next convolution: the output of the first has a fine SNR (the large channel is right, the small ones are lost),
the damage shows at the second, and both have to stay in float to repair it. So a layer names those it reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgeloop.convert.proof.worst_layer import LayerSnr, layer_snr
from edgeloop.convert.samples import Samples
from edgeloop.convert.search.search import Layer
from edgeloop.files.flatbuffer import Graph, Operator, read_tflite


def rank_layers(float32: bytes, int8: bytes, samples: Samples, signature: str) -> tuple[Layer, ...]:
    """Layers in the order they run, from one run of both files on a few of `samples`.

    Raises:
        ModelError: A flatbuffer is damaged, or has no such signature.
        TargetError: LiteRT refuses one of them.
        DeviceError: It died or did not answer in time.
    """
    rows = layer_snr(float32, int8, samples, signature)
    return layers_of(_graph(float32, signature), _graph(int8, signature), rows)


def layers_of(graph: Graph, quantized: Graph, rows: Sequence[LayerSnr]) -> tuple[Layer, ...]:
    """The layers of a float graph, given its int8 form and the SNR of its tensors."""
    noise = {row.tensor: min(1.0, 10 ** (-row.snr_db / 10)) for row in rows}  # above 1 an output is all noise already
    passing = _passing(quantized)
    made_by: dict[int, str] = {}  # tensor: the layer that makes it
    operators: dict[str, list[Operator]] = {}
    for op in graph.operators:
        makers = {made_by[i] for i in op.inputs if i in made_by}
        name = graph.tensors[op.outputs[0]].name
        if name in passing and len(makers) == 1:
            (name,) = makers
        operators.setdefault(name, []).append(op)
        made_by.update(dict.fromkeys(op.outputs, name))
    return tuple(_layer(name, own, operators, graph, made_by, noise, passing) for name, own in operators.items())


def _layer(
    name: str,
    own: Sequence[Operator],
    operators: Mapping[str, Sequence[Operator]],
    graph: Graph,
    made_by: Mapping[int, str],
    noise: Mapping[str, float],
    passing: frozenset[str],
) -> Layer:
    names = [graph.tensors[op.outputs[0]].name for op in own]
    constants = {i for op in own for i in op.inputs if graph.tensors[i].constant_bytes}
    added = 0.0
    for op, output in zip(own, names, strict=True):
        before = [noise.get(graph.tensors[i].name, 0.0) for i in op.inputs if i in made_by]
        added += max(0.0, noise.get(output, 0.0) - max(before, default=0.0))
    return Layer(
        tensor=name,
        operators=tuple(names),
        inputs=tuple(sorted(_read(own, operators, made_by, passing) - {name})),
        damage=added,
        bytes=sum(graph.tensors[i].constant_bytes for i in constants),
    )


def _read(
    own: Sequence[Operator],
    operators: Mapping[str, Sequence[Operator]],
    made_by: Mapping[int, str],
    passing: frozenset[str],
) -> set[str]:
    """The layers `own` reads, and through a concatenation, which only passes values on, those that it reads."""
    read = {made_by[i] for op in own for i in op.inputs if i in made_by}
    for name in read & passing:
        read |= _read(operators[name], operators, made_by, passing)
    return read


def _passing(quantized: Graph) -> frozenset[str]:
    """Outputs that have the scale and zero point of all the operator's inputs: it moves values and adds no noise."""
    names = set()
    for op in quantized.operators:
        output = quantized.tensors[op.outputs[0]]
        inputs = [quantized.tensors[i] for i in op.inputs if quantized.tensors[i].scale]
        same = all((t.scale, t.zero_point) == (output.scale, output.zero_point) for t in inputs)
        if output.scale and inputs and same:
            names.add(output.name)
    return frozenset(names)


def _graph(data: bytes, signature: str) -> Graph:
    model = read_tflite(data)
    return model.graphs[next(s.graph for s in model.signatures if s.name == signature)]
