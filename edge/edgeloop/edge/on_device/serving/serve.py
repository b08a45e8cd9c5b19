"""Answers with the release that is current on this device. Only results leave it.

    answer [--slot NAME | --bundle DIR] [--variant ID] [--runtime R] [--threads N] [--timeout S]
           [--input -|DIR|camera[:WHICH] | --http PORT [--host H]] [--follow] [--count N] [--pixels LOW,HIGH]
    answer --where [--slot NAME]      what a service needs to know of this device, as one JSON line

Standard output: one JSON line an input, {n, source, release, variant, ms} and {label, class, score, top} or {outputs}
or {error}; with --http one line when it listens. Standard error: news; if it fails, at the end `edgeloop: error: why`.
It ends when the input does, when SIGTERM comes or, without `-`, when its standard input is closed: the question at hand
is answered first. Python 3.9 syntax.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, BinaryIO

from edgeloop.edge.on_device.releases.recover import recover
from edgeloop.edge.on_device.serving.current_release import ServeRequest, find_slot
from edgeloop.edge.on_device.serving.hot_reload import HotReload, Made
from edgeloop.edge.on_device.serving.loaded_model import LoadedModel
from edgeloop.edge.on_device.serving.systemd_notify import keep_watchdog, notify
from edgeloop.errors import DataError, EdgeloopError, MissingExtra, OptionsError, WriteError
from edgeloop.http.predict_api import answer, parse, sample
from edgeloop.runtime.agent.paths import home

LINE_LIMIT_BYTES = 64 << 20
LOOK_S = 0.2  # how often a server looks whether it is to end
END_S = 10.0  # for its requests in flight then
Make = Callable[[LoadedModel], Made]


def main(arguments: list[str]) -> None:
    """Ends the process, with the exit code of the error if there was one."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # standard output carries answers only, whatever a library prints
    code = 0
    try:
        run(options(arguments), answers)
    except EdgeloopError as e:
        say(f"error: {e}")
        code = e.exit_code
    except BrokenPipeError:  # whoever read the answers is gone
        code = WriteError.exit_code
    sys.stderr.flush()
    os._exit(code)  # a thread that waits for a camera or a slow client holds nothing up


def options(arguments: list[str]) -> argparse.Namespace:
    """What is asked for. Bad options end the process with exit code 2: the host has checked them before."""
    parser = argparse.ArgumentParser("answer")
    for name in ("--slot", "--bundle", "--variant", "--runtime"):
        parser.add_argument(name, default="")
    parser.add_argument("--input", default="-")
    parser.add_argument("--http", type=int)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=60.0)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--pixels", type=lambda text: tuple(map(float, text.split(","))))
    parser.add_argument("--follow", action="store_true")
    parser.add_argument("--where", action="store_true")
    return parser.parse_args(arguments)


def run(asked: argparse.Namespace, answers: BinaryIO) -> None:
    """Answers until the input ends, `count` are given, or it is to end."""
    if not asked.bundle:
        recover(home())
    slot = None if asked.bundle else find_slot(home(), asked.slot)
    wanted = ServeRequest(slot, asked.bundle, asked.variant, asked.runtime, asked.threads)
    if asked.where:
        from edgeloop.edge.on_device.serving.locate import where

        write(answers, where(wanted))
        return
    ending, follower, done = StopSignal(), HotReload(wanted, asked.timeout, say), threading.Event()
    if asked.http is not None or asked.input != "-":
        ending.with_stdin()
    with contextlib.suppress(KeyboardInterrupt):  # it is to end, and had no question at hand
        try:
            follower.start()
            keep_watchdog(done)
            if asked.http is not None:
                _serve(asked, follower, ending, answers)
            else:
                _answer_each(asked, follower, ending, answers)
        finally:
            ending.busy = True  # no second signal cuts the end short
            done.set()
            notify("STOPPING=1")
            follower.close()


class StopSignal:
    """SIGTERM, or the end of standard input. `busy`: a question is at hand; `asked`: end when it is answered."""

    def __init__(self) -> None:
        self.asked = self.busy = False
        signal.signal(signal.SIGTERM, self._signal)

    def with_stdin(self) -> None:
        """End when nobody holds the other end of standard input any more: behind ssh no signal tells of that."""
        threading.Thread(target=self._watch, daemon=True).start()

    def _signal(self, number: int, frame: Any) -> None:
        self.asked = True
        if not self.busy:
            raise KeyboardInterrupt

    def _watch(self) -> None:
        stdin = select.poll()
        stdin.register(0, select.POLLHUP | getattr(select, "POLLRDHUP", 0))
        stdin.poll()
        os.kill(os.getpid(), signal.SIGTERM)


def _serve(asked: argparse.Namespace, follower: HotReload, ending: StopSignal, answers: BinaryIO) -> None:
    from edgeloop.edge.on_device.serving.http_server import Server, describe

    ending.busy = True  # it looks by itself
    server = Server(asked.host, asked.http, follower)
    threading.Thread(target=server.serve_forever, args=(LOOK_S,), daemon=True).start()
    loaded = follower.peek()
    write(answers, {"http": server.url, **(describe(loaded) if loaded else {})})
    notify("READY=1")
    while not ending.asked and not follower.failed.wait(LOOK_S):
        pass
    server.end(END_S)
    if follower.error is not None:
        raise follower.error


def _answer_each(asked: argparse.Namespace, follower: HotReload, ending: StopSignal, answers: BinaryIO) -> None:
    notify("READY=1")
    first: EdgeloopError | None = None
    failed = n = 0
    with contextlib.closing(_questions(asked)) as questions:
        for n, (source, make) in enumerate(questions, 1):
            ending.busy = True
            try:
                said = _answered(follower, make)
            except (OptionsError, MissingExtra):  # the next would fail as well
                raise
            except EdgeloopError as e:
                if follower.error is not None:
                    raise
                said, first, failed = {"error": " ".join(str(e).split())}, first or e, failed + 1
            write(answers, {"n": n, "source": source, **said})
            ending.busy = False
            if ending.asked or n == asked.count:
                break
    if first is not None:
        raise type(first)(f"{failed} of {n} inputs have no answer; of the first: {first}")


def _answered(follower: HotReload, make: Make) -> dict[str, Any]:
    loaded, outputs, batched, ms = follower.ask(make)
    chosen = loaded.chosen
    which = {"ms": round(ms, 3), "release": chosen.manifest.version, "variant": chosen.variant.id}
    return {**answer(loaded.outputs, outputs, batched), **which}


def _questions(asked: argparse.Namespace) -> Generator[Any, None, None]:
    """(source, make) of every input: where it came from, and what makes a release's inputs of it."""
    if asked.input == "-":
        yield from _lines()
    elif asked.input.partition(":")[0] == "camera":
        from edgeloop.edge.on_device.serving.camera import camera_frames
        from edgeloop.edge.on_device.serving.images import picture

        with contextlib.closing(camera_frames(asked.input.partition(":")[2], say)) as frames:
            for number, pixels in frames:
                yield number, lambda loaded, pixels=pixels: picture(loaded.inputs, pixels, asked.pixels)
    else:
        from edgeloop.edge.on_device.serving.input_folder import frame_files, read_frame_file

        for path in frame_files(asked.input, asked.follow, say):
            name = os.path.basename(path)
            yield name, lambda loaded, path=path: read_frame_file(path, loaded.inputs, asked.pixels)


def _lines() -> Iterator[Any]:
    with os.fdopen(os.dup(0), "rb") as stdin:
        for number, line in enumerate(iter(lambda: stdin.readline(LINE_LIMIT_BYTES + 1), b""), 1):
            if len(line) > LINE_LIMIT_BYTES:
                raise DataError(f"line {number} has more than {LINE_LIMIT_BYTES} bytes. Send one sample a line.")
            if line.strip():
                yield number, lambda loaded, line=line: sample(loaded.inputs, parse(line))


def write(answers: BinaryIO, document: dict[str, Any]) -> None:
    """One line."""
    answers.write(json.dumps(document, allow_nan=False).encode() + b"\n")
    answers.flush()


def say(line: str) -> None:
    """News for a person, in one line."""
    print("edgeloop:", " ".join(line.split()), file=sys.stderr, flush=True)
