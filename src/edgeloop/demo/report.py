"""What the loop measured in, one HTML file out that needs nothing beside it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeloop.atomic import write_file
from edgeloop.edge.measure.plots import figure, legend_beside
from edgeloop.page import page, table, titled
from edgeloop.result import Table

MARKERS = "osD^v<>PX*"  # forms of one size and accuracy lie on each other


def write_report(path: Path, document: Mapping[str, Any], measured: Sequence[Table]) -> None:
    """Write `report.html` for a document as `edgeloop demo --json` prints it, with the tables of what was measured.

    Raises:
        MissingExtra: Matplotlib is not installed.
        WriteError: The file cannot be written.
    """
    rounds = document["federated"]["rounds"]
    parts = [
        f"<h1>edgeloop: once around the loop on {html.escape(document['data'])}</h1>",
        figure(
            lambda axes: _rounds_plot(axes, document),
            "Accuracy on the test images: the cloud alone, each round, and the ceiling.",
        ),
        figure(
            lambda axes: _size_plot(axes, document),
            "Each variant's size against its accuracy. Smaller and higher is better.",
        ),
        "<h2>Variants</h2>",
        table(
            ("variant", "format", "bytes", "max abs", "SNR dB", "top-1", "accuracy", "proved on"),
            [_variant_row(variant) for variant in document["variants"]],
        ),
        "<h2>Latency in the device environment</h2>",
        *map(titled, measured),
        "<h2>Rounds</h2>",
        table(
            ("round", "replies", "examples", "train loss", "accuracy"),
            [
                (r["round"], r["replies"], r["examples"], f"{r['train_loss']:.4f}", f"{r['accuracy']:.1%}")
                for r in rounds
            ],
        ),
        "<h2>Seconds</h2>",
        table(("step", "s"), list(document["seconds"].items())),
    ]
    write_file(path, page("edgeloop report", parts).encode())


def _rounds_plot(axes: Any, document: Mapping[str, Any]) -> None:
    trained, federated = document["train"], document["federated"]
    points = [("cloud alone", trained["before"])]
    points += [(f"round {r['round']}", r["accuracy"]) for r in federated["rounds"]]
    points += [("cloud goes on", federated["after"])]
    axes.axhline(100 * trained["central"], linestyle="--", color="#888", label="all data in one place")
    axes.plot([name for name, _ in points], [100 * value for _, value in points], marker="o", label="federated")
    axes.set_ylabel("accuracy, %")
    axes.legend()


def _size_plot(axes: Any, document: Mapping[str, Any]) -> None:
    for k, variant in enumerate(document["variants"]):
        point = variant["bytes"] / 1e3, 100 * variant["accuracy"]
        axes.scatter(*point, s=70, alpha=0.8, marker=MARKERS[k % len(MARKERS)], label=variant["id"])
    legend_beside(axes)
    accuracies = [100 * variant["accuracy"] for variant in document["variants"]]
    room = max(1.0, max(accuracies) - min(accuracies))  # points: equal forms must not blow up to a zoomed-in line
    axes.set_ylim(min(accuracies) - room, max(accuracies) + room)
    axes.set_xlim(0, 1.1 * max(variant["bytes"] for variant in document["variants"]) / 1e3)
    axes.set_xlabel("size, kB")
    axes.set_ylabel("accuracy, %")


def _variant_row(variant: Mapping[str, Any]) -> tuple[Any, ...]:
    parity = variant["parity"]
    snr = "exact" if parity["snr_db"] is None else f"{parity['snr_db']:.1f}"
    return (
        variant["id"],
        variant["format"],
        f"{variant['bytes']:,}",
        f"{parity['max_abs']:.1e}",
        snr,
        *("-" if share is None else f"{share:.1%}" for share in (parity["top1_agreement"], variant["accuracy"])),
        ", ".join(variant["runtimes"]),
    )
