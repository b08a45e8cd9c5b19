"""The verb `check`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from edgeloop.edge.deploy.device_check import DeviceCheck, check_devices, failure
from edgeloop.edge.deploy.device_findings import CheckState
from edgeloop.result import CommandResult, Table
from edgeloop.runtime.chosen_devices import FLEET_FORMS, parse_devices


def check(
    ctx: typer.Context,
    device: Annotated[list[str], typer.Argument(metavar="DEVICE", help=f"Check these devices: {FLEET_FORMS}.")],
    timeout_s: Annotated[
        float, typer.Option(metavar="S", help="Wait at most S seconds for each answer of a device.")
    ] = 60.0,
) -> CommandResult:
    """Check that devices have what edgeloop needs, and print what to install there."""
    found = check_devices(parse_devices(device), timeout_s, ctx.obj.say)
    tables = [_table(one) for one in found if one.error is None]
    notes = [
        f"{one.device.display_name}: {one.error.told_beside(one.device.name)}" for one in found if one.error is not None
    ]
    notes += [
        f"{one.device.display_name}, {finding.check}: {finding.advice}"
        for one in found
        for finding in one.findings
        if finding.state is not CheckState.OK and finding.advice
    ]
    return CommandResult({"devices": [_document(one) for one in found]}, tables, notes, failure(found))


def _table(found: DeviceCheck) -> Table:
    rows = [(one.check, one.state.value, one.found) for one in found.findings]
    return Table(found.device.display_name, ("check", "state", "found"), rows)


def _document(found: DeviceCheck) -> dict[str, Any]:
    return {
        "device": found.device.name,
        "checks": [asdict(finding) for finding in found.findings],
        "facts": asdict(found.facts) if found.facts else None,
        "error": found.error.to_json() if found.error else None,
    }
