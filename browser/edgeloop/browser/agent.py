"""The program that holds the page in headless Chromium, over frames (processes/frames.py).

    python -m edgeloop.browser.agent CHROMIUM URL TIMEOUT_S

It answers three requests of runtime/agent/protocol.py: `probe` starts Chromium and opens URL, `prepare` loads a path
relative to URL, `run` runs it. At `close` or the end of stdin Chromium ends, then the agent. Whoever started it bounds
its waits and ends it.
"""

from __future__ import annotations

import base64
import contextlib
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from edgeloop.browser.chromium import first_line, open_page
from edgeloop.processes.frames import pack, serve, unpack
from edgeloop.processes.messages import answering
from edgeloop.runtime.agent.protocol import PrepareReply, PrepareRequest, ProbeReply, ProbeRequest, RunReply, RunRequest

if TYPE_CHECKING:
    from playwright.sync_api import Page

LOAD = "url => edgeloop.load(url)"
RUN = "([url, signature, inputs, warmup, runs]) => edgeloop.run(url, signature, inputs, warmup, runs)"


class PageAgent:
    """The page, opened by `probe`; `stack` closes it."""

    def __init__(self, chromium: Path, url: str, timeout_s: float, stack: contextlib.ExitStack) -> None:
        self.chromium, self.url, self.timeout_s, self.stack = chromium, url, timeout_s, stack
        self.page: Page | None = None
        self.crashed = False
        self.model = ""

    def probe(self, asked: ProbeRequest, payload: bytes) -> ProbeReply:
        # "#engine": the page shows nothing and waits for calls
        self.page = self.stack.enter_context(open_page(self.url + "#engine", self.chromium, self.timeout_s))
        self.page.on("crash", self._note_crash)
        browser = self.page.context.browser
        return ProbeReply("litertjs", browser.version if browser else None)

    def prepare(self, asked: PrepareRequest, payload: bytes) -> PrepareReply:
        self.model = self.url + quote(asked.path)
        start = time.perf_counter()
        self._call(LOAD, self.model)
        return PrepareReply(load_ms=(time.perf_counter() - start) * 1e3)

    def run(self, asked: RunRequest, payload: bytes) -> tuple[RunReply, bytes]:
        inputs = {name: _plain(array) for name, array in unpack(payload).items()}
        answer = self._call(RUN, [self.model, asked.signature, inputs, asked.warmup, asked.runs])
        outputs = {name: _array(value) for name, value in answer["outputs"].items()}
        return RunReply(answer["wall_ms"]), pack(outputs)  # a page cannot see its process: no CPU time, no memory

    def _call(self, function: str, argument: Any) -> Any:
        if self.page is None:
            raise RuntimeError("no page is open: probe comes first")
        from playwright.sync_api import Error

        try:
            return self.page.evaluate(function, argument)
        except Error as e:
            if self.page.is_closed() or self.crashed:  # an agent without its page has nothing to answer with
                sys.exit(f"Chromium's page died: {first_line(e)}")
            raise RuntimeError(first_line(e)) from e

    def _note_crash(self, page: Page) -> None:
        self.crashed = True


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
    with contextlib.ExitStack() as stack:
        agent = PageAgent(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), stack)
        # Chromium ends in good order, however long that takes: the host ends what is still there
        requests = (ProbeRequest, PrepareRequest, RunRequest)
        serve({kind.OP: answering(kind, getattr(agent, kind.OP)) for kind in requests}, end_with_host=False)


if __name__ == "__main__":
    main()
