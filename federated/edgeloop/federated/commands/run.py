"""The verb `federate run`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeloop.federated.fold_back.present import FoldBackTold
from edgeloop.federated.fold_back.records import read_records
from edgeloop.federated.rounds.evaluation import read_evaluation
from edgeloop.federated.rounds.federation import Federation, ModelTable, read_federation
from edgeloop.federated.rounds.keras_result import KERAS
from edgeloop.federated.rounds.negotiation.nodes_file import read_nodes
from edgeloop.federated.rounds.options import RoundsOptions
from edgeloop.federated.rounds.records import RoundRecord, read_state
from edgeloop.federated.rounds.run_rounds import run_rounds
from edgeloop.federated.rounds.trained_bundle import RESULT
from edgeloop.result import CommandResult, Table


def run(
    ctx: typer.Context,
    source: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="Train the trainable variant of this bundle, or run a .toml file.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Write the run's folder here.")],
    shard: Annotated[
        list[Path] | None,
        typer.Option(metavar="F.npz", help="Simulate a device that holds this data: inputs by name (or x), and y."),
    ] = None,
    rounds: Annotated[int | None, typer.Option(metavar="N", show_default="3", help="Run N rounds.")] = None,
    epochs: Annotated[
        int | None, typer.Option(metavar="N", show_default="1", help="Train for N epochs on each device per round.")
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(metavar="RATE", show_default="0.05", help="Train with this learning rate (SGD) in round 1."),
    ] = None,
    lr_decay: Annotated[
        float | None,
        typer.Option(metavar="FACTOR", show_default="1", help="Multiply the learning rate by this after each round."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", show_default="0", help="Shuffle the data with this seed.")
    ] = None,
    on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DEVICE",
            show_default="the device environment",
            help="Simulate devices in this environment: local:PYTHON, or those of a fleet file. Where there are "
            "several, the shards take turns.",
        ),
    ] = None,
    eval: Annotated[
        Path | None, typer.Option(metavar="F.npz", help="Measure every round on these samples, and keep the best one.")
    ] = None,
    keras: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write this .keras file, which was converted, with the new weights as well."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Read the journal of an interrupted run, and go on after its last round.")
    ] = False,
    from_round: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            show_default="the last one",
            help="Roll back to the weights of round N, and keep the later rounds in branches/ (needs --resume). The "
            "shards and [guard] may change.",
        ),
    ] = None,
) -> CommandResult:
    """Run rounds of federated averaging (FedAvg) on devices of this machine, or on those that join from others.

    The argument is a bundle, or a federation.toml that has the tables [model], [rounds], [strategy], [guard],
    [selection], [compression], [privacy], [statistics], [journal], [buffered], [devices], [network], [evaluation] and
    [cloud]. Options that stand on the command line replace those of the file. Devices of this machine are processes,
    one for each shard; with [network] devices of other machines join, each by edgeloop federate join on its machine.
    """
    file = read_federation(source) if source.suffix == ".toml" else Federation(model=ModelTable(bundle=source))
    given: dict[str, Any] = {
        "count": rounds,
        "epochs": epochs,
        "learning_rate": lr,
        "learning_rate_decay": lr_decay,
        "seed": seed,
    }
    devices: dict[str, Any] = {"shards": tuple(shard or ()), "on": tuple(on or ())}
    federation = replace(
        file,
        model=replace(file.model, keras=keras or file.model.keras),
        rounds=replace(file.rounds, **{key: value for key, value in given.items() if value is not None}),
        devices=replace(file.devices, **{key: value for key, value in devices.items() if value}),
        evaluation=replace(file.evaluation, data=eval or file.evaluation.data),
    )
    options = federation.rounds_options(out, resume=resume, from_round=from_round)
    records = run_rounds(
        federation.model.bundle,
        options,
        lambda record, _: ctx.obj("rounds", record.round, options.rounds),
        say=ctx.obj.say,
    )
    return result_of(records, options, out)


def result_of(records: tuple[RoundRecord, ...], options: RoundsOptions, out: Path) -> CommandResult:
    """What a finished run prints."""
    document: dict[str, Any] = {
        "rounds": [r.to_json() for r in records],
        "state": read_state(out),
        "out": str(out),
        "bundle": str(out / RESULT),
    }
    if options.keras is not None:
        document["keras"] = str(out / KERAS)
    found = None if options.evaluation is None else read_evaluation(out)
    nodes = read_nodes(out)
    if nodes:
        document["nodes"] = nodes
    table, machines = _table(records, options), _machines(nodes)
    told = FoldBackTold(read_records(out)) if options.cloud else FoldBackTold(())
    document |= told.document()
    notes = [*_spent(records, options), *([] if found is None else [found.told()]), *told.notes()]
    if found is None:
        return CommandResult(document, [table, *machines, *told.tables()], notes, told.error())
    document["evaluation"] = {
        "metric": found.metric,
        "best": found.best,
        "values": {str(number): found.value(number) for number in found.scores},
    }
    columns = [*table.columns[:-1], found.metric, table.columns[-1]]
    rows = [[*row[:-1], f"{found.value(r.round):.4g}", row[-1]] for r, row in zip(records, table.rows, strict=True)]
    tables = [Table(table.title, columns, rows), *machines, *told.tables()]
    return CommandResult(document, tables, notes, told.error())


def _machines(nodes: Mapping[str, Mapping[str, object]]) -> list[Table]:
    """What devices said of their machines."""
    if not nodes:
        return []
    rows = []
    for node, facts in nodes.items():
        words = [str(facts.get(key, "")) for key in ("machine", "cores", "runtime")]
        ram = facts.get("ram-bytes")
        memory = f"{ram / 1e6:.0f}" if isinstance(ram, int) else ""
        flags = [
            "" if key not in facts else yes if facts[key] else no
            for key, yes, no in (("on-battery", "battery", "mains"), ("metered", "metered", "not metered"))
        ]
        rows.append((node, *words, memory, *flags))
    return [Table("devices", ("node", "machine", "cores", "runtime", "RAM, MB", "power", "network"), rows)]


def _spent(records: tuple[RoundRecord, ...], options: RoundsOptions) -> list[str]:
    """What the run has spent of its privacy budget."""
    last = records[-1].privacy
    if last is None:
        return []
    spent = f"Privacy spent: epsilon {last.epsilon:.4g} at delta {last.delta:g}, in {last.releases} releases."
    if len(records) < options.rounds:
        ended = f"The privacy budget is spent: another round would pass max-epsilon {options.privacy.max_epsilon:g}. "
        return [f"{ended}{spent}"]
    return [spent]


def _table(records: tuple[RoundRecord, ...], options: RoundsOptions) -> Table:
    private, waits = ["epsilon"] if records[-1].privacy else [], options.buffered is None
    counted = "devices" if waits else "updates"
    columns = ("round", "train loss", counted, "examples", "slowest device, s", *private, "refused", "file")
    rows = [
        (
            str(r.round),
            f"{r.train_loss:.4f}",
            f"{len(r.clients)} of {r.selected}" if waits else str(len(r.clients)),
            str(r.examples),
            f"{max(c.seconds for c in r.clients):.2f}",
            *([] if r.privacy is None else [f"{r.privacy.epsilon:.4g}"]),
            r.reasons or "none",
            r.file,
        )
        for r in records
    ]
    return Table(f"rounds of {options.strategy.name.value}", columns, rows)
