"""A page in headless Chromium, for programs.

Chromium depends on a pipe that Playwright's driver holds, and the driver on a pipe that this process holds: when one of
them is killed, the others end. Playwright's synchronous calls are bound to one thread and end badly when an
exception strikes inside them, so it is the agent (agent.py) that calls this, in a process of its own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop.errors import DeviceError, MissingExtra
from edgeloop.extras import need

if TYPE_CHECKING:
    from playwright.sync_api import Page

NAMED = "EDGELOOP_CHROMIUM"
PROGRAMS = ("/usr/bin/chromium", "chromium", "chromium-browser", "google-chrome")
FLAGS = (  # nothing but the page: no updates, no sync, no requests of the browser's own
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SOFTWARE_GPU = (  # Chromium's own GPU in software, for WebGL and WebGPU: right, and slow
    "--enable-unsafe-swiftshader",
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
)


def find_chromium() -> Path:
    """$EDGELOOP_CHROMIUM, else the system's, else what `playwright install` brought.

    Raises:
        MissingExtra: There is none, or the one named does not exist.
    """
    named = os.environ.get(NAMED)
    if named is not None:
        if not os.access(named, os.X_OK):
            raise MissingExtra(
                f"{NAMED} is {named!r}, which is not a program", advice="Set it to Chromium's path, or unset it."
            )
        return Path(named)
    for program in PROGRAMS:
        found = shutil.which(program)
        if found:
            return Path(found)
    downloaded = _downloaded()
    if downloaded:
        return downloaded
    raise MissingExtra(
        "Chromium is not installed",
        advice=f"Run: apt-get install chromium (as root), or playwright install chromium; or set {NAMED} to its path.",
    )


def _downloaded() -> Path | None:
    """The newest Chromium in Playwright's own folder."""
    folder = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path.home() / ".cache" / "ms-playwright")
    found = sorted(folder.glob("chromium-*/chrome-linux*/chrome"), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None


@contextlib.contextmanager
def open_page(url: str, program: Path, timeout_s: float = 60.0, more_flags: Sequence[str] = ()) -> Iterator[Page]:
    """A new page of an empty profile showing `url`; both end with the block.

    Raises:
        MissingExtra: Playwright is not installed.
        DeviceError: Chromium does not start, or the page does not open within `timeout_s`.
    """
    playwright = need("playwright.sync_api", extra="browser")
    flags = [*FLAGS, *more_flags, *(["--no-sandbox"] if os.geteuid() == 0 else [])]  # Chromium has no sandbox for root
    with playwright.sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(executable_path=str(program), args=flags, timeout=timeout_s * 1e3)
        except playwright.Error as e:
            raise DeviceError(
                f"{program} does not start: {first_line(e)}", advice=f"Set {NAMED} to another Chromium."
            ) from e
        try:
            page = browser.new_page()
            page.set_default_timeout(timeout_s * 1e3)
            page.goto(url)
            yield page
        except playwright.TimeoutError as e:
            raise DeviceError(
                f"{url} did not open within {timeout_s:g} s: {first_line(e)}",
                advice=f"Try again, or set {NAMED} to another Chromium.",
            ) from e
        finally:
            browser.close()


def first_line(error: Exception) -> str:
    """Playwright's message without its call log."""
    return str(error).strip().splitlines()[0].removeprefix("Page.evaluate: ").removeprefix("Error: ").rstrip(".")
