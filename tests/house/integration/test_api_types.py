"""A user's own type checker, beside the installed wheel: it sees the type of every public name."""

import subprocess
import sys
import venv
import zipfile
from importlib.util import find_spec

import pytest

from edgeloop import api

pytestmark = pytest.mark.skipif(find_spec("mypy") is None, reason="mypy is not installed: make setup")

PROGRAM = """\
from pathlib import Path

from edgeloop.api import (
{names}
)

made = convert("model.keras", "m/", ConvertOptions(calibration=Path("cal.npz")))
bundle: Bundle = made.bundle
p50: float | None = bench("m/").records[0].p50_ms
with browse("m/") as page:
    url: str = page.url
for answer in run("local"):
    answer["outputs"]
reveal_type(bundle.manifest.version)
{wrong}
"""
WRONG = {
    'convert("model.keras")': 'Missing positional argument "out"',
    'ConvertOptions(release="1")': '"ConvertOptions" has incompatible type "str"; expected "int"',
    'bench("m/").records[0].p50': '"Latency" has no attribute "p50"',
    "from edgeloop.api import covert": 'Module "edgeloop.api" has no attribute "covert"',
}


@pytest.fixture(scope="module")
def messages(wheel, tmp_path_factory) -> list[str]:
    """What mypy says of PROGRAM in an environment that holds the wheel and nothing else."""
    folder = tmp_path_factory.mktemp("user")
    venv.create(folder / "venv", symlinks=True)
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    zipfile.ZipFile(wheel).extractall(site)
    names = "\n".join(f"    {name}," for name in api.__all__)
    (folder / "user.py").write_text(PROGRAM.format(names=names, wrong="\n".join(WRONG)))
    python = folder / "venv" / "bin" / "python"
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--python-executable",
        python,
        "--cache-dir",
        "cache",
        "user.py",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)
    return done.stdout.splitlines()


def test_a_right_program_passes_and_its_types_are_known(messages):
    revealed = [line for line in messages if "Revealed type" in line]
    assert len(revealed) == 1 and 'is "int"' in revealed[0].replace("builtins.", ""), messages
    errors = [line for line in messages if " error: " in line]
    assert len(errors) == len(WRONG), "\n".join(messages)


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_line_is_an_error_that_names_it(messages, line):
    assert [message for message in messages if WRONG[line] in message], "\n".join(messages)
