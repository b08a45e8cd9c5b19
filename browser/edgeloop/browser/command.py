"""`edgeloop browse`: the page of a bundle in your own browser."""

from __future__ import annotations

import os
import sys
import threading
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from edgeloop.browser.server import serve
from edgeloop.bundle import read_bundle

app = typer.Typer()


@app.callback()
def group() -> None:
    """Verbs of browser/."""


@app.command()
def browse(
    ctx: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="A bundle made by edgeloop convert.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free port.")] = 0,
    no_open: Annotated[bool, typer.Option("--no-open", help="Print the address and open nothing.")] = False,
) -> None:
    """Show a bundle in a page: its variants, run in the browser and compared with the source model. Ctrl-C ends it."""
    manifest = read_bundle(bundle).manifest
    with serve(bundle, port) as served:
        ctx.obj.say(f"{manifest.name}, release {manifest.version}: {served.url}  (Ctrl-C ends it)")
        if not no_open and _has_desktop():
            webbrowser.open(served.url)
        threading.Event().wait()


def _has_desktop() -> bool:
    """Without one, `webbrowser` would start a text browser in this terminal."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
