"""The verb `browse`: the page of a bundle in your own browser."""

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
from edgeloop.leftovers import lasting_temporary_folder


def browse(
    ctx: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="Browse this bundle.")],
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="PORT", help="Serve the page on this port; 0 takes any free one.")
    ] = 0,
    no_open: Annotated[
        bool, typer.Option("--no-open", help="Print the page's address instead of opening the page.")
    ] = False,
) -> None:
    """Browse a bundle: a page that runs each variant and compares it with the original model.

    The page is served until Ctrl-C.
    """
    manifest = read_bundle(bundle).manifest
    with serve(bundle, port) as served:
        ctx.obj.say(f"{manifest.name}, release {manifest.version}: {served.url} (stop with Ctrl-C)")
        if not no_open and _has_desktop():
            with lasting_temporary_folder():
                webbrowser.open(served.url)
        threading.Event().wait()


def _has_desktop() -> bool:
    """Without one, `webbrowser` would start a text browser in this terminal."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
