"""The tables of `inspect`: what a user looks for first comes first, the weights come last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeloop.result import Table

SHOWN = 20  # rows of weights and of labels; --json has all

Facts = Mapping[str, Any]


def facts_tables(found: Facts) -> list[Table]:
    """Variants, signatures, layers or operators, metadata, weights, as far as there are any."""
    tables = []
    if "variants" in found:
        ids = [(v["id"], v["format"], v["scheme"], ", ".join(v["requires"]["runtimes"])) for v in found["variants"]]
        tables.append(Table("variants", ("variant", "format", "scheme", "checked on"), ids))
    ends = {name: each for name, each in found.get("signatures", {}).items() if each["inputs"] or each["outputs"]}
    tables += [_signature(name, signature) for name, signature in ends.items()]
    layers = found.get("layers", ())
    if layers and layers[0]["kind"] is None:
        tables.append(Table("layers", ("layer",), [(layer["name"],) for layer in layers]))
    else:
        counts = found.get("operators") or Counter(layer["kind"] for layer in layers)
        what = "operator" if "operators" in found else "layer"
        rows = [(name, str(count)) for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
        tables += [Table(f"{what}s", (what, "count"), rows)] * bool(rows)
    return [*tables, *_metadata(found.get("metadata")), *_weights(found)]


def facts_notes(model: Path, found: Facts) -> list[str]:
    """One line about the whole file, and what a user should know before loading it."""
    numbers = found.get("parameters")
    held = "" if numbers is None else f", {numbers:,} parameters"
    notes = [f"{model}: {found['format']}, {found['bytes'] / 1e3:,.1f} kB{held}"]
    graphs = found.get("graphs", ())
    if len(graphs) > 1:
        notes.append(f"Operators are those of {len(graphs)} graphs: the first and those that it calls, or signatures.")
    if found.get("metadata_damaged"):
        notes.append(f"The metadata cannot be read: {found['metadata_damaged']}")
    if found.get("runs_code"):
        notes.append(f"These layers run code or read files when the model is loaded: {', '.join(found['runs_code'])}.")
    return notes


def _signature(name: str, signature: Facts) -> Table:
    rows = [
        (side[:-1], t["name"], _shape(t.get("dims", t["shape"])), t["dtype"])
        for side in ("inputs", "outputs")
        for t in signature[side]
    ]
    return Table(f"signature {name or '(none)'}", ("", "tensor", "shape", "dtype"), rows)


def _shape(dims: Sequence[int | str | None] | None) -> str:
    """A free size as the file has it: a name, -1, or ? where it has neither."""
    if dims is None:
        return "unknown"
    return "[" + ", ".join("?" if d is None else str(d) for d in dims) + "]"


def _metadata(metadata: Facts | None) -> list[Table]:
    if not metadata:
        return []
    texts = ("name", "description", "version", "author", "license")
    rows = [("model", key, str(metadata[key])) for key in texts if metadata[key]]
    for side in ("inputs", "outputs"):
        for tensor in metadata[side]:
            name = f"{side[:-1]} {tensor['name']}"
            rows += [(name, key, value) for key, value in _tensor_rows(tensor) if value]
    rows += [("file", name, "") for name in metadata["files"]]
    return [Table("metadata", ("of", "", "value"), rows)] * bool(rows)


def _tensor_rows(tensor: Facts) -> list[tuple[str, str]]:
    labels = tensor["labels"]
    more = f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
    normalized = f"(x - {_numbers(tensor['mean'])}) / {_numbers(tensor['std'])}" if tensor["mean"] else ""
    ranges = [f"{low:g} to {high:g}" for low, high in zip(tensor["low"], tensor["high"], strict=False)]
    return [
        ("description", tensor["description"]),
        ("content", tensor["content"].name.lower() if tensor["content"] else ""),
        ("colors", tensor["color"].name.lower() if tensor["color"] else ""),
        ("sample rate", f"{tensor['sample_rate_hz']} Hz" if tensor["sample_rate_hz"] else ""),
        ("normalization", normalized),
        ("range", ", ".join(dict.fromkeys(ranges))),
        ("labels", ", ".join(labels[:SHOWN]) + more if labels else ""),
    ]


def _numbers(values: Sequence[float]) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else f"[{', '.join(f'{v:g}' for v in values)}]"


def _weights(found: Facts) -> list[Table]:
    weights = found.get("weights", ())
    rows = [(w["name"], _shape(w["shape"]), w["dtype"]) for w in weights[:SHOWN]]
    more = f": the first {SHOWN} of {len(weights)}; --json has all" if len(weights) > SHOWN else ""
    sizes = "".join(f", {dtype} {size / 1e3:,.1f} kB" for dtype, size in found.get("weight_bytes", {}).items())
    return [Table(f"weights{sizes}{more}", ("weight", "shape", "dtype"), rows)] * bool(rows)
