"""Heavy packages, imported where they are used and named when they are missing."""

from __future__ import annotations

import importlib
from typing import Any

from edgeloop.errors import MissingExtra


def need(module: str, extra: str) -> Any:
    """Import `module`, or say which extra of edgeloop brings it.

    Raises:
        MissingExtra: The package is not installed. An installed package that fails while it
            loads (a broken dependency, a missing shared library) is named with its own reason.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as e:
        missing = (e.name or module).split(".")[0]
        raise MissingExtra(f"{missing!r} is not installed", advice=f"Run: pip install 'edgeloop[{extra}]'") from e
    except ImportError as e:
        raise MissingExtra(
            f"{module!r} is installed but does not load: {e}",
            advice=f"Run: pip install --force-reinstall 'edgeloop[{extra}]'",
        ) from e
