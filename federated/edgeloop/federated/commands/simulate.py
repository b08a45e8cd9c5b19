"""The verb `federate simulate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from edgeloop.errors import OptionsError
from edgeloop.federated.commands.run import result_of
from edgeloop.federated.rounds.federation import DevicesTable, read_federation
from edgeloop.federated.rounds.run_rounds import run_rounds
from edgeloop.federated.simulation.simulated import Simulated
from edgeloop.quantities import at_least
from edgeloop.result import CommandResult
from edgeloop.runtime.device import parse_device

REPLY_S, YEAR_S = 3600.0, 365 * 86_400.0  # of real time: between two replies, and in a round


def simulate(
    ctx: typer.Context,
    federation: Annotated[Path, typer.Argument(help="Run this .toml file, which has a table [simulation].")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Write the run's folder here.")],
    nodes: Annotated[
        int | None, typer.Option(metavar="N", show_default="as in the file, else 100", help="Simulate N devices.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(metavar="N", show_default="as in the file, else 3", help="Run N rounds.")
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Use the CPUs of the Ray cluster at this address.", show_default="none"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Read the journal of an interrupted run, and go on after its last round.")
    ] = False,
) -> CommandResult:
    """Run the rounds of a federation.toml on Flower's simulation engine, with hundreds of simulated devices.

    The server and the training are those of a real run; [simulation] says which samples each device has, how many drop
    out and how many are slow. Times of devices are simulated, so equal seeds give equal runs.
    """
    for value, option in ((nodes, "--nodes"), (rounds, "--rounds")):
        if value is not None:
            at_least(value, 1, option)
    file = read_federation(federation)
    if file.simulation is None:
        raise OptionsError(f"{federation} has no table [simulation]", advice='Add it, with data = "FILE OR FOLDER".')
    tables = {"[devices]": file.devices != DevicesTable(), "[network]": file.network is not None}
    given = [name for name, is_given in tables.items() if is_given]
    if given:
        raise OptionsError(
            f"{federation} has {' and '.join(given)}, and the devices of a simulation are those of [simulation]",
            advice=f"Leave {' and '.join(given)} out, or run: edgeloop federate run",
        )
    simulation = replace(
        file.simulation,
        nodes=file.simulation.nodes if nodes is None else nodes,
        ray_address=file.simulation.ray_address if ray_address is None else ray_address,
    )
    names = tuple(Path(f"device {number}") for number in range(simulation.nodes))
    simulated = replace(
        file,
        rounds=replace(file.rounds, count=file.rounds.count if rounds is None else rounds),
        devices=DevicesTable(shards=names),
    )
    options = simulated.rounds_options(out, resume=resume)
    # the grid keeps the deadline, in simulated time; this machine may take as long as replies come
    here = replace(options, devices=(parse_device("local"),), round_timeout_s=YEAR_S, timeout_s=REPLY_S)
    records = run_rounds(
        simulated.model.bundle,
        here,
        lambda record, _: ctx.obj("rounds", record.round, options.rounds),
        simulated=Simulated(simulation, options.round_timeout_s),
    )
    return result_of(records, options, out)
