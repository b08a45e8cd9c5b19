"""What people see: tables on stdout, progress and errors on stderr; with `--json`, one document on stdout."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import IO

import rich.box
import rich.console
import rich.progress
import rich.table
import rich.text

from edgeloop.result import CommandResult, Table

# what moves a terminal's cursor, sets its title or turns text around (UAX 9); a device's words may hold it
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@contextlib.contextmanager
def own_stderr() -> Iterator[tuple[IO[str], IO[bytes]]]:
    """Standard error for our own words, and a file for those of the frameworks below.

    TensorFlow and LiteRT write to file descriptor 2 from C++, before and beside any log setting. While the block
    runs, 2 leads to a temporary file, which a bug report carries; EDGELOOP_VERBOSE=1 leaves it alone.
    """
    with tempfile.TemporaryFile() as noise, _words(os.dup(2)) as ours:
        sys.stderr.flush()
        if not os.environ.get("EDGELOOP_VERBOSE"):
            os.dup2(noise.fileno(), 2)
        watched = faulthandler.is_enabled()  # by whoever runs us, who then sees crashes already
        if not watched:
            faulthandler.enable(ours)  # a crash of native code must still be seen
        try:
            yield ours, noise
        finally:
            sys.stderr.flush()
            os.dup2(ours.fileno(), 2)
            if not watched:
                faulthandler.disable()


def _words(descriptor: int) -> IO[str]:
    """A path need not be UTF-8: what cannot be encoded is escaped, for an error message must come out."""
    return os.fdopen(descriptor, "w", buffering=1, errors="backslashreplace")


class Console:
    """Made once per run by the command line. Verbs reach it as `ctx.obj`; it is a `Progress` itself."""

    def __init__(self, *, json: bool, stderr: IO[str]) -> None:
        self.json = json
        self.interrupted = False  # set when a signal came
        self._stderr = stderr
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # as `_words`
        self._out = rich.console.Console(highlight=False, width=None if sys.stdout.isatty() else 140)
        self._err = rich.console.Console(file=stderr, highlight=False, soft_wrap=True)
        self._progress: rich.progress.Progress | None = None
        self._tasks: dict[str, rich.progress.TaskID] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        """Move the bar of `what`. Without a terminal, one line when it is finished.

        Raises:
            KeyboardInterrupt: A signal came before, and what it raised then was lost.
        """
        if self.interrupted:
            raise KeyboardInterrupt
        if not self._err.is_terminal:
            if done == total:
                print(f"{what}: done", file=self._stderr, flush=True)
            return
        if self._progress is None:
            columns = rich.progress.TextColumn("{task.description}"), rich.progress.BarColumn()
            self._progress = rich.progress.Progress(
                *columns, rich.progress.MofNCompleteColumn(), rich.progress.TimeElapsedColumn(), console=self._err
            )
            self._progress.start()
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._tasks[what], completed=done, total=total)

    def say(self, line: str) -> None:
        """One line of news, on stderr."""
        self._err.print(_shown(line), markup=False)

    def error(self, message: str) -> None:
        self.close()
        one_line = " ".join(message.split())
        print(f"edgeloop: {_shown(one_line)}", file=self._stderr, flush=True)

    def show(self, answer: CommandResult) -> None:
        self.close()
        if self.json:
            print(json.dumps(answer.document, allow_nan=False), flush=True)
        else:
            for table in answer.tables:  # a title is as wide as the screen, not as its table
                self._out.print(rich.text.Text(_shown(table.title), style="italic"))
                self._out.print(_rich(table))
        for note in answer.notes:
            print(_shown(note), file=self._stderr if self.json else sys.stdout, flush=True)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress, self._tasks = None, {}


def _rich(table: Table) -> rich.table.Table:
    drawn = rich.table.Table(box=rich.box.SIMPLE)
    for index, name in enumerate(table.columns):
        drawn.add_column(name, justify="left" if index == 0 else "right", overflow="fold")
    for row in table.rows:
        drawn.add_row(*(rich.text.Text(_shown(cell)) for cell in row))
    return drawn


def _shown(text: str) -> str:
    return CONTROL.sub("?", text)
