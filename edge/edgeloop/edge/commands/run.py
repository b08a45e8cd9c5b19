"""The verb `run`."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Annotated

import typer

from edgeloop.atomic import write_file
from edgeloop.edge.commands.choices import DeviceRuntimeName
from edgeloop.edge.run.options import RunOptions
from edgeloop.edge.run.run import ask
from edgeloop.edge.run.run import run as answers
from edgeloop.edge.run.systemd import unit, unit_name
from edgeloop.errors import OptionsError
from edgeloop.http.base_server import LOOPBACK
from edgeloop.quantities import pair
from edgeloop.result import CommandResult
from edgeloop.runtime.device import DEVICE_FORMS


def run(
    ctx: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            help=f"Run what is deployed on this device ({DEVICE_FORMS}, or fleet.toml#NAME), or this bundle."
        ),
    ],
    slot: Annotated[
        str, typer.Option(metavar="NAME", help="Run this deployed bundle, where a device has several.")
    ] = "",
    input: Annotated[
        str | None,
        typer.Option(
            metavar="-|DIR|camera[:N]",
            show_default="-",
            help="Read inputs from here: JSON lines on stdin (-), a folder of images on the device, or its camera.",
        ),
    ] = None,
    http: Annotated[
        int | None, typer.Option(metavar="PORT", help="Serve HTTP on this port of the device; 0 takes any free one.")
    ] = None,
    host: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="Listen on this address of the device (needs --http)."),
    ] = LOOPBACK,
    variant: Annotated[
        str,
        typer.Option(
            metavar="ID",
            show_default="the deployed one; of a bundle, the first that runs here",
            help="Run this variant.",
        ),
    ] = "",
    runtime: Annotated[
        DeviceRuntimeName | None,
        typer.Option(metavar="NAME", show_default="as deployed", help="Run the model on this runtime."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", show_default="as deployed", help="Run the model with N threads.")
    ] = None,
    count: Annotated[int | None, typer.Option(metavar="N", help="Stop after N answers.")] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Wait for new images in the folder, instead of ending after the last one.")
    ] = False,
    pixels: Annotated[
        str | None,
        typer.Option(
            metavar="LOW,HIGH", help="Rescale pixel values 0 and 255 to LOW and HIGH, where the bundle gives no range."
        ),
    ] = None,
    timeout_s: Annotated[
        float, typer.Option(metavar="S", help="Wait at most S seconds for the model to load, and for each answer.")
    ] = 60.0,
    systemd: Annotated[
        bool, typer.Option("--systemd", help="Print a systemd unit that runs this on the device, and run nothing.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="Write the unit of --systemd to this file.")
    ] = None,
) -> CommandResult | None:
    """Run the deployed model on its device, and return its answers."""
    options = RunOptions(
        input=input,
        http=http,
        host=host,
        slot=slot,
        variant=variant,
        runtime=runtime.value if runtime else "",
        threads=threads,
        count=count,
        follow=follow,
        pixels=pair(pixels, "--pixels"),
        timeout_s=timeout_s,
    )
    if out is not None and not systemd:
        raise OptionsError("--out needs --systemd, which is missing", advice="Answers go to standard output.")
    if systemd:
        return _service(ctx, target, options, out)
    if ctx.obj.json and options.endless and options.http is None:
        raise OptionsError(
            "--json prints one document, and this input has no end",
            advice="Add --count N, or leave --json out: each answer is a line of JSON.",
        )
    collected = []
    with contextlib.closing(answers(target, options, 0, ctx.obj.say)) as lines:
        for line in lines:
            if ctx.obj.json and options.http is None:
                collected.append(line)
            else:
                print(json.dumps(line), flush=True)
    return CommandResult({"answers": collected}) if ctx.obj.json and options.http is None else None


def _service(ctx: typer.Context, target: str, options: RunOptions, out: Path | None) -> CommandResult | None:
    where = ask(target, options, "--service-location")
    text, name = unit(where, options), unit_name(where)
    if out is not None:
        write_file(out, text.encode())
        note = f"Copy {out} to /etc/systemd/system/{name} on the device."
        return CommandResult({"unit": name, "file": str(out)}, notes=[note])
    if ctx.obj.json:
        return CommandResult({"unit": name, "text": text})
    print(text, end="", flush=True)
    return None
