"""TFLite metadata and label files written into a .tflite, as tflite-support and Android Studio read them.

Sources: those of `edgeloop.files.metadata`, which holds the schema and reads back what this writes.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeloop.convert.forms.flatbuffer_tree import read_tree, write_tree
from edgeloop.convert.forms.table_writer import write_table
from edgeloop.errors import ModelError, OptionsError
from edgeloop.extras import need
from edgeloop.files.flatbuffer import Graph, TfliteFile, read_tflite
from edgeloop.files.metadata import (
    AXIS_LABELS,
    IDENTIFIER,
    NAME,
    NORMALIZATION,
    SCHEMA,
    SIDES,
    Content,
    Metadata,
    TensorMetadata,
)

EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date a zip knows: the same model, the same bytes
Ends = tuple[list[tuple[str, int]], list[tuple[str, int]]]  # inputs and outputs of a graph: (name, position)


def with_metadata(data: bytes, facts: Metadata) -> bytes:
    """`data` with `facts` in it, in place of any it had; whatever was packed behind the model is dropped.

    Each graph that a signature names gets its tensors in its own order, described by the names its signature gives
    them; those that `facts` does not know get their name alone.

    Raises:
        ModelError: No readable .tflite, or one whose weights lie outside the flatbuffer.
        OptionsError: A tensor the model does not have, labels that do not fit its last axis or their file.
    """
    model = read_tflite(data)
    graphs = _named_graphs(model)
    _check(model, graphs, facts)
    files = _label_files(facts)
    packed = write_table(SCHEMA, "ModelMetadata", _values(graphs, facts, files), IDENTIFIER)
    tree = read_tree(data)
    if any(buffer.offset for buffer in tree.buffers):
        raise ModelError(
            "the model keeps weights outside its flatbuffer, as models over 2 GB do", advice="Convert a smaller model."
        )
    tree.buffers[_place(tree)].data = np.frombuffer(packed, np.uint8)
    return _with_files(write_tree(tree), files)


def _place(tree: Any) -> int:
    """Position of the one buffer the name stands for: the one it had, unless anything else uses that too."""
    schema = need("ai_edge_litert.schema_py_generated", extra="edge")
    entries = tree.metadata or []
    others = [entry for entry in entries if entry.name != NAME.encode()]
    used = {0, *(t.buffer for g in tree.subgraphs for t in g.tensors), *(entry.buffer for entry in others)}
    had = [entry.buffer for entry in entries if entry.name == NAME.encode()]
    position = next((i for i in had if i < len(tree.buffers) and i not in used), len(tree.buffers))
    if position == len(tree.buffers):
        tree.buffers.append(schema.BufferT())
    entry = schema.MetadataT()
    entry.name, entry.buffer = NAME.encode(), position
    tree.metadata = [*others, entry]
    return position


def _check(model: TfliteFile, graphs: list[tuple[Graph, Ends]], facts: Metadata) -> None:
    for side, tensors in enumerate((facts.inputs, facts.outputs)):
        held = [(name, graph.tensors[i].shape) for graph, ends in graphs for name, i in ends[side]]
        # one tensor may be given out under several names, of which a graph's description has room for one
        for signature in model.signatures:
            named = (signature.inputs, signature.outputs)[side]
            held += [(name, model.graphs[signature.graph].tensors[i].shape) for name, i in named.items()]
        for tensor in tensors:
            shapes = [shape for name, shape in held if name == tensor.name]
            if not shapes:
                have = sorted({name for name, _ in held})
                raise OptionsError(
                    f"the metadata describes {tensor.name!r}, which the model does not have",
                    advice=f"It has: {', '.join(have)}.",
                )
            _check_tensor(tensor, shapes[0])


def _check_tensor(tensor: TensorMetadata, shape: tuple[int | None, ...]) -> None:
    if len(tensor.mean) != len(tensor.std) or not all(tensor.std):
        raise OptionsError(
            f"{tensor.name!r} has mean {list(tensor.mean)} and std {list(tensor.std)}",
            advice="Pass equally many numbers, and no std of 0.",
        )
    if tensor.labels and shape[-1:] not in ((None,), (len(tensor.labels),)):
        sizes = ", ".join("any" if d is None else str(d) for d in shape)
        raise OptionsError(
            f"{len(tensor.labels)} labels do not fit {tensor.name!r} [{sizes}]",
            advice="Pass one label for each position of its last axis.",
        )
    for label in tensor.labels:
        if not label.strip() or len(label.splitlines()) != 1:
            raise OptionsError(
                f"the label {label!r} is not one line of text", advice="Rename it: a label file has one label per line."
            )


def _named_graphs(model: TfliteFile) -> list[tuple[Graph, Ends]]:
    """Each graph up to the last one that a signature names; its tensors by the names of that signature."""
    last = max((s.graph for s in model.signatures), default=0)
    named = []
    for position, graph in enumerate(model.graphs[: last + 1]):
        own = [s for s in model.signatures if s.graph == position]
        ends = (
            _ends(graph, graph.inputs, [s.inputs for s in own]),
            _ends(graph, graph.outputs, [s.outputs for s in own]),
        )
        named.append((graph, ends))
    return named


def _ends(graph: Graph, positions: Sequence[int], signatures: Sequence[Mapping[str, int]]) -> list[tuple[str, int]]:
    """Each position with its name in the first signature that has one, and the next name each time it comes again."""
    names: dict[int, list[str]] = {}
    for name, i in (item for signature in signatures for item in signature.items()):
        if name not in names.setdefault(i, []):
            names[i].append(name)
    found = []
    for i in positions:
        own = names.get(i) or [graph.tensors[i].name]
        found.append((own.pop(0) if len(own) > 1 else own[0], i))
    return found


def _label_files(facts: Metadata) -> dict[tuple[str, ...], str]:
    """Labels to the file that holds them: labels.txt, or labels_1.txt and so on where there are several sets."""
    sets = list(dict.fromkeys(t.labels for t in (*facts.inputs, *facts.outputs) if t.labels))
    return {labels: f"labels_{i}.txt" if len(sets) > 1 else "labels.txt" for i, labels in enumerate(sets, start=1)}


def _values(named: list[tuple[Graph, Ends]], facts: Metadata, files: Mapping[tuple[str, ...], str]) -> dict[str, Any]:
    known = [{t.name: t for t in side} for side in (facts.inputs, facts.outputs)]
    graphs = []
    for _, ends in named:
        sides = [
            [t.get(name, TensorMetadata(name=name)) for name, _ in end] for t, end in zip(known, ends, strict=True)
        ]
        graphs.append({key: [_tensor(t, files) for t in side] for key, side in zip(SIDES, sides, strict=True)})
    audio = any(t.content is Content.AUDIO for t in (*facts.inputs, *facts.outputs))
    return {
        "name": facts.name,
        "description": facts.description,
        "version": facts.version,
        "subgraph_metadata": graphs,
        "author": facts.author,
        "license": facts.license,
        # the version that brought the youngest field in use: AudioProperties came with 1.3.0
        "min_parser_version": "1.3.0" if audio else "1.0.0",
    }


def _tensor(t: TensorMetadata, files: Mapping[tuple[str, ...], str]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    if t.content is Content.IMAGE:
        size = {"height": t.size[0], "width": t.size[1]} if t.size else None
        properties = {"color_space": t.color.value, "default_size": size}
    elif t.content is Content.AUDIO:
        properties = {"sample_rate": t.sample_rate_hz, "channels": t.channels}
    content = {"content_properties_type": t.content.value, "content_properties": properties}
    file = {"name": files.get(t.labels), "description": "Names of the classes, in order.", "type": AXIS_LABELS}
    unit = {"options_type": NORMALIZATION, "options": {"mean": t.mean, "std": t.std}}
    return {
        "name": t.name,
        "description": t.description,
        "content": content if t.content is not Content.UNKNOWN else None,
        "process_units": [unit] if t.mean else None,
        "stats": {"max": t.high, "min": t.low} if t.low or t.high else None,
        "associated_files": [file] if t.labels else None,
    }


def _with_files(data: bytes, files: Mapping[tuple[str, ...], str]) -> bytes:
    """Stored, not deflated: readers map label files straight out of the model."""
    if not files:
        return data
    buffer = io.BytesIO(data)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        for labels, name in sorted(files.items(), key=lambda item: item[1]):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # what Linux writes, on every system
            archive.writestr(entry, "\n".join(labels))
    return buffer.getvalue()
