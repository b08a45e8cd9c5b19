"""The verb `edgeloop federate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeloop.bundle import read_bundle
from edgeloop.errors import ModelError
from edgeloop.federated.initial import initial_weights
from edgeloop.federated.records import RoundRecord
from edgeloop.federated.rounds import RoundsOptions, run_rounds
from edgeloop.result import CommandResult, Table
from edgeloop.runtime.device import device_environment, parse_device

VARIANT = "trainable"

app = typer.Typer()
federate = typer.Typer(no_args_is_help=True, help="Train across devices, their data staying where it is.")
app.add_typer(federate, name="federate")


@app.callback()
def verbs() -> None:
    """Keep `federate` a group of its own: Typer would fold a lone one."""


@federate.command("run")
def run(
    ctx: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="A bundle with a trainable variant.")],
    shard: Annotated[list[Path], typer.Option(help="One .npz per device: the inputs (or x) and y. Repeat it.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for round-N.npz and rounds.json.")],
    rounds: Annotated[int, typer.Option(help="Rounds of FedAvg.")] = 3,
    epochs: Annotated[int, typer.Option(help="Passes over each shard per round.")] = 1,
    lr: Annotated[float, typer.Option(help="Learning rate of plain SGD in round 1.")] = 0.05,
    lr_decay: Annotated[float, typer.Option(help="Factor on it after every round.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Fixes every shuffle.")] = 0,
    device: Annotated[str | None, typer.Option(help="local:PYTHON; the device environment if not given.")] = None,
) -> CommandResult:
    """Run rounds of FedAvg on devices of this machine, one process group per shard."""
    read = read_bundle(bundle)
    if VARIANT not in [variant.id for variant in read.manifest.variants]:
        raise ModelError(f"{bundle} has no {VARIANT} variant. Run: edgeloop convert MODEL --trainable -o {bundle}.")
    where = parse_device(device) if device else device_environment()
    model = read.file(read.variant(VARIANT).entry)
    options = RoundsOptions(
        trainable=model,
        initial=initial_weights(model, where),
        shards=tuple(shard),
        device=where,
        out=out,
        rounds=rounds,
        epochs=epochs,
        lr=lr,
        lr_decay=lr_decay,
        seed=seed,
    )
    records = run_rounds(options, lambda record, _: ctx.obj("rounds", record.round, rounds))
    return CommandResult({"rounds": [r.to_json() for r in records], "out": str(out)}, [_table(records)])


def _table(records: tuple[RoundRecord, ...]) -> Table:
    columns = ("round", "file", "devices", "examples", "train loss", "slowest device, s")
    rows = [
        (
            str(r.round),
            r.file,
            str(len(r.clients)),
            str(r.examples),
            f"{r.train_loss:.4f}",
            f"{max(c.seconds for c in r.clients):.2f}",
        )
        for r in records
    ]
    return Table("rounds of FedAvg", columns, rows)
