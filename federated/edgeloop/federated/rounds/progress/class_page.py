"""What devices told of their data, as a part of the page of a run and as numbers for TensorBoard."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from edgeloop.federated.rounds.records import RoundRecord
from edgeloop.federated.rounds.statistics.round_statistics import ClassCounts, RoundStatistics, Sums
from edgeloop.page import table

SHOWN = 50  # classes, and devices, at most
CELL, LEFT, TOP = 14, 150, 18  # of the picture, in pixels; a node has up to 20 digits


def accuracies(told: RoundStatistics | None) -> dict[str, float]:
    """Of the weights that the round began with, on the data of its devices: all labels together."""
    if told is None:
        return {}
    pairs = {
        "accuracy on devices": (told.correct, told.examples),
        "personal accuracy on devices": (told.personal_correct, told.personal_examples),
    }
    return {
        key: share(sum(right), sum(held))
        for key, (right, held) in pairs.items()
        if right and sum(held) > (told.noise_stddev or 0.0) * math.sqrt(len(held))
    }


def by_class(told: RoundStatistics | None) -> dict[str, float]:
    """Of each class its labels, and the share of them that is recognized; TensorBoard groups by what is before /."""
    if told is None:
        return {}
    found = {f"labels of class/{k}": float(count) for k, count in enumerate(told.examples[:SHOWN])}
    return {**found, **{f"recall of class/{k}": value for k, value in _recall(told.correct, told.examples, told)}}


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
    if told.noise_stddev is not None and told.clipping_norm is not None:
        parts.append(
            f"<p>The numbers are sums with noise: all counts of a device were scaled down to an L2 norm of "
            f"{told.clipping_norm:.4g}, and the noise on each sum has a standard deviation of {told.noise_stddev:.4g}. "
            "Of a class whose sum is not above it, no share is shown.</p>"
        )
    if told.examples:
        parts += [_table(told), _picture(told.clients)]
    if told.refused:
        parts.append(table(["node", "refused statistic"], [[one.node, one.detail] for one in told.refused[:SHOWN]]))
    return "\n".join(parts)


def share(right: float, held: float) -> float:
    """Sums with noise may leave 0..1."""
    return min(1.0, max(0.0, right / held))


def _recall(correct: Sums, examples: Sums, told: RoundStatistics) -> list[tuple[int, float]]:
    """Of classes whose labels are more than their noise."""
    pairs = enumerate(zip(correct[:SHOWN], examples[:SHOWN], strict=False))
    return [(k, share(right, held)) for k, (right, held) in pairs if held > (told.noise_stddev or 0.0)]


def _table(told: RoundStatistics) -> str:
    shares = {
        "recognized": dict(_recall(told.correct, told.examples, told)),
        "recognized with personal layers": dict(_recall(told.personal_correct, told.personal_examples, told)),
    }
    columns = [key for key, found in shares.items() if found]
    rows = [
        [
            k,
            count if told.noise_stddev is None else f"{count:.4g}",
            *(f"{shares[key][k]:.1%}" if k in shares[key] else "" for key in columns),
        ]
        for k, count in enumerate(told.examples[:SHOWN])
    ]
    return table(["class", "labels", *columns], rows)


def _labels(clients: Sequence[ClassCounts]) -> list[str]:
    """Devices that join have no number of their own: where a number repeats, the node tells them apart."""
    counted = Counter(client.device for client in clients)
    return [f"device {one.device}" if counted[one.device] == 1 else f"node {one.node}" for one in clients]


def _picture(clients: Sequence[ClassCounts]) -> str:
    """A row for each device, a square for each class: the darker, the more labels of it the device holds."""
    shown = clients[:SHOWN]
    if not shown:
        return ""
    classes = min(SHOWN, len(shown[0].examples))
    most, labels = max(max(client.examples) for client in shown) or 1, _labels(clients)
    squares = [
        f"<rect x={LEFT + k * CELL} y={TOP + row * CELL} width={CELL - 1} height={CELL - 1} fill=#06c "
        f"fill-opacity={count / most:.3f}><title>{labels[row]}, class {k}: {count}</title></rect>"
        for row, client in enumerate(shown)
        for k, count in enumerate(client.examples[:classes])
    ]
    text = "font-size=11 fill=#666"
    names = [f"<text x=0 y={TOP + (row + 0.8) * CELL:.0f} {text}>{labels[row]}</text>" for row in range(len(shown))]
    numbers = [f"<text x={LEFT + k * CELL} y={TOP - 5} {text}>{k}</text>" for k in range(0, classes, 5)]
    width, height = max(640, LEFT + classes * CELL), TOP + len(shown) * CELL
    svg = f"<svg viewBox='0 0 {width} {height}'>{''.join([*names, *numbers, *squares])}</svg>"
    caption = f"labels by class and device; full blue: {most}"
    return f"<figure><figcaption>{caption}</figcaption><div class=scroll>{svg}</div></figure>"
