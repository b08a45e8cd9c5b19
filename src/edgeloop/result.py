"""What a verb hands back. The command line prints it; an import just reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeloop.errors import EdgeloopError


@dataclass(frozen=True)
class Table:
    """Rows for a person; every cell already text."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class CommandResult:
    """The result of one verb.

    Attributes:
        document: What `--json` prints: one JSON object.
        tables: What a person sees instead.
        notes: One-line remarks below the tables; they go to stderr with `--json`.
        error: What failed although there is an answer, e.g. one device of several. It ends the command after the
            answer was printed; with `--json` it is in the document, as `error`.
    """

    document: Mapping[str, Any]
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    error: EdgeloopError | None = None
