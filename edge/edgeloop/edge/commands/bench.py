"""The verb `bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeloop.edge.measure.bench import bench as measure
from edgeloop.edge.measure.bench_plan import BenchOptions
from edgeloop.edge.measure.bench_records import write_bench
from edgeloop.edge.measure.bench_targets import find_targets
from edgeloop.edge.measure.latency_tables import notes, overview, tables
from edgeloop.edge.measure.plots import write_bench_report
from edgeloop.edge.measure.scenarios import Driver, Scenario
from edgeloop.result import CommandResult
from edgeloop.runtime.device import parse_device

app = typer.Typer()


@app.command()
def bench(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(help="A bundle, a .tflite or an .onnx file.")],
    on: Annotated[list[str] | None, typer.Option(help="local, local:PYTHON, ssh://HOST[/PYTHON]; repeat.")] = None,
    runtime: Annotated[
        list[str] | None, typer.Option(help="litert, tflite-runtime, onnxruntime, tensorflow; repeat.")
    ] = None,
    delegate: Annotated[str | None, typer.Option(help="edgetpu, or a delegate's library on the device.")] = None,
    threads: Annotated[int, typer.Option(help="Threads of the runtime.")] = 1,
    runs: Annotated[int, typer.Option(help="Measured queries of each pair; offline: samples.")] = 130,
    warmup: Annotated[int, typer.Option(help="Calls before them.")] = 10,
    scenario: Annotated[Scenario, typer.Option(help="How queries come, as MLPerf names it.")] = Scenario.SINGLE_STREAM,
    driver: Annotated[
        Driver, typer.Option(help="Whose queries the scenario's figure is of: ours, or MLPerf's LoadGen on the device.")
    ] = Driver.EDGELOOP,
    together: Annotated[int, typer.Option(help="Pairs loaded at a time; more are measured in groups.")] = 8,
    profile: Annotated[bool, typer.Option("--profile", help="Time of each operator, on LiteRT.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the order of turns.")] = 0,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Write the JSON document here, too.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page with plots here, too.")] = None,
) -> CommandResult:
    """Measure how long each variant takes, on every runtime of every device that runs it, side by side."""
    options = BenchOptions(
        devices=tuple(parse_device(text) for text in on or ()),
        runtimes=tuple(runtime or ()),
        delegate=delegate,
        threads=threads,
        runs=runs,
        warmup=warmup,
        scenario=scenario,
        driver=driver,
        together=together,
        profile=profile,
        seed=seed,
    )
    result = measure(find_targets(path), options, ctx.obj)
    document = result.to_json()
    if out is not None:
        write_bench(document, out)
    if report is not None:
        write_bench_report(document, overview(result), report)
    return CommandResult(document, tables(result), [*result.notes, *notes(result.records)])
