"""The verb `bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeloop.edge.commands.choices import RuntimeName
from edgeloop.edge.measure.bench import bench as measure
from edgeloop.edge.measure.bench_plan import BenchOptions
from edgeloop.edge.measure.bench_records import write_bench
from edgeloop.edge.measure.bench_report import write_bench_report
from edgeloop.edge.measure.bench_targets import find_targets
from edgeloop.edge.measure.latency_tables import notes, overview, tables
from edgeloop.edge.measure.scenarios import Driver, Scenario
from edgeloop.quantities import input_shape
from edgeloop.result import CommandResult
from edgeloop.runtime.chosen_devices import FLEET_FORMS, parse_bench_devices


def bench(
    ctx: typer.Context,
    model: Annotated[
        Path,
        typer.Argument(
            help="Measure this bundle, .tflite or .onnx file. A Keras model or SavedModel is converted into a "
            "temporary bundle first.",
        ),
    ],
    on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DEVICE",
            show_default="this machine and the device environment",
            help=f"Measure on this device: {FLEET_FORMS}; or browser, a page in headless Chromium on this machine.",
        ),
    ] = None,
    runtime: Annotated[
        list[RuntimeName] | None,
        typer.Option(metavar="NAME", show_default="all that are installed", help="Measure on this runtime."),
    ] = None,
    delegate: Annotated[
        str | None,
        typer.Option(
            metavar="edgetpu|LIB.so",
            help="Load this delegate: edgetpu for the Edge TPU's, or the path of a shared library on the device.",
        ),
    ] = None,
    threads: Annotated[int, typer.Option(metavar="N", help="Run the model with N threads.")] = 1,
    runs: Annotated[
        int,
        typer.Option(metavar="N", help="Measure N queries of each variant and runtime; for offline, N samples."),
    ] = 200,
    warmup: Annotated[int, typer.Option(metavar="N", help="Run the model N times before measuring.")] = 10,
    scenario: Annotated[
        Scenario, typer.Option(metavar="NAME", help="Send queries as this MLPerf scenario does.")
    ] = Scenario.SINGLE_STREAM,
    driver: Annotated[
        Driver, typer.Option(metavar="NAME", help="Send queries with edgeloop, or with MLPerf's LoadGen on the device.")
    ] = Driver.EDGELOOP,
    at_once: Annotated[
        int, typer.Option(metavar="N", help="Load N models at a time; more than N are measured in groups.")
    ] = 8,
    profile: Annotated[
        bool, typer.Option("--profile", help="Measure the time of each operator (LiteRT only).")
    ] = False,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SIZES",
            help="Measure with these sizes of an input, where the model leaves them free, e.g. image=1,320,320,3.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, metavar="N", help="Shuffle the order of measurements with this seed.")
    ] = 0,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="F.json", help="Write the measurement to this file.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="F.html", help="Write a report with plots to this file.")
    ] = None,
) -> CommandResult:
    """Measure latency and memory of each variant, on every device and runtime that can run it."""
    options = BenchOptions(
        devices=tuple(parse_bench_devices(on or ())),
        runtimes=tuple(name.value for name in runtime or ()),
        delegate=delegate,
        threads=threads,
        runs=runs,
        warmup=warmup,
        scenario=scenario,
        driver=driver,
        together=at_once,
        profile=profile,
        shapes=dict(map(input_shape, shape or ())),
        seed=seed,
    )
    result = measure(find_targets(model), options, ctx.obj)
    document = result.to_json()
    if out is not None:
        write_bench(document, out)
    remarks = [*result.notes, *notes(result.records)]
    if report is not None:
        remarks += write_bench_report(document, overview(result), report, model)
    return CommandResult(document, tables(result), remarks)
