"""What the loop measured in, one HTML file out that needs nothing beside it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeloop.atomic import write_file
from edgeloop.convert.present import variant_table
from edgeloop.page import bundle_line, link, page, table, titled, written
from edgeloop.plots import GREY, MARKERS, figure, lacking, legend_beside, limits, moved_right, side_by_side
from edgeloop.result import Table


def write_report(path: Path, document: Mapping[str, Any], measured: Sequence[Table]) -> list[str]:
    """Write `report.html` for a document as `edgeloop demo --json` prints it, with the tables of what was measured.

    Returns:
        What a user should know of the page, one sentence each: without Matplotlib it has no plots.

    Raises:
        WriteError: The file cannot be written.
    """
    rounds = document["federated"]["rounds"]
    notes = list(filter(None, [lacking()]))
    parts = [
        f"<h1>edgeloop demo: the whole loop on {html.escape(document['data'])}</h1>",
        f"<p>{html.escape(written())} Seed {document['seed']}.</p>",
        bundle_line(Path(document["bundle"]), path),
        f"<p>All numbers: {link(path.with_name('demo.json'), 'demo.json', path)}.</p>",
        *(f"<p>{html.escape(note)}</p>" for note in notes),
        titled(accuracy_table(document)),
        figure(
            lambda axes: _rounds_plot(axes, document),
            "Accuracy on the test images after each step. The dashed line is a model trained on all data.",
        ),
        figure(
            lambda axes: _size_plot(axes, document),
            "Size and accuracy of each variant. Further left is smaller, further up is more accurate. Markers that "
            "would cover each other stand side by side.",
        ),
        "<h2>Variants</h2>",
        titled(variant_table(f"release 2: {document['bundle']}", document["variants"])),
        "<h2>Latency and memory of release 1 in the device environment</h2>",
        *map(titled, measured),
        "<h2>Rounds of federated averaging</h2>",
        table(
            ("round", "devices", "examples", "train loss", "accuracy"),
            [
                (r["round"], r["replies"], r["examples"], f"{r['train_loss']:.4f}", f"{r['accuracy']:.1%}")
                for r in rounds
            ],
        ),
        "<h2>Duration of each step</h2>",
        table(("step", "seconds"), list(document["seconds"].items())),
    ]
    write_file(path, page("edgeloop demo", parts).encode())
    return notes


def accuracy_table(document: Mapping[str, Any]) -> Table:
    """Accuracy along the loop, a column a step."""
    steps = [*_steps(document), ("trained on all data", document["train"]["central"])]
    return Table("accuracy on the test images", [name for name, _ in steps], [[f"{value:.1%}" for _, value in steps]])


def _steps(document: Mapping[str, Any]) -> list[tuple[str, float]]:
    federated = document["federated"]
    rounds = [(f"round {r['round']}", r["accuracy"]) for r in federated["rounds"]]
    return [("trained in the cloud", document["train"]["before"]), *rounds, ("fine-tuned", federated["after"])]


def _rounds_plot(axes: Any, document: Mapping[str, Any]) -> None:
    names, values = zip(*_steps(document), strict=True)
    axes.axhline(100 * document["train"]["central"], linestyle="--", color=GREY, label="trained on all data")
    axes.plot(names, [100 * value for value in values], marker="o", label="federated")
    axes.set_ylabel("accuracy, %")
    axes.legend()


def _size_plot(axes: Any, document: Mapping[str, Any]) -> None:
    points = [(variant["bytes"] / 1e3, 100 * variant["accuracy"]) for variant in document["variants"]]
    for k, (variant, point, right) in enumerate(zip(document["variants"], points, side_by_side(points), strict=True)):
        style = {"s": 70, "alpha": 0.8, "marker": MARKERS[k % len(MARKERS)], "label": variant["id"]}
        axes.scatter(*point, transform=moved_right(axes, right), **style)
    legend_beside(axes)
    axes.set_ylim(*limits([100 * variant["accuracy"] for variant in document["variants"]]))
    axes.set_xlim(0, 1.1 * max(variant["bytes"] for variant in document["variants"]) / 1e3)
    axes.set_xlabel("size, kB")
    axes.set_ylabel("accuracy, %")
