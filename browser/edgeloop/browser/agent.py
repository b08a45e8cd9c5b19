"""The program that holds the page in headless Chromium, over frames (processes/frames.py).

    python -m edgeloop.browser.agent CHROMIUM URL TIMEOUT_S [ENGINE]

It answers requests of runtime/agent/protocol.py: `probe` starts Chromium and opens URL, `prepare` loads a path relative
to URL, `run` runs it, `conditions` tells the state of this machine. With ENGINE, one of the page's, the path is that of
a file below URL's bundle/, and the answers say as much as those of an agent for a runtime of the table; without it
LiteRT.js runs a .tflite. At `close` or the end of stdin Chromium ends, then the agent. Whoever started it bounds its
waits and ends it.
"""

from __future__ import annotations

import base64
import contextlib
import os
import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from edgeloop.browser.chromium import SOFTWARE_GPU, first_line, open_page
from edgeloop.processes.frames import pack, serve, unpack
from edgeloop.processes.messages import answering
from edgeloop.runtime.agent.machine.capabilities import capabilities
from edgeloop.runtime.agent.machine.conditions import ConditionReader
from edgeloop.runtime.agent.machine.memory import own_bytes
from edgeloop.runtime.agent.protocol import (
    ConditionsReply,
    ConditionsRequest,
    PrepareReply,
    PrepareRequest,
    ProbeReply,
    ProbeRequest,
    RunReply,
    RunRequest,
)
from edgeloop.runtime.page_engines import PAGE_ENGINES

if TYPE_CHECKING:
    from playwright.sync_api import Page

LOAD = "url => edgeloop.load(url)"
VERSION = "engine => edgeloop.version(engine)"
OPEN = "([engine, file, threads]) => edgeloop.openFile(engine, file, threads)"
MEASURE = "([inputs, warmup, runs]) => edgeloop.measure(inputs, warmup, runs)"
RUN = "([url, signature, inputs, warmup, runs]) => edgeloop.run(url, signature, inputs, warmup, runs)"


class PageAgent:
    """The page, opened by `probe`; `stack` closes it."""

    def __init__(
        self, chromium: Path, url: str, timeout_s: float, stack: contextlib.ExitStack, engine: str = ""
    ) -> None:
        self.chromium, self.url, self.timeout_s, self.stack, self.engine = chromium, url, timeout_s, stack, engine
        self.condition_reader: ConditionReader | None = None
        self.page: Page | None = None
        self.crashed = False
        self.model = ""

    def probe(self, asked: ProbeRequest, payload: bytes) -> ProbeReply:
        # "#engine": the page shows nothing and waits for calls
        on_gpu = self.engine in PAGE_ENGINES and PAGE_ENGINES[self.engine].comparison
        opened = open_page(
            self.url + "?threads=1#engine", self.chromium, self.timeout_s, SOFTWARE_GPU if on_gpu else ()
        )
        self.page = self.stack.enter_context(opened)
        self.page.on("crash", self._note_crash)
        browser = self.page.context.browser
        version = browser.version if browser else None
        if not self.engine:
            return ProbeReply("litertjs", version)
        library = self._call(VERSION, self.engine)
        return ProbeReply(
            self.engine,
            f"{library} in Chromium {version}",
            machine=platform.machine(),
            cpus=os.cpu_count(),
            capabilities={**capabilities(), **({"emulated": True} if on_gpu else {})},
        )

    def conditions(self, asked: ConditionsRequest, payload: bytes) -> ConditionsReply:
        self.condition_reader = self.condition_reader or ConditionReader()
        return ConditionsReply(self.condition_reader.read())

    def prepare(self, asked: PrepareRequest, payload: bytes) -> PrepareReply:
        if self.engine:
            if self.page is not None and asked.threads != 1:  # the page takes their number from its address
                self.page.goto(f"{self.url}?threads={asked.threads}#engine")
            return PrepareReply(**self._call(OPEN, [self.engine, asked.path, asked.threads]))
        self.model = self.url + quote(asked.path)
        start = time.perf_counter()
        self._call(LOAD, self.model)
        return PrepareReply(load_ms=(time.perf_counter() - start) * 1e3)

    def run(self, asked: RunRequest, payload: bytes) -> tuple[RunReply, bytes]:
        inputs = {name: _plain(array) for name, array in unpack(payload).items()}
        if self.engine:
            answer = self._call(MEASURE, [inputs, asked.warmup, asked.runs])
        else:
            answer = self._call(RUN, [self.model, asked.signature, inputs, asked.warmup, asked.runs])
        outputs = {name: _array(value) for name, value in answer.pop("outputs").items()}
        reply = RunReply(**answer, **(self._memory() if self.engine else {}))
        return reply, pack(outputs)  # a page does not see its process: no CPU time

    def _memory(self) -> dict[str, Any]:
        """Of the process that holds the page: of Chromium's renderers the largest, for it keeps a spare one."""
        assert self.page is not None and self.page.context.browser is not None
        cdp = self.page.context.browser.new_browser_cdp_session()
        processes = cdp.send("SystemInfo.getProcessInfo")["processInfo"]
        cdp.detach()
        found = [own_bytes(process=str(one["id"])) for one in processes if one["type"] == "renderer"]
        return max(found, key=lambda memory: memory["rss_bytes"] or 0, default={})

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
        agent = PageAgent(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), stack, *sys.argv[4:])
        # Chromium ends in good order, however long that takes: the host ends what is still there
        requests = (ProbeRequest, PrepareRequest, RunRequest, ConditionsRequest)
        serve({kind.OP: answering(kind, getattr(agent, kind.OP)) for kind in requests}, end_with_host=False)


if __name__ == "__main__":
    main()
