"""The verb `run`."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Annotated

import typer

from edgeloop.atomic import write_file
from edgeloop.edge.run.options import LOOPBACK, RunOptions
from edgeloop.edge.run.run import ask
from edgeloop.edge.run.run import run as answers
from edgeloop.edge.run.systemd import unit, unit_name
from edgeloop.errors import OptionsError
from edgeloop.result import CommandResult

app = typer.Typer()


@app.command()
def run(
    ctx: typer.Context,
    target: Annotated[str, typer.Argument(help="A device (local, local:PYTHON, ssh://...) or a bundle's folder.")],
    slot: Annotated[str, typer.Option(help="Which deployed bundle, where a device has several.")] = "",
    input: Annotated[
        str | None, typer.Option(help="- (JSON lines), a folder of frames on the device, or camera[:WHICH].")
    ] = None,
    http: Annotated[int | None, typer.Option(help="Answer HTTP on this port of the device; 0: any.")] = None,
    host: Annotated[str, typer.Option(help="Address that --http listens on.")] = LOOPBACK,
    variant: Annotated[str, typer.Option(help="Else what was deployed; of a bundle, the first that runs.")] = "",
    runtime: Annotated[str, typer.Option(help="litert, tflite-runtime or onnxruntime; else what was deployed.")] = "",
    threads: Annotated[int | None, typer.Option(help="Threads of the runtime.")] = None,
    count: Annotated[int | None, typer.Option(help="End after so many answers.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with frames that come into the folder.")] = False,
    pixels: Annotated[str | None, typer.Option(help="LOW,HIGH: what 0 and 255 of a picture become.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to load the model, and for each answer.")] = 60.0,
    systemd: Annotated[bool, typer.Option("--systemd", help="Print a unit file for the device instead.")] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Where --systemd writes to.")] = None,
) -> CommandResult | None:
    """Answer with the deployed model, on the device: results travel, not the video."""
    options = RunOptions(
        input=input,
        http=http,
        host=host,
        slot=slot,
        variant=variant,
        runtime=runtime,
        threads=threads,
        count=count,
        follow=follow,
        pixels=_pair(pixels),
        timeout_s=timeout,
    )
    if output is not None and not systemd:
        raise OptionsError("-o is about --systemd, which is missing. Answers go to standard output.")
    if systemd:
        return _service(ctx, target, options, output)
    if ctx.obj.json and options.endless and options.http is None:
        raise OptionsError("--json is one document, and this input has no end. Add --count, or read JSON lines.")
    collected = []
    with contextlib.closing(answers(target, options, 0, ctx.obj.say)) as lines:
        for line in lines:
            if ctx.obj.json and options.http is None:
                collected.append(line)
            else:
                print(json.dumps(line), flush=True)
    return CommandResult({"answers": collected}) if ctx.obj.json and options.http is None else None


def _service(ctx: typer.Context, target: str, options: RunOptions, output: Path | None) -> CommandResult | None:
    where = ask(target, options, "--service-location")
    text, name = unit(where, options), unit_name(where)
    if output is not None:
        write_file(output, text.encode())
        return CommandResult(
            {"unit": name, "file": str(output)}, notes=[f"{output}: copy it to /etc/systemd/system/{name}"]
        )
    if ctx.obj.json:
        return CommandResult({"unit": name, "text": text})
    print(text, end="", flush=True)
    return None


def _pair(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError as e:
        raise OptionsError(f"--pixels {text} is no LOW,HIGH. Expected two numbers, such as 0,1.") from e
    return low, high
