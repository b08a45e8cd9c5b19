"""What reaches a terminal: none of it moves the cursor, whoever wrote it."""

import io

import pytest

from edgeloop.console import Console, fit
from edgeloop.errors import OptionsError
from edgeloop.result import CommandResult, Table

HOSTILE = "a\x1b[2Jb\x07c\x9bd\u202ee\rf"
SHOWN = "a?[2Jb?c?d?e?f"


def test_control_characters_of_a_device_do_not_reach_the_terminal(capsys):
    stderr = io.StringIO()
    console = Console(json=False, stderr=stderr)
    console.say(HOSTILE)
    console.error(OptionsError(HOSTILE))
    console.show(CommandResult({}, [Table("", ("x",), [(HOSTILE,)])], notes=[HOSTILE]))
    # an error is one line, so a carriage return is a blank there
    assert stderr.getvalue() == f"{SHOWN}\nedgeloop: {SHOWN[:-2]} f\n"
    assert capsys.readouterr().out.count(SHOWN) == 2


WIDE = Table(
    "what it is",
    ("variant", "size", "accuracy", "checked on"),
    [("float32", "12.3 kB", "97.5%", "litert, tflite-runtime"), ("int8-with-a-long-name", "4.5 kB", "97.2%", "litert")],
)


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (100, ("variant", "size", "accuracy", "checked on")),
        # 21 + 7 + 8 + 14 letters of the longest words and short cells, 3 around each, 1 more: 63
        (63, ("variant", "size", "accuracy", "checked on")),
        (62, ("variant", "size", "accuracy")),
        (30, ("variant",)),
        (5, ("variant",)),
    ],
)
def test_a_table_drops_its_last_columns_where_a_word_would_break(width, columns):
    fitting = fit(WIDE, width)
    assert fitting.columns == columns
    assert fitting.rows == [row[: len(columns)] for row in WIDE.rows]


def test_a_narrow_terminal_shows_whole_words_and_names_the_columns_left_out(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "50")
    Console(json=False, stderr=io.StringIO()).show(CommandResult({}, [WIDE, WIDE], notes=["A note."]))
    out = capsys.readouterr().out
    assert "int8-with-a-long-name" in out and "litert" not in out
    assert max(map(len, out.splitlines())) <= 86  # the line that names them is wrapped by the terminal
    assert "Columns left out at this width: checked on. Widen the terminal, or use --json.\nA note.\n" in out


def test_json_has_one_document_whatever_comes_after_it(capsys):
    stderr = io.StringIO()
    console = Console(json=True, stderr=stderr)
    console.show(CommandResult({"a": 1}))
    console.error(OptionsError("b is c", advice="Write d."))
    assert capsys.readouterr().out == '{"a": 1}\n'
    assert stderr.getvalue() == "edgeloop: b is c. Write d.\n"


def test_a_table_that_just_fits_breaks_no_word(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "63")
    Console(json=False, stderr=io.StringIO()).show(CommandResult({}, [WIDE]))
    words = capsys.readouterr().out.split()
    assert {"int8-with-a-long-name", "litert,", "tflite-runtime", "12.3"} <= set(words)
