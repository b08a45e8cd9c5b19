"""The program that holds the page in headless Chromium, over frames (processes/frames.py).

    python -m edgeloop.browser.agent CHROMIUM URL TIMEOUT_S

    probe                                    -> {runtime, browser}: starts Chromium and opens URL
    prepare  {path}                          -> {load_ms}: `path` is relative to URL
    run      {signature, warmup, runs} + npz -> {wall_ms, cpu_ms: [], rss_peak_bytes: null} + npz of the last outputs
    close, or the end of stdin: Chromium ends, then the agent

Whoever started it bounds its waits and ends it.
"""

from __future__ import annotations

import base64
import contextlib
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from edgeloop.browser.chromium import first_line, open_page
from edgeloop.processes.frames import pack, read_frame, unpack, write_frame

if TYPE_CHECKING:
    from playwright.sync_api import Page

Reply = tuple[dict[str, Any], bytes]

LOAD = "url => edgeloop.load(url)"
RUN = "([url, signature, inputs, warmup, runs]) => edgeloop.run(url, signature, inputs, warmup, runs)"


class PageAgent:
    """The page, opened by `probe`; `stack` closes it."""

    def __init__(self, chromium: Path, url: str, timeout_s: float, stack: contextlib.ExitStack) -> None:
        self.chromium, self.url, self.timeout_s, self.stack = chromium, url, timeout_s, stack
        self.page: Page | None = None
        self.model = ""

    def probe(self, header: Mapping[str, Any], payload: bytes) -> Reply:
        # "#engine": the page shows nothing and waits for calls
        self.page = self.stack.enter_context(open_page(self.url + "#engine", self.chromium, self.timeout_s))
        browser = self.page.context.browser
        return {"runtime": "litertjs", "browser": browser.version if browser else None}, b""

    def prepare(self, header: Mapping[str, Any], payload: bytes) -> Reply:
        self.model = self.url + quote(header["path"])
        start = time.perf_counter()
        self._call(LOAD, self.model)
        return {"load_ms": (time.perf_counter() - start) * 1e3}, b""

    def run(self, header: Mapping[str, Any], payload: bytes) -> Reply:
        inputs = {name: _plain(array) for name, array in unpack(payload).items()}
        counts = int(header.get("warmup", 0)), int(header.get("runs", 1))
        answer = self._call(RUN, [self.model, header.get("signature"), inputs, *counts])
        outputs = {name: _array(value) for name, value in answer["outputs"].items()}
        # A page cannot see its process: neither CPU time nor memory.
        return {"wall_ms": answer["wall_ms"], "cpu_ms": [], "rss_peak_bytes": None}, pack(outputs)

    def _call(self, function: str, argument: Any) -> Any:
        if self.page is None:
            raise RuntimeError("no page is open: probe comes first")
        from playwright.sync_api import Error

        try:
            return self.page.evaluate(function, argument)
        except Error as e:
            if self.page.is_closed() or "crashed" in str(e):
                sys.exit(
                    f"Chromium's page died: {first_line(e)}"
                )  # an agent without its page has nothing to answer with
            raise RuntimeError(first_line(e)) from e


def _plain(array: np.ndarray) -> dict[str, Any]:
    data = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return {
        "shape": list(array.shape),
        "dtype": array.dtype.name,
        "data": base64.b64encode(data.tobytes()).decode("ascii"),
    }


def _array(plain: Mapping[str, Any]) -> np.ndarray:
    data = np.frombuffer(base64.b64decode(plain["data"]), np.dtype(plain["dtype"]).newbyteorder("<"))
    return data.reshape(plain["shape"])


def main() -> None:
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # Playwright's driver inherits stdout: what it prints must not land between frames
    with contextlib.ExitStack() as stack:
        agent = PageAgent(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), stack)
        operations = {"probe": agent.probe, "prepare": agent.prepare, "run": agent.run}
        while (frame := read_frame(requests)) and frame[0].get("op") != "close":
            header, payload = frame
            try:
                answer, data = operations[header["op"]](header, payload)
            except Exception as error:  # every failure travels to the host, which names and raises it
                answer, data = {"error": {"type": type(error).__name__, "message": str(error)}}, b""
            write_frame(answers, {**answer, "id": header.get("id"), "op": header.get("op")}, data)


if __name__ == "__main__":
    main()
