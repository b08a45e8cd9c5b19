"""The verbs `inspect` and `bench`."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeloop.answer import Answer, Table
from edgeloop.edge.device import parse_device
from edgeloop.edge.files.inspect import inspect as look
from edgeloop.edge.measure.bench import BenchOptions, Latency, targets
from edgeloop.edge.measure.bench import bench as measure

app = typer.Typer()


@app.command()
def inspect(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(help="A bundle, a .tflite, .keras or .onnx file, or a SavedModel folder.")],
) -> Answer:
    """Say what a file holds, without running it."""
    found = look(path)
    tables = [_signatures(name, signature) for name, signature in found.get("signatures", {}).items()]
    counts = found.get("operators") or Counter(layer["kind"] for layer in found.get("layers", ()))
    if counts:
        what = "operator" if "operators" in found else "layer"
        rows = [(name, str(count)) for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
        tables.append(Table(f"{what}s", (what, "count"), rows))
    if "variants" in found:
        ids = [(v["id"], v["format"], v["scheme"], ", ".join(v["requires"]["runtimes"])) for v in found["variants"]]
        tables.append(Table("variants", ("variant", "format", "scheme", "proved on"), ids))
    title = f"{path}: {found['format']}, {found['bytes'] / 1e3:,.1f} kB"
    return Answer(found, tables, [title])


@app.command()
def bench(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(help="A bundle, a .tflite or an .onnx file.")],
    on: Annotated[list[str] | None, typer.Option(help="local or local:PYTHON; repeat for several.")] = None,
    runtime: Annotated[list[str] | None, typer.Option(help="litert, tflite-runtime, onnxruntime; repeat.")] = None,
    threads: Annotated[int, typer.Option(help="Threads of the runtime.")] = 1,
    runs: Annotated[int, typer.Option(help="Measured calls of each variant on each runtime.")] = 100,
    warmup: Annotated[int, typer.Option(help="Calls before them.")] = 10,
) -> Answer:
    """Measure how long each variant takes here, on every runtime that runs it, side by side."""
    options = BenchOptions(
        devices=tuple(parse_device(text) for text in on or ()),
        runtimes=tuple(runtime or ()),
        threads=threads,
        runs=runs,
        warmup=warmup,
    )
    notes: list[str] = []
    records = measure(targets(path), options, ctx.obj, notes.append)
    return Answer({"bench": [asdict(record) for record in records], "notes": notes}, [latency_table(records)], notes)


def latency_table(records: list[Latency]) -> Table:
    """Records for people, fastest first."""
    columns = ("variant", "runtime", "device", "batch", "p50 ms", "p90 ms", "CPU ms", "first ms", "peak RSS", "size")
    first = records[0]
    title = (
        f"{first.n} calls after {first.warmup}, {first.threads} thread(s), interleaved; compare within this table only"
    )
    return Table(
        title,
        columns,
        [
            (
                r.variant,
                f"{r.runtime} {r.runtime_version}",
                r.device,
                str(r.batch),
                f"{r.p50_ms:.3f}",
                "insufficient" if r.p90_ms is None else f"{r.p90_ms:.3f}",
                f"{r.cpu_p50_ms:.3f}",
                f"{r.first_ms:.2f}",
                "unknown" if r.rss_peak_bytes is None else f"{r.rss_peak_bytes / 1e6:.0f} MB",
                f"{r.bytes / 1e3:,.1f} kB",
            )
            for r in sorted(records, key=lambda r: r.p50_ms / r.batch)
        ],
    )


def _signatures(name: str, signature: dict[str, Any]) -> Table:
    rows = [
        (side[:-1], t["name"], "[" + ", ".join("any" if d is None else str(d) for d in t["shape"]) + "]", t["dtype"])
        for side in ("inputs", "outputs")
        for t in signature[side]
    ]
    return Table(f"signature {name or '(none)'}", ("", "tensor", "shape", "dtype"), rows)
