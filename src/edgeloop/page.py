"""Parts of an HTML page that needs nothing beside it: its style, its frame, tables."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from edgeloop.result import Table

STYLE = """
:root { color-scheme: light dark; --line: #8884; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
figure { margin: 1rem 0; background: #fff; border-radius: 8px; padding: .5rem; } svg { width: 100%; height: auto; }
figcaption { color: #333; padding: 0 1rem .5rem; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; } .best { font-weight: 700; }
"""


def page(title: str, parts: Sequence[str]) -> str:
    """A whole document of HTML parts; empty ones are left out."""
    phone = "<meta name=viewport content='width=device-width, initial-scale=1'>"  # else a phone shows a desktop's width
    head = f"<!doctype html><html lang=en><meta charset=utf-8>{phone}<title>{html.escape(title)}</title>"
    return "\n".join([f"{head}<style>{STYLE}</style>", *(part for part in parts if part), "</html>"]) + "\n"


def titled(shown: Table) -> str:
    """What a person sees in a terminal, as HTML."""
    return f"<p>{html.escape(shown.title)}</p>{table(shown.columns, shown.rows)}"


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], best: int | None = None) -> str:
    """Rows of anything as text; `best`: the row to stand out."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "".join(
        f"<tr{' class=best' if k == best else ''}>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row)}</tr>"
        for k, row in enumerate(rows)
    )
    return f"<div class=scroll><table><tr>{head}</tr>{body}</table></div>"
