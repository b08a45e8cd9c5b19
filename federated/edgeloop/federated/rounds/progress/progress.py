"""How a run goes, written after each round: `progress.html`, which a browser loads again by itself, and TensorBoard's
logs.

Both show the metric of the evaluation, the training loss, how many of the asked devices took part, the bytes that went
to the devices and came back, what the devices told of their data, and which replies were refused for what.
"""

from __future__ import annotations

import html
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from edgeloop.atomic import discard, write_file
from edgeloop.federated.rounds.buffered.options import RoundsMode
from edgeloop.federated.rounds.evaluation import EVALUATION, Evaluation, read_evaluation
from edgeloop.federated.rounds.progress.class_page import accuracies, by_class, class_part
from edgeloop.federated.rounds.progress.event_file import EventFile
from edgeloop.federated.rounds.records import BUDGET_SPENT, RUNNING, RoundRecord, read_rounds, read_state
from edgeloop.federated.rounds.watch import OnRound
from edgeloop.page import page, table

PAGE, LOGS = "progress.html", "tensorboard"  # in the folder of a run
AGAIN_S = 5  # between two loads of the page, while the run goes on
WIDTH, HEIGHT, MARGIN = 640, 140, 24  # of a plot, in pixels
Step: TypeAlias = tuple[RoundRecord, Mapping[str, float]]  # a round, and what is shown of it by name
REASONS = 200  # refused replies that the page lists, the latest ones


class Progress:
    """Of the run in `out`, which is to have that many rounds. What an earlier process of the run wrote is replaced."""

    def __init__(self, out: Path, rounds: int, mode: RoundsMode = RoundsMode.SYNCHRONOUS) -> None:
        self.out, self.rounds, self.mode = out, rounds, mode
        self._events: EventFile | None = None
        self._shown: tuple[Sequence[Step], Evaluation | None] = [], None

    def before(self, listener: OnRound) -> OnRound:
        """A listener that writes first, then tells `listener`."""

        def written(record: RoundRecord, weights: Mapping[str, np.ndarray]) -> None:
            self.write(record.round, sum(array.nbytes for array in weights.values()))
            listener(record, weights)

        return written

    def write(self, last: int, model_bytes: int) -> None:
        """Write all rounds up to `last`; weights have `model_bytes`.

        Raises:
            WriteError: The disk refuses.
        """
        records = [record for record in read_rounds(self.out) if record.round <= last]
        found = read_evaluation(self.out) if (self.out / EVALUATION).is_file() else None
        steps = [(record, numbers_of(record, found, model_bytes, self.mode)) for record in records]
        self._shown = steps, found
        self._write_page(RUNNING)
        if self._events is None:
            discard(self.out / LOGS)
            self._events, new = EventFile(self.out / LOGS, time.time()), steps
        else:
            new = steps[-1:]
        for record, numbers in new:
            moment = (self.out / record.file).stat().st_mtime
            self._events.add(record.round, moment, {**numbers, **by_class(record.statistics)})

    def end(self) -> None:
        """Say on the page how the run ended: a browser loads it no more.

        Raises:
            WriteError: The disk refuses.
        """
        self._write_page(read_state(self.out))

    def _write_page(self, state: str) -> None:
        write_file(self.out / PAGE, progress_page(self.out.name, *self._shown, self.rounds, state).encode())


def numbers_of(record: RoundRecord, found: Evaluation | None, model_bytes: int, mode: RoundsMode) -> dict[str, float]:
    """What TensorBoard shows of a round, by name. Updates of a buffered round are also of devices asked before it."""
    count = float(len(record.clients))
    synchronous = mode is RoundsMode.SYNCHRONOUS
    came = sum(client.upload_bytes or model_bytes for client in record.clients)
    numbers = {
        "train loss": record.train_loss,
        **({"participation": count / max(1, record.selected)} if synchronous else {"updates": count}),
        "refused replies": float(len(record.refused)),
        "MB to devices": record.selected * model_bytes / 1e6,
        "MB from devices": came / 1e6,
        "slowest device, s": max((client.seconds for client in record.clients), default=0.0),
        **accuracies(record.statistics),
    }
    if found is not None and record.round in found.scores:
        numbers = {found.metric: found.value(record.round), **numbers}
    return numbers


def progress_page(name: str, steps: Sequence[Step], found: Evaluation | None, rounds: int, state: str = RUNNING) -> str:
    """The page of a run that is to have that many rounds."""
    done, spent = len(steps) >= rounds, state == BUDGET_SPENT
    again = "" if done or spent else f"<meta http-equiv=refresh content={AGAIN_S}>"
    told = "The run is finished." if done else "The page loads again by itself while the run goes on."
    if spent and not done:
        told = "The run has ended: its privacy budget is spent."
    columns = list(dict.fromkeys(key for _, numbers in steps for key in numbers))
    parts = [
        f"<h1>Rounds of {html.escape(name)}</h1>",
        f"{again}<p>{len(steps)} of {rounds} rounds. {told} TensorBoard shows the same: "
        f"<code>tensorboard --logdir {LOGS}</code>, in the folder of this page.</p>",
        f"<p>{html.escape(found.told())}</p>" if found and len(found.scores) > 1 else "",
        *(plot(key, [(r.round, numbers[key]) for r, numbers in steps if key in numbers]) for key in columns),
        table(
            ["round", *columns, "refused for"],
            [[r.round, *(f"{n[key]:.4g}" if key in n else "" for key in columns), r.reasons] for r, n in steps],
        ),
        class_part([record for record, _ in steps]),
        refused_by_node([record for record, _ in steps]),
    ]
    return page(f"Rounds of {name}", parts)


def refused_by_node(records: Sequence[RoundRecord]) -> str:
    """Which node was refused how often and for what, and the latest refusals in words."""
    refused = [(record.round, reply) for record in records for reply in record.refused]
    if not refused:
        return ""
    counts = Counter((reply.node, reply.reason) for _, reply in refused)
    rows = [[node, reason, count] for (node, reason), count in counts.most_common(REASONS)]
    latest = [[number, reply.node, reply.reason, reply.detail] for number, reply in refused[: -REASONS - 1 : -1]]
    return "\n".join(
        [
            "<h2>Refused replies by node</h2>",
            table(["node", "reason", "replies"], rows),
            "<h2>The latest refused replies</h2>",
            table(["round", "node", "reason", "detail"], latest),
        ]
    )


def plot(name: str, points: Sequence[tuple[int, float]]) -> str:
    """A line over the rounds as inline SVG; empty below two points."""
    if len(points) < 2:
        return ""
    low, high = min(value for _, value in points), max(value for _, value in points)
    first, last = points[0][0], points[-1][0]
    placed = [
        (
            MARGIN + (number - first) / (last - first) * (WIDTH - 2 * MARGIN),
            HEIGHT - MARGIN - (value - low) / ((high - low) or 1.0) * (HEIGHT - 2 * MARGIN),
        )
        for number, value in points
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    text = "font-size=12 fill=#666"
    marks = [
        f"<text x={MARGIN} y={MARGIN - 8} {text}>{high:.4g}</text>",
        f"<text x={MARGIN} y={HEIGHT - 6} {text}>{low:.4g}; round {first}</text>",
        f"<text x={WIDTH - MARGIN} y={HEIGHT - 6} {text} text-anchor=end>round {last}</text>",
    ]
    drawn = f"<polyline fill=none stroke=#06c stroke-width=2 points='{line}'/>"
    svg = f"<svg viewBox='0 0 {WIDTH} {HEIGHT}'>{drawn}{''.join(marks)}</svg>"
    return f"<figure><figcaption>{html.escape(name)}</figcaption><div class=scroll>{svg}</div></figure>"
