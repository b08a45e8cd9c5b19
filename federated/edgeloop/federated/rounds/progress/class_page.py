"""What devices told of their data, as a part of the page of a run and as numbers for TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence

from edgeloop.federated.rounds.records import RoundRecord
from edgeloop.federated.rounds.statistics.round_statistics import ClassCounts, Counts, RoundStatistics
from edgeloop.page import table

SHOWN = 50  # classes, and devices, at most
CELL, LEFT, TOP = 14, 90, 18  # of the picture, in pixels


def accuracies(told: RoundStatistics | None) -> dict[str, float]:
    """Of the weights that the round began with, on the data of its devices: all labels together."""
    if told is None:
        return {}
    pairs = {
        "accuracy on devices": (told.correct, told.examples),
        "personal accuracy on devices": (told.personal_correct, told.personal_examples),
    }
    return {key: sum(right) / sum(held) for key, (right, held) in pairs.items() if right and sum(held)}


def by_class(told: RoundStatistics | None) -> dict[str, float]:
    """Of each class its labels, and the share of them that is recognized; TensorBoard groups by what is before /."""
    if told is None:
        return {}
    found = {f"labels of class/{k}": float(count) for k, count in enumerate(told.examples[:SHOWN])}
    return {**found, **{f"recall of class/{k}": value for k, value in _recall(told.correct, told.examples)}}


def class_part(records: Sequence[RoundRecord]) -> str:
    """Of the last round that devices told anything in; empty where there is none."""
    record = next((record for record in reversed(records) if record.statistics), None)
    if record is None or record.statistics is None:
        return ""
    told = record.statistics
    parts = [
        f"<h2>Data of the devices in round {record.round}</h2>",
        f"<p>{told.devices} of {len(record.clients)} devices told of their data. What is recognized was counted with "
        "the weights that the devices were sent in this round.</p>",
    ]
    if told.label_mean is not None and told.label_variance is not None:
        parts.append(f"<p>Labels: mean {told.label_mean:.4g}, standard deviation {told.label_variance**0.5:.4g}.</p>")
    if told.examples:
        parts += [_table(told), _picture(told.clients)]
    if told.refused:
        parts.append(table(["node", "refused statistic"], [[one.node, one.detail] for one in told.refused[:SHOWN]]))
    return "\n".join(parts)


def _recall(correct: Counts, examples: Counts) -> list[tuple[int, float]]:
    pairs = enumerate(zip(correct[:SHOWN], examples[:SHOWN], strict=False))
    return [(k, right / held) for k, (right, held) in pairs if held]


def _table(told: RoundStatistics) -> str:
    shares = {
        "recognized": dict(_recall(told.correct, told.examples)),
        "recognized with personal layers": dict(_recall(told.personal_correct, told.personal_examples)),
    }
    columns = [key for key, found in shares.items() if found]
    rows = [
        [k, count, *(f"{shares[key][k]:.1%}" if k in shares[key] else "" for key in columns)]
        for k, count in enumerate(told.examples[:SHOWN])
    ]
    return table(["class", "labels", *columns], rows)


def _picture(clients: Sequence[ClassCounts]) -> str:
    """A row for each device, a square for each class: the darker, the more labels of it the device holds."""
    shown = clients[:SHOWN]
    if not shown:
        return ""
    classes = min(SHOWN, len(shown[0].examples))
    most = max(max(client.examples) for client in shown) or 1
    squares = [
        f"<rect x={LEFT + k * CELL} y={TOP + row * CELL} width={CELL - 1} height={CELL - 1} fill=#06c "
        f"fill-opacity={count / most:.3f}><title>device {client.device}, class {k}: {count}</title></rect>"
        for row, client in enumerate(shown)
        for k, count in enumerate(client.examples[:classes])
    ]
    text = "font-size=11 fill=#666"
    names = [
        f"<text x=0 y={TOP + (row + 0.8) * CELL:.0f} {text}>device {c.device}</text>" for row, c in enumerate(shown)
    ]
    numbers = [f"<text x={LEFT + k * CELL} y={TOP - 5} {text}>{k}</text>" for k in range(0, classes, 5)]
    width, height = max(640, LEFT + classes * CELL), TOP + len(shown) * CELL
    svg = f"<svg viewBox='0 0 {width} {height}'>{''.join([*names, *numbers, *squares])}</svg>"
    caption = f"labels by class and device; full blue: {most}"
    return f"<figure><figcaption>{caption}</figcaption><div class=scroll>{svg}</div></figure>"
