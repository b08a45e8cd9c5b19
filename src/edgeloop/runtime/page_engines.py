"""What runs a model in a page of the device `browser`, and an agent for it.

Chromium and the page belong to browser/, which this folder may not import: what the entry point `browser` of the group
`edgeloop.devices` names starts an engine there. The names are those of the page's own table, web/src/page/engines/.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from edgeloop.bundle import Format
from edgeloop.errors import MissingExtra
from edgeloop.runtime.client import RuntimeClient
from edgeloop.runtime.device import BROWSER, Device

GROUP = "edgeloop.devices"


@dataclass(frozen=True)
class PageEngine:
    """One engine of the page.

    Attributes:
        comparison: It runs on the GPU, and is used only when asked for by name: in headless Chromium that GPU is a
            program, whose outputs are real and whose times are not.
    """

    name: str
    formats: frozenset[Format]
    comparison: bool = False
    install: str = "pip install 'edgeloop[browser]'"

    def lacks(self, device: Device) -> str:
        """Why this engine cannot run there; empty where it can be tried."""
        return "" if device == BROWSER else f"{self.name} runs in a browser alone"

    def start(
        self, device: Device, folder: Path, entry: str, timeout_s: float
    ) -> contextlib.AbstractContextManager[RuntimeClient]:
        """An agent that is able to open `entry` of `folder`, a bundle, or that one file of it where it is none.

        Raises:
            MissingExtra: browser/ is not installed, or Chromium or Playwright.
        """
        points = entry_points(group=GROUP, name=BROWSER.name)
        if not points:
            raise MissingExtra("the folder browser/ of edgeloop is not installed", advice=f"Run: {self.install}")
        (point,) = points
        return point.load()(self.name, folder, entry, timeout_s)


_TFLITE, _TFJS, _ONNX = (frozenset({format}) for format in (Format.TFLITE, Format.TFJS, Format.ONNX))
PAGE_ENGINES = {
    engine.name: engine
    for engine in (
        PageEngine("litertjs-wasm", _TFLITE),
        PageEngine("litertjs-webgpu", _TFLITE, comparison=True),
        PageEngine("tfjs-wasm", _TFJS),
        PageEngine("tfjs-webgl", _TFJS, comparison=True),
        PageEngine("tfjs-webgpu", _TFJS, comparison=True),
        PageEngine("ort-wasm", _ONNX),
        PageEngine("ort-webgpu", _ONNX, comparison=True),
    )
}
