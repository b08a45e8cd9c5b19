"""The verbs `enroll`, `deploy`, `rollback` and `devices`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from edgeloop.edge.commands.choices import DeviceRuntimeName
from edgeloop.edge.deploy.device_options import deploy_options, options_by_device
from edgeloop.edge.deploy.device_status import read_statuses
from edgeloop.edge.deploy.enroll import enroll as enroll_all
from edgeloop.edge.deploy.history_reading import read_history, since_when
from edgeloop.edge.deploy.known_devices import known_devices
from edgeloop.edge.deploy.parallel import InterruptedRun
from edgeloop.edge.deploy.present import of_deploy, of_enroll, of_rollback, of_statuses, state
from edgeloop.edge.deploy.present_history import of_history
from edgeloop.edge.deploy.rollback import rollback as roll_back
from edgeloop.edge.deploy.rollout import ALL
from edgeloop.edge.deploy.rollout import deploy as roll_out
from edgeloop.edge.deploy.waves import by_group
from edgeloop.errors import OptionsError
from edgeloop.registry.signatures.signers import read_signers
from edgeloop.result import CommandResult
from edgeloop.runtime.chosen_devices import FLEET_FORMS, choose_devices, parse_devices
from edgeloop.runtime.device_settings import DeviceSettings

WHICH = f"{FLEET_FORMS}."


def enroll(
    ctx: typer.Context,
    device: Annotated[list[str], typer.Argument(metavar="DEVICE", help=f"Enroll these devices: {WHICH}")],
    signers: Annotated[
        Path,
        typer.Option(metavar="FILE", help="Trust the signers in this OpenSSH allowed_signers file."),
    ],
) -> CommandResult:
    """Enroll devices: from then on they accept only bundles signed by the given signers."""
    enrolled = enroll_all(parse_devices(device), read_signers(signers), say=ctx.obj.say)
    return of_enroll(enrolled)


def deploy(
    ctx: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="Deploy this bundle.")],
    to: Annotated[list[str], typer.Option(metavar="DEVICE", help=f"Deploy to this device: {WHICH}")],
    variant: Annotated[
        str | None,
        typer.Option(metavar="ID", show_default="the fastest on each device", help="Deploy this variant."),
    ] = None,
    runtime: Annotated[
        DeviceRuntimeName | None,
        typer.Option(metavar="NAME", show_default="the fastest on each device", help="Run the model on this runtime."),
    ] = None,
    min_accuracy: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Require this accuracy in the bundle's proof, 0 to 1; of a model that gives scores, this AUC.",
        ),
    ] = None,
    max_rmse: Annotated[
        float | None,
        typer.Option(metavar="VALUE", help="Require an RMSE of at most this in the bundle's proof."),
    ] = None,
    max_ram_mb: Annotated[
        float | None,
        typer.Option(metavar="MB", help="Require that the process that runs the model takes at most this much memory."),
    ] = None,
    waves: Annotated[
        str,
        typer.Option(
            metavar="STEPS",
            help="Deploy in waves: cumulative counts or percentages of devices, or groups of a fleet file, e.g. "
            "1,10%,100% or canaries,100%.",
        ),
    ] = ALL,
    max_failed: Annotated[
        str,
        typer.Option(
            metavar="N|P%",
            help="Stop after the wave by whose end more than this many devices have failed, as a count or percentage.",
        ),
    ] = "0",
    probation: Annotated[
        int | None,
        typer.Option(
            metavar="N", show_default="64", help="Run the reference inputs N times before the new release is kept."
        ),
    ] = None,
    p90_budget_ms: Annotated[
        float | None,
        typer.Option(metavar="MS", help="Roll back if p90 latency during probation exceeds this many ms."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", show_default="1", help="Run the model with N threads.")
    ] = None,
    timeout_s: Annotated[
        float | None,
        typer.Option(metavar="S", show_default="300", help="Wait at most S seconds for each step on a device."),
    ] = None,
    take_over: Annotated[
        bool,
        typer.Option("--take-over", help="End another deploy of this bundle that is still running on a device."),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Leave out devices that have this release already, as the history knows, if its last rollout ended "
            "early.",
        ),
    ] = False,
) -> CommandResult:
    """Deploy a bundle to devices: verify, try, activate, and roll back if probation fails."""
    given = DeviceSettings(
        variant=variant,
        runtime=runtime.value if runtime else None,
        min_accuracy=min_accuracy,
        max_rmse=max_rmse,
        max_ram_mb=max_ram_mb,
        threads=threads,
        probation=probation,
        p90_budget_ms=p90_budget_ms,
        timeout_s=timeout_s,
    )
    options, chosen = deploy_options(given, take_over), choose_devices(to)
    own = options_by_device(chosen, given, take_over)
    waves, ordered = by_group(waves, chosen.devices, chosen.groups)
    try:
        outcomes = roll_out(bundle, ordered, options, waves, ctx.obj, own, resume, max_failed, ctx.obj.say)
    except InterruptedRun as e:
        for outcome in e.results:
            ctx.obj.say(f"{outcome.device.display_name}: {state(outcome)}")
        raise
    return of_deploy(outcomes)


def rollback(
    ctx: typer.Context,
    device: Annotated[list[str], typer.Argument(metavar="DEVICE", help=f"Roll these devices back: {WHICH}")],
    slot: Annotated[
        str | None, typer.Option(metavar="NAME", help="Roll this deployed bundle back, where a device has several.")
    ] = None,
) -> CommandResult:
    """Roll devices back to the previous release, which they keep."""
    chosen = choose_devices(device)
    listed = {} if slot else chosen.entries()
    own = {one: name for one, entry in listed.items() if (name := entry.settings.slot)}
    return of_rollback(roll_back(chosen.devices, slot, own=own, say=ctx.obj.say))


def devices(
    ctx: typer.Context,
    device: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DEVICE",
            help=f"List these devices: {FLEET_FORMS}. Without any, all that this machine deployed to.",
        ),
    ] = None,
    fail_if_unreachable: Annotated[
        bool,
        typer.Option("--fail-if-unreachable", help="Fail if any device does not answer, and not only if none does."),
    ] = False,
    history: Annotated[
        bool,
        typer.Option(
            "--history", help="List what this machine did to the devices and what they answered; no device is asked."
        ),
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="7d|DATE", help="Leave out what is older than this age (m, h, d, w) or date; needs --history."
        ),
    ] = None,
) -> CommandResult:
    """List devices and the release each one runs."""
    if history:
        if fail_if_unreachable:
            raise OptionsError("--history asks no device", advice="Leave --fail-if-unreachable out.")
        begin = "" if since is None else since_when(since, datetime.now(UTC))
        return of_history(read_history(parse_devices(device or ()), begin))
    if since is not None:
        raise OptionsError("--since needs --history, which is missing", advice="Add --history.")
    asked = parse_devices(device or ()) or known_devices()
    if not asked:
        raise OptionsError(
            "no device was enrolled or deployed to from this machine", advice="Name one: edgeloop devices DEVICE."
        )
    return of_statuses(read_statuses(asked, say=ctx.obj.say), fail_if_unreachable)
