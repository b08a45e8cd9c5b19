"""The tables of `inspect --target`: counts by reason, then the operators themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeloop.files.targets.target import Target
from edgeloop.result import CommandResult, Table

SHOWN = 30


def target_answer(path: Path, target: Target, reports: Mapping[str, Mapping[str, Any]]) -> CommandResult:
    """The reports of target.look. A file's stands alone, a bundle's stand under `variants`."""
    document = {"file": str(path), target.key: reports.get("", {"variants": reports})}
    tables = [table for name, report in reports.items() for table in _tables(name, report)]
    return CommandResult(document, tables, [_sentence(name, target, report) for name, report in reports.items()])


def _tables(name: str, report: Mapping[str, Any]) -> list[Table]:
    refused = [op for op in report["ops"] if op["reason"] is not None]
    why = Counter((op["kind"], op["advice"]) for op in refused)
    found = [(op["op"], op["reason"] + ", uncertain" * op.get("uncertain", False)) for op in refused]
    alike = Counter(found)
    first = {key: str(op["index"]) for key, op in zip(reversed(found), reversed(refused), strict=True)}
    shown = list(alike.items())[:SHOWN]
    rest = f", the first {SHOWN} kinds; --json lists all" if len(alike) > SHOWN else ""
    what = f"{name}: " if name else ""
    tables = [
        Table(
            f"{what}operators the target does not run, by reason",
            ("reason", "operators", "what to do"),
            [(k, str(n), a) for (k, a), n in why.most_common()],
        ),
        Table(
            f"{what}operators the target does not run, by operator{rest}",
            ("operator", "count", "first index", "found"),
            [(op, str(count), first[op, reason], reason) for (op, reason), count in shown],
        ),
    ]
    return tables if refused else []


def _sentence(name: str, target: Target, report: Mapping[str, Any]) -> str:
    what = f"{name}: " if name else ""
    if target is Target.EDGETPU:
        score = report["held_out"]
        uncertain = (
            f" The prediction is uncertain for {report['uncertain']} operators: this is {report['kind']}, and it was "
            f"exact for {score['exact']} of {score['architectures']} such architectures that no rule had seen."
        )
        return (
            f"{what}{report['mapped']} of {report['total']} operators map to the Edge TPU. About "
            f"{report['on_chip_bytes'] / 1e3:,.1f} kB of their weights stay on the chip; "
            f"{report['off_chip_bytes'] / 1e3:,.1f} kB are streamed in each run."
            + uncertain
            * bool(report["uncertain"])
        )
    arena = f"an unknown amount ({report['arena_unknown']})"
    if report["arena_bytes"] is not None:
        arena = f"about {report['arena_bytes'] / 1e3:,.1f} kB"
    return (
        f"{what}TensorFlow Lite Micro supports {report['supported']} of {report['total']} operators. The model takes "
        f"{report['flash_bytes'] / 1e3:,.1f} kB of flash and {arena} of RAM for the arena, without the "
        "kernels' scratch buffers."
    )
