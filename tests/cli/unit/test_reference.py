"""docs/cli.md is what `--help` prints, page by page.

EDGELOOP_WRITE_CLI=1 pytest tests/cli/unit/test_reference.py      writes it anew
"""

import os
import re

from edgeloop import cli
from edgeloop.errors import INTERRUPTED, EdgeloopError
from edgeloop.verbs import VERBS

HEAD = """# Command line

What `edgeloop VERB --help` prints, for every verb. With `--json` a command prints one JSON document on standard output,
also for an error: `{"error": {"type", "exit_code", "found", "advice"}}`. Without it, tables are for people, and
messages and progress go to standard error.

| exit code | meaning |
|---|---|
| 0 | the command did what it says |
| 1 | a bug in edgeloop; the message names a file with the traceback |
| 2 | options that do not exist or contradict each other |
| 3 | something is not installed; the message has the line that installs it |
| 4 | the model or bundle is refused: unreadable, unsafe, unsupported, over a limit |
| 5 | a variant does not compute what the model computes |
| 6 | a budget of accuracy or time is not met |
| 7 | the target cannot run the model |
| 8 | a device or server failed or cannot be reached, or a port is in use |
| 9 | a hash or a signature is wrong |
| 10 | data is refused |
| 11 | a file cannot be written |
| 130 | interrupted |
"""


def test_the_reference_is_what_help_prints(root, monkeypatch, capfd):
    monkeypatch.setenv("COLUMNS", "100")
    parts = [HEAD]
    pages = dict.fromkeys(name for verb in VERBS for name in ("", verb.split()[0], verb))  # a group before its verbs
    for name in pages:
        assert cli.run([*name.split(), "--help"]) == 0
        parts.append(f"## edgeloop {name}".rstrip() + f"\n\n```text\n{capfd.readouterr().out.rstrip()}\n```\n")
    page = root / "docs/cli.md"
    if os.environ.get("EDGELOOP_WRITE_CLI") == "1":
        page.write_text("\n".join(parts))
    assert page.read_text() == "\n".join(parts), f"{page} is out of date: run this test with EDGELOOP_WRITE_CLI=1"


def test_every_exit_code_stands_in_the_reference():
    codes = {0, INTERRUPTED, *(error.exit_code for error in (EdgeloopError, *EdgeloopError.__subclasses__()))}
    assert len(codes) == 13
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", HEAD, re.MULTILINE)} == codes
