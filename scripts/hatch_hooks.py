"""What hatchling does beside copying files, for wheel and sdist.

The build hook refuses to pack a distribution without the browser page, which version control does not hold: such a
wheel would install and then have no page. The metadata hook makes of README.md the description that an index shows,
where no link into the checkout leads anywhere.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

STATIC = "browser/edgeloop/browser/static"
BUILT = ("page/index.html", "page/files.json", "node/tfjs_runner.mjs")  # one of each that `npm run build` makes
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[([^\]]*)\]\((?![a-z]+:)([^)\s]+)\)")
WHERE = "\nFiles named in brackets are in the source distribution.\n"


class PageHook(BuildHookInterface):
    """No wheel and no sdist without the built page; an editable installation reads the page where it lies."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        missing = [name for name in BUILT if not (Path(self.root) / STATIC / name).is_file()]
        if missing and version != "editable":
            self.app.abort(f"The browser page is not built: {STATIC}/ has no {', '.join(missing)}. Run: make wheel")


class DescriptionHook(MetadataHookInterface):
    """The fields of [project] that depend on where the files of the repository can be read."""

    def update(self, metadata: dict[str, Any]) -> None:
        address = self.config.get("files", "")
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": description(text, address)}
        metadata["urls"] = urls(address)


def description(readme: str, address: str) -> str:
    """`readme` with every link into the checkout below `address`; without an address, the file's name in its place."""

    def anywhere(link: re.Match) -> str:
        text, target = link[1], link[2]
        if target.startswith("#"):
            return link[0]
        if address:
            return f"{'!' if link[0].startswith('!') else ''}[{text}]({address.rstrip('/')}/{target})"
        return f"`{target}`" if target.startswith(text) else f"{text} (`{target}`)"

    parts = FENCED.split(readme)
    parts[::2] = [LINK.sub(anywhere, part) for part in parts[::2]]
    return "".join(parts) + ("" if address else WHERE)


def urls(address: str) -> dict[str, str]:
    """What an index links to; empty without an address."""
    pages = {"Documentation": "docs/index.md", "Changelog": "CHANGELOG.md", "Source": "README.md"}
    return {name: f"{address.rstrip('/')}/{page}" for name, page in pages.items()} if address else {}
