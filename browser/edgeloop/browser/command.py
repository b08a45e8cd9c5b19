"""The verb `browse`: the page of a bundle in your own browser."""

from __future__ import annotations

import contextlib
import html
import os
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

import typer

from edgeloop.browser.access import TOKEN
from edgeloop.browser.export import export as write_site
from edgeloop.browser.host_files import README
from edgeloop.browser.server import serve
from edgeloop.browser.share import PLAIN_HTTP, terminal_code
from edgeloop.bundle import read_bundle
from edgeloop.errors import OptionsError
from edgeloop.http.base_server import LOOPBACK
from edgeloop.leftovers import lasting_temporary_folder
from edgeloop.result import CommandResult


def browse(
    ctx: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="Browse this bundle.")],
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="PORT", help="Serve the page on this port; 0 takes any free one.")
    ] = 0,
    host: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="Listen on this address: a phone in the same network can open the page."),
    ] = LOOPBACK,
    certificate: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Serve with TLS and this PEM certificate, which phones need for the camera."),
    ] = None,
    certificate_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Read the certificate's private key from this PEM file (needs --certificate)."
        ),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the page and the bundle as a static site to this folder, and end."),
    ] = None,
    no_open: Annotated[
        bool, typer.Option("--no-open", help="Print the page's address instead of opening the page.")
    ] = False,
    federate: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Let tabs of the page take part in the federation of this server: HOST:PORT or https://HOST:PORT.",
        ),
    ] = None,
    key: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Show the server of --federate this EC key (ssh-keygen -t ecdsa), which its owner registered; each "
            "key lets one tab take part.",
        ),
    ] = None,
    tabs: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=16,
            metavar="N",
            help="Let up to N tabs take part at the same time, where the server of --federate takes nodes without "
            "keys.",
        ),
    ] = None,
    root_certificate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default="those of the system",
            help="Trust a server of --federate whose certificate leads to this one (PEM).",
        ),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            help="Use plain HTTP for --federate: whoever is on the way can read and change the weights.",
        ),
    ] = False,
) -> CommandResult | None:
    """Browse a bundle: a page that runs each variant and compares it with the original model.

    The page is served until Ctrl-C.
    """
    link = {"key": tuple(key or ()), "tabs": tabs, "root-certificate": root_certificate, "insecure": insecure}
    if export is not None:
        own = {"port": port, "host": host != LOOPBACK, "certificate": certificate, "certificate-key": certificate_key}
        serving = {**own, "no-open": no_open, "federate": federate, **link}
        _refuse(serving, "with --export, which serves nothing", advice="Leave one of the two out.")
        return _export(bundle, export)
    if federate is None:
        _refuse(link, "without --federate", advice="Pass --federate URL, or leave it out.")
    manifest, stderr = read_bundle(bundle).manifest, ctx.obj.stderr
    options = {} if federate is None else {"federate": federate, **link}
    with serve(bundle, port, host=host, certificate=certificate, key=certificate_key, options=options) as served:
        ctx.obj.say(f"{manifest.name}, release {manifest.version}: {served.url} (stop with Ctrl-C)")
        if served.shared:
            print(terminal_code(served.url, stderr.isatty()), file=stderr, flush=True)  # `say` would take its colours
        if not served.secure_context:
            ctx.obj.say(PLAIN_HTTP)
        with contextlib.ExitStack() as stack:
            if not no_open and _has_desktop():
                address = stack.enter_context(_without_token(served.url))
                with lasting_temporary_folder():
                    webbrowser.open(address)
            threading.Event().wait()
    return None


def _refuse(options: Mapping[str, object], why: str, *, advice: str) -> None:
    """Raises OptionsError where one of them was given."""
    if given := next((name for name, value in options.items() if value), None):
        raise OptionsError(f"--{given} is given {why}", advice=advice)


@contextlib.contextmanager
def _without_token(url: str) -> Iterator[str]:
    """An address that leads to `url`, for the browser's command line, which every user of this machine can read: a
    file that this user alone can read sends the browser on."""
    if f"?{TOKEN}=" not in url:
        yield url
        return
    with tempfile.NamedTemporaryFile("w", suffix=".html") as file:  # its mode is 0600
        file.write(f'<!doctype html><meta http-equiv="refresh" content="0; url={html.escape(url)}">')
        file.flush()
        yield Path(file.name).as_uri()


def _export(bundle: Path, folder: Path) -> CommandResult:
    site = write_site(bundle, folder)
    document = {"site": str(folder), "page_bytes": site.page_bytes, "bundle_bytes": site.bundle_bytes}
    sizes = f"{site.page_bytes / 1e6:.1f} MB of the page and {site.bundle_bytes / 1e6:.1f} MB of the bundle"
    return CommandResult(
        document, notes=[f"{folder} is a static site: {sizes}. {folder / README} says how to serve it."]
    )


def _has_desktop() -> bool:
    """Without one, `webbrowser` would start a text browser in this terminal."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
