"""What people see: tables on stdout, progress and errors on stderr; with `--json`, one document on stdout."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

from edgeloop.errors import EdgeloopError, error_to_json, one_line
from edgeloop.leftovers import log_file
from edgeloop.result import CommandResult, Table

if TYPE_CHECKING:  # Rich takes longer to load than --help to answer
    import rich.progress
    import rich.table

# what moves a terminal's cursor, sets its title or turns text around (UAX 9); a device's words may hold it
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@contextlib.contextmanager
def own_stderr() -> Iterator[tuple[IO[str], IO[bytes]]]:
    """Standard error for our own words, and a file for those of the frameworks below.

    TensorFlow and LiteRT write to file descriptor 2 from C++, before and beside any log setting. While the block
    runs, 2 leads to a file in memory, which a bug report carries; EDGELOOP_VERBOSE=1 leaves it alone.
    """
    with log_file() as noise, _words(os.dup(2)) as ours:
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
        self.stderr = stderr
        self._answered = False  # there is one document on stdout
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # as `_words`
        self._progress: rich.progress.Progress | None = None
        self._tasks: dict[str, rich.progress.TaskID] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        """Move the bar of `what`. Without a terminal, one line when it is finished.

        Raises:
            KeyboardInterrupt: A signal came before, and what it raised then was lost.
        """
        if self.interrupted:
            raise KeyboardInterrupt
        if not self.stderr.isatty():
            if done == total:
                print(f"{what}: done", file=self.stderr, flush=True)
            return
        if self._progress is None:
            self._progress = _progress_bars(self.stderr)
            self._progress.start()
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._tasks[what], completed=done, total=total)

    def say(self, line: str) -> None:
        """One line of news, on stderr."""
        if self._progress is None:
            print(_shown(line), file=self.stderr, flush=True)
        else:  # above the bars
            self._progress.console.print(_shown(line), markup=False, soft_wrap=True)

    def error(self, error: EdgeloopError) -> None:
        """One line on stderr; with `--json`, a document on stdout too, unless there is one already."""
        self.close()
        print(f"edgeloop: {_shown(one_line(error, None))}", file=self.stderr, flush=True)
        if self.json and not self._answered:
            with contextlib.suppress(BrokenPipeError):  # who left does not want it
                self._document({"error": error_to_json(error)})

    def show(self, answer: CommandResult) -> None:
        self.close()
        if self.json:
            failed = {} if answer.error is None else {"error": error_to_json(answer.error)}
            self._document({**answer.document, **failed})
        else:
            _print_tables(answer.tables)
        for note in answer.notes:
            print(_shown(note), file=self.stderr if self.json else sys.stdout, flush=True)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress, self._tasks = None, {}

    def _document(self, document: dict[str, Any]) -> None:
        print(json.dumps(document, allow_nan=False), flush=True)
        self._answered = True


def _progress_bars(stderr: IO[str]) -> rich.progress.Progress:
    import rich.console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = rich.console.Console(file=stderr, highlight=False)
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=console)


def _print_tables(tables: Sequence[Table]) -> None:
    import rich.console
    import rich.text

    wide = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 140
    out = rich.console.Console(highlight=False, width=wide)
    left_out: list[str] = []
    for table in tables:
        fitting = fit(table, out.width)
        left_out += [name for name in table.columns if name not in (*fitting.columns, *left_out)]
        if table.title:  # as wide as the screen, not as its table
            out.print(rich.text.Text(_shown(table.title), style="italic"))
        out.print(_rich(fitting, out.width))
    if left_out:
        print(f"Columns left out at this width: {', '.join(left_out)}. Widen the terminal, or use --json.", flush=True)


def fit(table: Table, width: int) -> Table:
    """The table without those of its last columns for which `width` has no room: a cell wraps between words only."""
    columns = len(table.columns)
    while columns > 1 and sum(_least(table, k) + AROUND for k in range(columns)) + 1 > width:
        columns -= 1
    return Table(table.title, table.columns[:columns], [row[:columns] for row in table.rows])


AROUND = 3  # Rich's blanks around a column
WHOLE = 16  # a cell as short as this stays on one line, as `12.3 kB`


def _texts(table: Table, column: int) -> list[str]:
    return [table.columns[column], *(row[column] for row in table.rows)]


def _least(table: Table, column: int) -> int:
    """Letters that a column needs: those of its longest word, or short cell."""
    texts = _texts(table, column)
    parts = [part for text in texts for part in ([text] if len(text) <= WHOLE else text.split())]
    return max(map(len, parts), default=0)


def _rich(table: Table, width: int) -> rich.table.Table:
    import rich.box
    import rich.table
    import rich.text

    drawn = rich.table.Table(box=rich.box.SIMPLE)
    needs = [min(_least(table, k), width - AROUND - 1) for k in range(len(table.columns))]
    spare = width - 1 - sum(need + AROUND for need in needs)
    for k, (name, need) in enumerate(zip(table.columns, needs, strict=True)):
        more = max(0, min(spare, max(map(len, _texts(table, k))) - need))
        spare -= more
        drawn.add_column(name, justify="left" if k == 0 else "right", overflow="fold", width=need + more)
    for row in table.rows:
        drawn.add_row(*(rich.text.Text(_shown(cell)) for cell in row))
    return drawn


def _shown(text: str) -> str:
    return CONTROL.sub("?", text)
