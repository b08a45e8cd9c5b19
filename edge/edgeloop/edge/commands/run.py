"""The verb `run`."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Annotated

import typer

from edgeloop.atomic import write_file
from edgeloop.edge.commands.choices import DeviceRuntimeName
from edgeloop.edge.on_device.pull.pull_options import POLL_S, PullOptions
from edgeloop.edge.on_device.pull.release_source import SourceAddress
from edgeloop.edge.on_device.releases.protocol import P90_RUNS, Probation
from edgeloop.edge.on_device.variants.variant_choice import DeployConstraints
from edgeloop.edge.run.options import RunOptions
from edgeloop.edge.run.run import ask
from edgeloop.edge.run.run import run as answers
from edgeloop.edge.run.systemd import unit, unit_name
from edgeloop.errors import OptionsError
from edgeloop.http.base_server import LOOPBACK
from edgeloop.quantities import byte_count, pair
from edgeloop.result import CommandResult
from edgeloop.runtime.device import DEVICE_FORMS


def run(
    ctx: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            help=f"Run what is deployed on this device ({DEVICE_FORMS}, or fleet.toml#NAME), or this bundle."
        ),
    ] = "local",
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
    watch: Annotated[
        bool, typer.Option("--watch", help="Wait for new images in the folder, instead of ending after the last one.")
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
    follow: Annotated[
        str,
        typer.Option(
            metavar="URL|DIR[#ALIAS]",
            help="Let the device fetch new releases itself, from a model's folder in a registry that edgeloop publish "
            "wrote.",
        ),
    ] = "",
    poll_s: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            show_default=f"{POLL_S:g}",
            help="Look for a new release every S seconds on average (needs --follow).",
        ),
    ] = None,
    root_certificate: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            show_default="those the device's system trusts",
            help="Trust the certificates in this PEM file of the device for the URL of --follow.",
        ),
    ] = "",
    min_accuracy: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Require this accuracy in a fetched release's proof, 0 to 1; of a model that gives scores, this AUC.",
        ),
    ] = None,
    max_rmse: Annotated[
        float | None,
        typer.Option(metavar="VALUE", help="Require an RMSE of at most this in a fetched release's proof."),
    ] = None,
    max_ram_mb: Annotated[
        float | None,
        typer.Option(metavar="MB", help="Require that a fetched release takes at most this much memory."),
    ] = None,
    probation: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            show_default=str(P90_RUNS),
            help="Run the reference inputs N times before a fetched release is kept.",
        ),
    ] = None,
    p90_budget_ms: Annotated[
        float | None,
        typer.Option(
            metavar="MS", help="Roll back a fetched release if p90 latency in probation exceeds this many ms."
        ),
    ] = None,
    systemd: Annotated[
        bool, typer.Option("--systemd", help="Print a systemd unit that runs this on the device, and run nothing.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="Write the unit of --systemd to this file.")
    ] = None,
) -> CommandResult | None:
    """Run the deployed model on its device, and return its answers."""
    taken = {
        "--poll-s": poll_s is not None,
        "--root-certificate": root_certificate,
        "--min-accuracy": min_accuracy is not None,
        "--max-rmse": max_rmse is not None,
        "--max-ram-mb": max_ram_mb is not None,
        "--probation": probation is not None,
        "--p90-budget-ms": p90_budget_ms is not None,
    }
    if not follow and any(taken.values()):
        option = next(option for option, given in taken.items() if given)
        raise OptionsError(f"{option} applies to fetched releases", advice="Add --follow URL|DIR, or leave it out.")
    pull = None
    if follow:
        pull = PullOptions(
            address=SourceAddress(follow),
            poll_s=POLL_S if poll_s is None else poll_s,
            root_certificate=root_certificate,
            threads=threads or 0,
            constraints=DeployConstraints(
                variant=variant or None,
                runtime=runtime.value if runtime else None,
                min_accuracy=min_accuracy,
                max_rmse=max_rmse,
                max_ram_bytes=None if max_ram_mb is None else byte_count(max_ram_mb, "--max-ram-mb"),
            ),
            probation=Probation(P90_RUNS if probation is None else probation, p90_budget_ms),
        )
    options = RunOptions(
        input=input,
        http=http,
        host=host,
        slot=slot,
        variant=variant,
        runtime=runtime.value if runtime else "",
        threads=threads,
        count=count,
        watch=watch,
        pull=pull,
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
