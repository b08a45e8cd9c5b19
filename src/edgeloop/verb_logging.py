"""The option `-v`, and what it shows: what is logged under `edgeloop.*`."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import IO, Any

import typer

from edgeloop.verb_command import EVERY_VERB

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
VERBOSE: Any = typer.Option(
    "-v", "--verbose", count=True, show_default=False, rich_help_panel=EVERY_VERB, help="Log to stderr; -vv logs more."
)


@contextlib.contextmanager
def logged(verbosity: int, stream: IO[str]) -> Iterator[None]:
    """Show what is logged under `edgeloop.*`: 0 warnings, 1 what is done, 2 everything."""
    logger, handler = logging.getLogger("edgeloop"), logging.StreamHandler(stream)
    if logger.handlers:  # `edgeloop -v VERB`, or a program that listens itself
        yield
        return
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    logger.setLevel({0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
