"""What reaches a terminal: none of it moves the cursor, whoever wrote it."""

import io

from edgeloop.console import Console
from edgeloop.result import CommandResult, Table

HOSTILE = "a\x1b[2Jb\x07c\x9bd\u202ee\rf"
SHOWN = "a?[2Jb?c?d?e?f"


def test_control_characters_of_a_device_do_not_reach_the_terminal(capsys):
    stderr = io.StringIO()
    console = Console(json=False, stderr=stderr)
    console.say(HOSTILE)
    console.error(HOSTILE)
    console.show(CommandResult({}, [Table("", ("x",), [(HOSTILE,)])], notes=[HOSTILE]))
    # an error is one line, so a carriage return is a blank there
    assert stderr.getvalue() == f"{SHOWN}\nedgeloop: {SHOWN[:-2]} f\n"
    assert capsys.readouterr().out.count(SHOWN) == 2
