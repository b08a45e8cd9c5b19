"""Serves the release that is current on this device. Only results leave it.

    serve [--slot NAME | --bundle DIR] [--variant ID] [--runtime R] [--threads N] [--timeout S]
          [--input -|DIR|camera[:WHICH] | --http PORT [--host H]] [--watch] [--count N] [--pixels LOW,HIGH]
          [--follow SOURCE ...]         releases are fetched from there: ../pull/pull_options.py has the rest
    serve --service-location [--slot NAME]      what a service needs to know of this device, as one JSON line

Standard output: first {started: 1}, by which a reader knows this program; then one JSON line per input,
{n, source, release, variant, ms} and {label, class, score, top} or {outputs} or {error}; with --http one line when it
listens; if the program fails, at the end {failed: the error's JSON}. Standard error: messages, and at the end the
error. The program ends when the input does, when SIGTERM comes or, without `-`, when its standard input is closed: the
input at hand is answered first. Python 3.9 syntax.
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
import time
from collections.abc import Generator, Iterator
from typing import Any, BinaryIO

from edgeloop.disk_errors import REFUSED, write_error
from edgeloop.edge.on_device.pull.pull_options import PullOptions, add_arguments, read_arguments
from edgeloop.edge.on_device.releases.recover import recover
from edgeloop.edge.on_device.releases.staged_bundle import is_whole
from edgeloop.edge.on_device.releases.store import Slot, read_state
from edgeloop.edge.on_device.serving.hot_reload import HotReload, MakeInputs
from edgeloop.edge.on_device.serving.served_release import ServeRequest, find_slot
from edgeloop.edge.on_device.serving.systemd_notify import keep_watchdog, notify
from edgeloop.errors import DataError, DeviceError, EdgeloopError, OptionsError, WriteError, error_to_json, one_line
from edgeloop.http.predict_api.request import parse_json, read_sample
from edgeloop.http.predict_api.response import format_sample
from edgeloop.runtime.agent.paths import home

LINE_LIMIT_BYTES = 64 << 20
POLL_S = 0.2  # how often a server looks whether it is to end
END_S = 10.0  # for the requests that have begun then
LAST_S = 25.0  # after which SIGTERM ends the process whatever it waits for
STARTED = "started"  # the key of the first line; its value is the version of these lines
FAILED = "failed"  # the key of the last line of a program that failed


def main(arguments: list[str]) -> None:
    """Ends the process, with the exit code of the error if there was one."""
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # standard output carries results only, whatever a library prints
    code = 0
    try:
        write(results, {STARTED: 1})
        run(options(arguments), results)
    except EdgeloopError as e:
        code = _report(e, results)
    except BrokenPipeError:  # whoever read the results is gone
        code = WriteError.exit_code
    except OSError as e:
        if e.errno not in REFUSED:
            raise
        code = _report(write_error(e.filename or home(), e), results)
    sys.stderr.flush()
    os._exit(code)  # a thread that waits for a camera or a slow client delays nothing


def _report(error: EdgeloopError, results: BinaryIO) -> int:
    """Tell whoever reads the results, and the log; the exit code of it."""
    say(f"error: {error}")
    with contextlib.suppress(BrokenPipeError):
        write(results, {FAILED: error_to_json(error)})
    return error.exit_code


def options(arguments: list[str]) -> argparse.Namespace:
    """The program's arguments. Wrong ones end the process with exit code 2: the host has checked them before."""
    parser = argparse.ArgumentParser("serve")
    for name in ("--slot", "--bundle", "--variant", "--runtime"):
        parser.add_argument(name, default="")
    parser.add_argument("--input", default="-")
    parser.add_argument("--http", type=int)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=60.0)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--pixels", type=lambda text: tuple(map(float, text.split(","))))
    parser.add_argument("--watch", action="store_true")
    add_arguments(parser)
    parser.add_argument("--service-location", action="store_true")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace, results: BinaryIO) -> None:
    """Serve until the input ends, `count` results are given, or the process is told to end."""
    if not options.bundle:
        recover(home())
    pull = read_arguments(options)
    if pull is not None:
        from edgeloop.edge.on_device.pull.offered_release import check_enrolled

        check_enrolled(home())
    request = _request(options, pull)
    if options.service_location:
        from edgeloop.edge.on_device.serving.service_location import service_location

        write(results, service_location(request, installed=pull is None or _is_installed(request.slot)))
        return
    stop, hot_reload, done = StopSignal(), HotReload(request, options.timeout, say), threading.Event()
    if options.http is not None or options.input != "-":
        stop.watch_stdin()
    with contextlib.suppress(KeyboardInterrupt), _following(pull):  # told to end, with no input at hand
        try:
            keep_watchdog(done)
            if pull is not None:
                _wait_for_release(request.slot, pull.address.text)
            hot_reload.start()
            if options.http is not None:
                _serve_http(options, hot_reload, stop, results)
            else:
                _serve_inputs(options, hot_reload, stop, results)
        finally:
            stop.busy = True  # no second signal cuts the end short
            done.set()
            notify("STOPPING=1")
            hot_reload.close()


def _request(options: argparse.Namespace, pull: PullOptions | None) -> ServeRequest:
    if pull is not None:  # --variant and the like say what is fetched, and that is served as it was installed
        return ServeRequest(Slot(home(), pull.address.name))
    slot = None if options.bundle else find_slot(home(), options.slot)
    return ServeRequest(slot, options.bundle, options.variant, options.runtime, options.threads)


def _is_installed(slot: Slot | None) -> bool:
    return slot is not None and read_state(slot).current is not None


@contextlib.contextmanager
def _following(pull: PullOptions | None) -> Iterator[None]:
    """Fetch releases meanwhile."""
    if pull is None:
        yield
        return
    from edgeloop.edge.on_device.pull.release_puller import ReleasePuller  # with TLS: who follows nobody needs none

    with contextlib.closing(ReleasePuller(pull, home(), say)) as puller:
        puller.start()
        yield


def _wait_for_release(slot: Slot | None, source: str) -> None:
    """Until a whole release is committed. SIGTERM ends it, and systemd takes this for a service that has started."""
    assert slot is not None  # where releases are fetched
    seen, told = None, False
    while True:
        written = _written(slot)
        found = read_state(slot).current
        if written != seen and found is not None and is_whole(slot, found):  # reads all of it: once a change
            return
        seen = written
        if not told:
            what = "the first release" if found is None else f"release {found.version}, which is damaged here,"
            say(f"waiting for {what} from {source}")
            notify("READY=1\nSTATUS=waiting for a release")
            told = True
        time.sleep(POLL_S)


def _written(slot: Slot) -> tuple[int, int] | None:
    """Another where the slot's state was written again, be it with the same content; None: it never was."""
    try:
        found = os.stat(slot.state)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


class StopSignal:
    """SIGTERM, or the end of standard input. `busy`: an input is at hand; `received`: end when it is answered."""

    def __init__(self) -> None:
        self.received = self.busy = False
        signal.signal(signal.SIGTERM, self._signal)

    def watch_stdin(self) -> None:
        """Stop when nobody holds the other end of standard input any more: behind ssh no signal tells of that."""
        threading.Thread(target=self._watch, daemon=True).start()

    def _signal(self, number: int, frame: Any) -> None:
        if not self.received:
            last = threading.Timer(LAST_S, os._exit, [DeviceError.exit_code])
            last.daemon = True
            last.start()
        self.received = True
        if not self.busy:
            raise KeyboardInterrupt

    def _watch(self) -> None:
        stdin = select.poll()
        stdin.register(0, select.POLLHUP | getattr(select, "POLLRDHUP", 0))
        stdin.poll()
        os.kill(os.getpid(), signal.SIGTERM)


def _serve_http(options: argparse.Namespace, hot_reload: HotReload, stop: StopSignal, results: BinaryIO) -> None:
    from edgeloop.edge.on_device.serving.predict_server import PredictServer, describe

    stop.busy = True  # the loop below looks by itself
    server = PredictServer(options.host, options.http, hot_reload)
    server.start()
    model = hot_reload.current()
    write(results, {"http": server.url, **(describe(model) if model else {})})
    notify("READY=1")
    while not stop.received and not hot_reload.failed.wait(POLL_S):
        pass
    server.close(END_S)
    if hot_reload.error is not None:
        raise hot_reload.error


def _serve_inputs(options: argparse.Namespace, hot_reload: HotReload, stop: StopSignal, results: BinaryIO) -> None:
    notify("READY=1")
    first: EdgeloopError | None = None
    failed = n = 0
    with contextlib.closing(_inputs(options)) as inputs:
        for n, (source, make_inputs) in enumerate(inputs, 1):
            stop.busy = True
            try:
                result = _result(hot_reload, make_inputs)
            except OptionsError:  # the next input would fail as well
                raise
            except EdgeloopError as e:
                if hot_reload.error is not None:
                    raise
                result, first, failed = {"error": str(e)}, first or e, failed + 1
            write(results, {"n": n, "source": source, **result})
            stop.busy = False
            if stop.received or n == options.count:
                break
    if first is not None:
        raise type(first)(f"{failed} of {n} inputs failed; the first: {first.sentence}", advice=first.advice)


def _result(hot_reload: HotReload, make_inputs: MakeInputs) -> dict[str, Any]:
    model, outputs, batched, ms = hot_reload.predict(make_inputs)
    release = model.release
    made_by = {"ms": round(ms, 3), "release": release.manifest.version, "variant": release.variant.id}
    return {**format_sample(model.outputs, outputs, batched), **made_by}


def _inputs(options: argparse.Namespace) -> Generator[Any, None, None]:
    """(source, make_inputs) of every input: where it came from, and what makes a model's inputs of it."""
    if options.input == "-":
        yield from _lines()
    elif options.input.partition(":")[0] == "camera":
        from edgeloop.edge.on_device.serving.camera import camera_frames
        from edgeloop.edge.on_device.serving.images import image_inputs

        with contextlib.closing(camera_frames(options.input.partition(":")[2], say)) as frames:
            for number, pixels in frames:
                yield number, lambda model, pixels=pixels: image_inputs(model.inputs, pixels, options.pixels)
    else:
        from edgeloop.edge.on_device.serving.input_folder import frame_files, read_frame_file

        for path in frame_files(options.input, options.watch, say):
            name = os.path.basename(path)
            yield name, lambda model, path=path: read_frame_file(path, model.inputs, options.pixels)


def _lines() -> Iterator[Any]:
    with os.fdopen(os.dup(0), "rb") as stdin:
        for number, line in enumerate(iter(lambda: stdin.readline(LINE_LIMIT_BYTES + 1), b""), 1):
            if len(line) > LINE_LIMIT_BYTES:
                raise DataError(
                    f"line {number} has more than {LINE_LIMIT_BYTES} bytes", advice="Send one sample per line."
                )
            if line.strip():
                yield number, lambda model, line=line: read_sample(model.inputs, parse_json(line))


def write(results: BinaryIO, document: dict[str, Any]) -> None:
    """One line."""
    results.write(json.dumps(document, allow_nan=False).encode() + b"\n")
    results.flush()


def say(line: str) -> None:
    """A message for a person, in one line."""
    print("edgeloop:", one_line(line, LINE_LIMIT_BYTES), file=sys.stderr, flush=True)
