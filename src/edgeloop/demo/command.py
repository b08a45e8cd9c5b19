"""The verb `demo`."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

import typer

from edgeloop.browser.server import serve as serve_bundle
from edgeloop.browser.server import serve_files
from edgeloop.convert.present import variant_table
from edgeloop.demo.loop import SEED, DemoOptions, DemoResult, run_demo
from edgeloop.demo.report import accuracy_table
from edgeloop.result import CommandResult


def demo(
    ctx: typer.Context,
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="DIR", help="Write models, bundles and the report to this folder.")
    ] = Path("edgeloop-demo"),
    data: Annotated[
        str, typer.Option(metavar="digits|DIR", help="Use these images: scikit-learn's, or MNIST-style .idx.gz files.")
    ] = "digits",
    rounds: Annotated[int, typer.Option(min=1, metavar="N", help="Run N rounds of federated averaging.")] = 3,
    serve: Annotated[bool, typer.Option("--serve", help="Serve the page at the end, until Ctrl-C.")] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="PORT", help="Serve on this port; 0 takes any free one.")
    ] = 0,
    seed: Annotated[
        int, typer.Option(min=0, metavar="N", help="Split the data, shuffle and initialize weights with this seed.")
    ] = SEED,
) -> CommandResult | None:
    """Run the whole loop once on real data: train, convert, measure, deploy, federate, fine-tune, show in a page."""
    if serve:
        with serve_files({}, port):  # a port in use is an error now, not after minutes of work
            pass
    done = run_demo(DemoOptions(out=out, data=data, rounds=rounds, seed=seed), ctx.obj, ctx.obj.say)
    answer = _answer(out, done)
    if not serve:
        return answer
    ctx.obj.show(answer)  # now: what follows ends with Ctrl-C
    with serve_bundle(done.bundle.path, port) as served:
        ctx.obj.say(f"  The page is at {served.url} (stop with Ctrl-C)")
        threading.Event().wait()
    return None


def _answer(out: Path, done: DemoResult) -> CommandResult:
    document = done.document
    federated, trained = document["federated"], document["train"]
    closed = (federated["after"] - trained["before"]) / max(trained["central"] - trained["before"], 1e-9)
    notes = [
        f"Federated training closed {closed:.0%} of the gap to training on all data. No data left a device.",
        f"The demo took {document['seconds']['total']:.0f} s. Open {out / 'report.html'} for the report, or run: "
        f"edgeloop browse {document['bundle']}",
        *done.notes,
    ]
    variants = variant_table(f"release 2: {document['bundle']}", document["variants"])
    return CommandResult(document, [variants, done.tables[0], accuracy_table(document)], notes)
