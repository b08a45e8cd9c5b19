"""Parts of an HTML page that needs nothing beside it: its style, its frame, tables."""

from __future__ import annotations

import html
import os
import platform
import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from edgeloop.result import Table

LONG = 40  # letters of a cell, above which it may take several lines
STYLE = """
:root { color-scheme: light dark; --line: #8884; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2, p, figcaption { overflow-wrap: anywhere; } h1 { line-height: 1.2; }
figure { margin: 1rem 0; background: #fff; border-radius: 8px; padding: .5rem; }
figcaption { color: #333; padding: 0 .5rem .5rem; } .scroll { overflow-x: auto; }
svg { width: 100%; min-width: 38rem; height: auto; display: block; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: Canvas; }
td.words { white-space: normal; min-width: 12rem; } .best { font-weight: 700; }
@media (max-width: 40rem) { body { margin: 1rem auto; } th, td { padding: .3rem .4rem; } }
@media (prefers-color-scheme: dark) {
  figure { background: #1d1d1d; } figcaption { color: #ccc; } svg { filter: invert(.89) hue-rotate(180deg); }
}
"""


def page(title: str, parts: Sequence[str]) -> str:
    """A whole document of HTML parts; empty ones are left out."""
    phone = "<meta name=viewport content='width=device-width, initial-scale=1'>"  # else a phone shows a desktop's width
    head = f"<!doctype html><html lang=en><meta charset=utf-8>{phone}<title>{html.escape(title)}</title>"
    return "\n".join([f"{head}<style>{STYLE}</style>", *(part for part in parts if part), "</html>"]) + "\n"


def written() -> str:
    """When a page is written, by what and on which machine, in one sentence."""
    when = f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}"
    return f"Written on {when} on {platform.system()}, {platform.machine()}, {os.cpu_count()} CPUs."


def link(to: Path, name: str, page: Path) -> str:
    """A link to a file or folder as seen from the folder of `page`, so that both can be moved together."""
    where = Path(os.path.relpath(to.resolve(), page.resolve().parent)).as_posix()
    return f"<a href='{quote(where)}'>{html.escape(name)}</a>"


def bundle_line(bundle: Path, page: Path) -> str:
    """Where the bundle is, and the command that opens its page in a browser."""
    command = html.escape(shlex.join(["edgeloop", "browse", str(bundle)]))
    linked = link(bundle / "manifest.json", bundle.name, page)
    return f"<p>Bundle: {linked}. To run it in a browser: <code>{command}</code></p>"


def titled(shown: Table) -> str:
    """What a person sees in a terminal, as HTML."""
    return f"<p>{html.escape(shown.title)}</p>{table(shown.columns, shown.rows)}"


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], best: int | None = None) -> str:
    """Rows of anything as text; `best`: the row to stand out."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "".join(
        f"<tr{' class=best' if k == best else ''}>{''.join(map(_cell, row))}</tr>" for k, row in enumerate(rows)
    )
    return f"<div class=scroll><table><tr>{head}</tr>{body}</table></div>"


def _cell(content: Any) -> str:
    """Long text may break into lines; numbers and names may not."""
    text = str(content)
    return f"<td{' class=words' if len(text) > LONG and ' ' in text else ''}>{html.escape(text)}</td>"
