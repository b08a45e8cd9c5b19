"""The verbs `enroll`, `deploy`, `rollback` and `devices`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from edgeloop.edge.deploy.deploy_result import DeployOptions
from edgeloop.edge.deploy.device_status import read_statuses
from edgeloop.edge.deploy.enroll import enroll as enroll_all
from edgeloop.edge.deploy.fleet import known_devices
from edgeloop.edge.deploy.parallel import Interrupted
from edgeloop.edge.deploy.present import of_deploy, of_enroll, of_rollback, of_statuses, state
from edgeloop.edge.deploy.rollback import rollback as roll_back
from edgeloop.edge.deploy.rollout import ALL
from edgeloop.edge.deploy.rollout import deploy as roll_out
from edgeloop.edge.deploy.variant_choice import DeployConstraints
from edgeloop.errors import EdgeloopError, OptionsError
from edgeloop.registry.signatures.signers import read_signers
from edgeloop.result import CommandResult
from edgeloop.runtime.device import parse_device

app = typer.Typer()
DEVICES = "local, local:PYTHON or ssh://[USER@]HOST[:PORT][/PATH/TO/PYTHON]; several."


@app.command()
def enroll(
    ctx: typer.Context,
    device: Annotated[list[str], typer.Argument(help=DEVICES)],
    signers: Annotated[Path, typer.Option(help="An OpenSSH allowed_signers file: whose bundles they take.")],
) -> CommandResult:
    """Tell devices, once, whose bundles they take; from then on they refuse all others."""
    enrolled = enroll_all([parse_device(name) for name in device], read_signers(signers))
    return _told(ctx, of_enroll(enrolled), [e.error for e in enrolled])


@app.command()
def deploy(
    ctx: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="A bundle folder.")],
    to: Annotated[list[str], typer.Option(help=DEVICES.replace("several", "repeat for several"))],
    variant: Annotated[
        str | None, typer.Option(help="Its id. Without it: the fastest that fits, measured there.")
    ] = None,
    runtime: Annotated[str | None, typer.Option(help="litert, tflite-runtime or onnxruntime alone.")] = None,
    min_accuracy: Annotated[float | None, typer.Option(help="Of labelled data, 0 to 1, by the bundle's proof.")] = None,
    max_ram_mb: Annotated[float | None, typer.Option(help="Peak memory of the process that runs the model.")] = None,
    wave: Annotated[str, typer.Option(help="How many devices are done by when, as 1,10%,100%.")] = ALL,
    probation: Annotated[int, typer.Option(help="Runs of the golden inputs before the new release is kept.")] = 64,
    p90_budget_ms: Annotated[float | None, typer.Option(help="Of one of these runs; slower is rolled back.")] = None,
    threads: Annotated[int, typer.Option(help="Threads of the runtime.")] = 1,
    timeout_s: Annotated[float, typer.Option(help="Of one step on a device.")] = 300.0,
) -> CommandResult:
    """Bring a bundle to devices: checked, tried, activated and, if it fails its probation, taken back."""
    max_ram_bytes = None if max_ram_mb is None else int(max_ram_mb * 1e6)
    options = DeployOptions(
        constraints=DeployConstraints(
            variant=variant, runtime=runtime, min_accuracy=min_accuracy, max_ram_bytes=max_ram_bytes
        ),
        threads=threads,
        probation=probation,
        p90_budget_ms=p90_budget_ms,
        timeout_s=timeout_s,
    )
    try:
        outcomes = roll_out(bundle, [parse_device(name) for name in to], options, wave, ctx.obj)
    except Interrupted as e:
        for outcome in e.results:
            ctx.obj.say(f"{outcome.device.name}: {state(outcome)}")
        raise
    return _told(ctx, of_deploy(outcomes), [outcome.error for outcome in outcomes])


@app.command()
def rollback(
    ctx: typer.Context,
    device: Annotated[list[str], typer.Argument(help=DEVICES)],
    slot: Annotated[str | None, typer.Option(help="The bundle's name; needed where a device has several.")] = None,
) -> CommandResult:
    """Let devices go back to the release before, which they keep."""
    done = roll_back([parse_device(name) for name in device], slot)
    return _told(ctx, of_rollback(done), [d.error for d in done])


@app.command()
def devices(
    ctx: typer.Context,
    device: Annotated[list[str] | None, typer.Argument(help=f"{DEVICES} Without any: all known here.")] = None,
) -> CommandResult:
    """Say what runs where, by asking."""
    asked = [parse_device(name) for name in device or ()] or known_devices()
    if not asked:
        raise OptionsError("no device was ever enrolled or deployed to from here. Name one: edgeloop devices DEVICE.")
    return of_statuses(read_statuses(asked))


def _told(ctx: typer.Context, answer: CommandResult, errors: Sequence[EdgeloopError | None]) -> CommandResult:
    """The answer, where every device did what was asked; else it is shown, and the first error ends the command."""
    first = next((error for error in errors if error is not None), None)
    if first is None:
        return answer
    ctx.obj.show(answer)
    raise first
