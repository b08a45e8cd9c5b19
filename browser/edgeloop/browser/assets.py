"""The built files of browser/web/, which the wheel carries."""

from __future__ import annotations

from pathlib import Path

from edgeloop.errors import MissingExtra

STATIC = Path(__file__).with_name("static")
PAGE = STATIC / "page" / "index.html"
TFJS_RUNNER = STATIC / "node" / "tfjs_runner.mjs"


def need_assets(path: Path) -> Path:
    """`path` as it is.

    Raises:
        MissingExtra: It was not built.
    """
    if not path.is_file():
        raise MissingExtra(
            f"the browser files are not built: {path} is missing",
            advice="Run: make setup (in a checkout), or install a wheel.",
        )
    return path
