"""A SavedModel that takes words in, the graph behind its tables of words out, and the words as files beside it.

The graph is cut where all that follows of an input of text is the numbers of its words: behind the table, and behind
what only brings those numbers into their shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgeloop.bundle import VOCABULARY, TensorSpec
from edgeloop.canonical import canonical_json
from edgeloop.convert.forms.graph_nodes import prune
from edgeloop.convert.forms.lookup_tables import FIND
from edgeloop.convert.sources.rewritten import rewritten
from edgeloop.convert.sources.source_value import Lookup, Source
from edgeloop.errors import ModelError
from edgeloop.extras import need

UNKNOWN = "[UNK]"
# operations on the numbers of words that leave them what they are
SHAPING = (
    *("Identity", "Cast", "Pad", "PadV2", "StridedSlice", "Slice", "Reshape", "Squeeze", "ExpandDims", "EnsureShape"),
    *("ConcatV2", "StopGradient", "PreventGradient"),
)
SIZES = ("Shape", "Size", "Rank")
HASHES = "StringToHashBucket"  # of several numbers for unknown words
SETTINGS = ("pattern", "rewrite", "maxsplit", "num_buckets")  # of operations on text


@dataclass(frozen=True, slots=True)
class _Cut:
    """Of one input: the tensor that takes its place, the node of its table, and the operations on its text."""

    tensor: str
    find: Any
    steps: tuple[Any, ...]


def without_tables(source: Source) -> Source:
    """The source with the numbers of words as its inputs; itself where text goes anywhere but into one table."""
    text = [spec.name for spec in source.inputs if spec.dtype == "string"]
    if not text:
        return source
    from edgeloop.convert.forms.freeze import freeze  # which knows Source

    tf = need("tensorflow", extra="convert")
    try:
        frozen = freeze(source, words=True)
    except ModelError:
        raise
    except Exception:  # TensorFlow's freezing fails on some operations on text: they are refused like all text then
        return source
    graph = _Graph(frozen.functional.graph)
    places = {spec.name: name.split(":")[0] for spec, name in zip(source.inputs, frozen.functional.inputs, strict=True)}
    imported = _with_shapes(tf, frozen.functional.graph)
    cuts = {name: graph.cut(places[name], imported) for name in text}
    words = {name: _words(tf, graph, cut, frozen.tables) for name, cut in cuts.items() if cut is not None}
    if any(words.get(name) is None for name in text):
        return source
    tensors = {name: imported.get_tensor_by_name(cut.tensor) for name, cut in cuts.items() if cut is not None}
    inputs = tuple(
        replace(spec, shape=tuple(tensors[spec.name].shape.as_list()), dtype=tensors[spec.name].dtype.name)
        if spec.name in tensors
        else spec
        for spec in source.inputs
    )

    def behind(_: Any, graph_def: Any) -> None:
        for name, cut in cuts.items():
            if cut is not None:
                _begin_at(graph_def, places[name], cut.tensor, tensors[name].dtype.as_datatype_enum)
        ends = (*frozen.functional.inputs, *frozen.functional.outputs)
        prune(graph_def, {end.split(":")[0] for end in ends})

    made = rewritten(source, behind, frozen=frozen.functional, inputs=inputs)
    lookups = {
        name: Lookup(spec, _looked_up(tf, frozen, places[name], cut.tensor, spec, source))
        for name, cut in cuts.items()
        if cut is not None
        for spec in source.inputs
        if spec.name == name
    }
    files = {f"{VOCABULARY}{name}.json": canonical_json(found) for name, found in words.items() if found is not None}
    notes = tuple(
        f"The input {name!r} takes words, which no runtime on a device does, so the model begins behind its table: "
        f"{name} takes the numbers of words. Look words up before the model; {VOCABULARY}{name}.json in the bundle "
        "holds them, and the operations on the text before."
        for name in text
    )
    return replace(made, files={**source.files, **files}, notes=(*source.notes, *notes), lookups=lookups)


def _looked_up(tf: Any, frozen: Any, place: str, tensor: str, spec: TensorSpec, source: Source) -> Any:
    """What gives the numbers of texts, as the graph before the cut does."""
    graph_def = type(frozen.functional.graph).FromString(frozen.functional.graph.SerializeToString())
    prune(graph_def, {place, tensor.split(":")[0]})
    tables = {node.name: frozen.tables[node.name] for node in graph_def.node if node.name in frozen.tables}

    @tf.function(input_signature=[tf.TensorSpec(spec.shape, tf.string)], autograph=False)
    def numbers(text: Any) -> Any:
        captured = {name: tf.identity(table) for name, table in tables.items()}
        return tf.graph_util.import_graph_def(graph_def, {place: text, **captured}, [tensor], name="")[0]

    def looked_up(text: np.ndarray, keep: Any = source) -> np.ndarray:  # or its tables would be freed
        if not spec.shape:
            return np.stack([np.asarray(numbers(tf.constant(one))) for one in text])
        size = spec.shape[0] or len(text)
        parts = [text[np.arange(i, i + size) % len(text)] for i in range(0, len(text), size)]
        return np.concatenate([np.asarray(numbers(tf.constant(part))) for part in parts])[: len(text)]

    return looked_up


class _Graph:
    """A GraphDef without function calls, its nodes by name and in order."""

    def __init__(self, graph_def: Any) -> None:
        self.nodes = {node.name: node for node in graph_def.node}
        self.readers: dict[str, list[str]] = {name: [] for name in self.nodes}
        for node in graph_def.node:
            for name in _makers(node):
                self.readers[name].append(node.name)

    def behind(self, start: str, without: str | None = None, stop: tuple[str, ...] = ()) -> set[str]:
        """All that is computed from a node; not by way of the node `without`, nor of operations in `stop`."""
        found, open_ = {start}, [start]
        while open_:
            for name in self.readers[open_.pop()]:
                if name not in found and name != without and self.nodes[name].op not in stop:
                    found.add(name)
                    open_.append(name)
        return found

    def before(self, end: str) -> set[str]:
        found, open_ = {end}, [end]
        while open_:
            for name in _makers(self.nodes[open_.pop()]):
                if name not in found:
                    found.add(name)
                    open_.append(name)
        return found

    def origin(self, name: str) -> Any:
        """The node that a tensor comes from, but for Identity."""
        node = self.nodes[name.split(":")[0]]
        return self.origin(node.input[0]) if node.op == "Identity" else node

    def cut(self, start: str, imported: Any) -> _Cut | None:
        """None where the input is read by anything but one table, or its numbers have no single place."""
        reached = self.behind(start)
        finds = [name for name in reached if self.nodes[name].op in FIND]
        if len(finds) != 1:
            return None
        others = [
            n for n, node in self.nodes.items() if node.op == "Placeholder" and n != start and not _is_table(node)
        ]
        own = reached.difference(*(self.behind(other) for other in others))
        ends = reached - own  # what other values go into as well; of a model without any, what nothing reads
        ends |= {name for name in own if not self.readers[name]}
        numbers = self.behind(finds[0], stop=SIZES) & own
        gates = [name for name in numbers if _rank(imported, name) is not None and self._is_gate(name, start, ends)]
        if not gates:
            return None
        gates.sort(key=lambda name: len(self.before(name)))
        first = last = gates[0]
        for name in gates:
            between = numbers & self.behind(first, stop=SIZES) & self.before(name) - {first}
            shaped = all(self.nodes[n].op in SHAPING for n in between)
            if shaped and _rank(imported, name) == _rank(imported, first):
                last = name
        on_text = [n for n in self.before(finds[0]) & own - {start, finds[0]} if _gives_text(imported, n)]
        on_text += [name for name in own if self.nodes[name].op.startswith(HASHES)]
        on_text.sort(key=lambda name: len(self.before(name)))
        return _Cut(f"{last}:0", self.nodes[finds[0]], tuple(self.nodes[name] for name in on_text))

    def _is_gate(self, name: str, start: str, ends: set[str]) -> bool:
        """Whether nothing of the input goes any other way than through this node."""
        return name not in ends and not ends & self.behind(start, without=name)


def _with_shapes(tf: Any, graph_def: Any) -> Any:
    """The graph as TensorFlow tells its shapes. Of a table that is a placeholder it knows no type, and so no shape of
    what is found there: a hash of the same text has it."""
    known = type(graph_def).FromString(graph_def.SerializeToString())
    for node in known.node:
        if node.op in FIND and [node.attr[key].type for key in ("Tin", "Tout")] == [
            kind.as_datatype_enum for kind in (tf.string, tf.int64)
        ]:
            node.op, node.input[:] = "StringToHashBucketFast", [node.input[1]]
            node.attr.clear()
            node.attr["num_buckets"].i = 1
    with tf.Graph().as_default() as imported:
        tf.graph_util.import_graph_def(known, name="")
    return imported


def _makers(node: Any) -> Iterator[str]:
    return (name.split(":")[0] for name in node.input if not name.startswith("^"))


def _is_table(node: Any) -> bool:
    tf = need("tensorflow", extra="convert")
    return bool(node.attr["dtype"].type == tf.resource.as_datatype_enum)


def _gives_text(imported: Any, name: str) -> bool:
    return any(tensor.dtype.name == "string" for tensor in imported.get_operation_by_name(name).outputs)


def _rank(imported: Any, name: str) -> int | None:
    """Of what a node gives; None where that is no whole numbers, or of an unknown rank."""
    outputs = imported.get_operation_by_name(name).outputs
    return outputs[0].shape.rank if len(outputs) == 1 and outputs[0].dtype.is_integer else None


def _words(tf: Any, graph: _Graph, cut: _Cut | None, tables: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a file of words holds; None where the table is no list of words, each at its place."""
    if cut is None:
        return None
    table, default = (graph.origin(cut.find.input[place]) for place in (0, 2))
    kinds = [cut.find.attr[key].type for key in ("Tin", "Tout")]
    if table.name not in tables or default.op != "Const" or not _is_words_to_numbers(tf, kinds):
        return None
    content = tf.raw_ops.LookupTableExportV2(table_handle=tables[table.name], Tkeys=kinds[0], Tvalues=kinds[1])
    words, places = (part.numpy().tolist() for part in content)
    last = 2 * len(words) + 16
    if not words or min(places) < 0 or max(places) > last or len({*places}) < len(places):
        return None
    found = {place: word.decode("utf-8", "replace") for word, place in zip(words, places, strict=True)}
    unknown = int(tf.make_ndarray(default.attr["value"].tensor).ravel()[0])
    found = {**({unknown: UNKNOWN} if unknown <= last else {}), **found}  # what no word has is the number of nothing
    steps = [
        {"operation": node.op, **{key: _setting(node.attr[key]) for key in SETTINGS if key in node.attr}}
        for node in cut.steps
        if node.op not in ("Const", *SHAPING)
    ]
    # as of a Keras layer: a word's place is its number
    listed = [found.get(place, "") for place in range(max(found) + 1)]
    return {"layer": cut.find.op, "words": listed, "unknown": unknown, "operations": steps}


def _is_words_to_numbers(tf: Any, kinds: Sequence[int]) -> bool:
    return tf.as_dtype(kinds[0]) == tf.string and bool(tf.as_dtype(kinds[1]).is_integer)


def _setting(attribute: Any) -> Any:
    return attribute.s.decode("utf-8", "replace") if attribute.HasField("s") else attribute.i


def _begin_at(graph_def: Any, place: str, tensor: str, kind: int) -> None:
    """Make the placeholder of an input one of this type, and let what reads the tensor read the placeholder."""
    name = tensor.split(":")[0]
    for node in graph_def.node:
        node.input[:] = [place if one in (name, tensor) else one for one in node.input]
    for node in graph_def.node:
        if node.name == place:
            node.attr.clear()
            node.attr["dtype"].type = kind
