"""The verb `federate run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeloop.federated.rounds.records import RoundRecord
from edgeloop.federated.rounds.run_rounds import RoundsOptions, run_rounds
from edgeloop.result import CommandResult, Table
from edgeloop.runtime.chosen_devices import parse_devices


def run(
    ctx: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="Train the trainable variant of this bundle.")],
    shard: Annotated[
        list[Path],
        typer.Option(metavar="F.npz", help="Simulate a device that holds this data: inputs by name (or x), and y."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Write round-N.npz and rounds.json here.")],
    rounds: Annotated[int, typer.Option(metavar="N", help="Run N rounds.")] = 3,
    epochs: Annotated[int, typer.Option(metavar="N", help="Train for N epochs on each device per round.")] = 1,
    lr: Annotated[float, typer.Option(metavar="RATE", help="Train with this learning rate (SGD) in round 1.")] = 0.05,
    lr_decay: Annotated[
        float, typer.Option(metavar="FACTOR", help="Multiply the learning rate by this after each round.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(metavar="N", help="Shuffle the data with this seed.")] = 0,
    on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DEVICE",
            show_default="the device environment",
            help="Simulate devices in this environment: local:PYTHON, or those of a fleet file. Where there are "
            "several, the shards take turns.",
        ),
    ] = None,
) -> CommandResult:
    """Run rounds of federated averaging (FedAvg) on devices simulated as processes of this machine."""
    options = RoundsOptions(
        shards=tuple(shard),
        out=out,
        devices=tuple(parse_devices(on or ())),
        rounds=rounds,
        epochs=epochs,
        lr=lr,
        lr_decay=lr_decay,
        seed=seed,
    )
    records = run_rounds(bundle, options, lambda record, _: ctx.obj("rounds", record.round, rounds))
    return CommandResult({"rounds": [r.to_json() for r in records], "out": str(out)}, [_table(records)])


def _table(records: tuple[RoundRecord, ...]) -> Table:
    columns = ("round", "train loss", "devices", "examples", "slowest device, s", "file")
    rows = [
        (
            str(r.round),
            f"{r.train_loss:.4f}",
            str(len(r.clients)),
            str(r.examples),
            f"{max(c.seconds for c in r.clients):.2f}",
            r.file,
        )
        for r in records
    ]
    return Table("rounds of federated averaging", columns, rows)
