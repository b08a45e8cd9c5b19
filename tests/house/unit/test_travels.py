"""What travels to a device is one list of folders; ruff, the packed program and the documents follow from it."""

import ast
import io
import sys
import tomllib
import zipfile

import pytest

from edgeloop.runtime.program import FOLDERS, GROUND_FLOOR, program
from edgeloop.runtime_table import RUNTIMES

PATTERNS = (f"src/edgeloop/{{{','.join(GROUND_FLOOR)}}}.py", f"*/edgeloop/{{{','.join(FOLDERS)}}}/**/*.py")
TRAVELS = [f"src/edgeloop/{name}.py" for name in GROUND_FLOOR] + [f"*/edgeloop/{name}/**/*.py" for name in FOLDERS]
# what a device may have beside a runtime, each for one thing it can do: pictures as input, LoadGen, rounds of Flower
# with what its connection brings, protobuf for TFRecord files among it
MORE = {"PIL", "mlperf_loadgen", "flwr", "httpx", "cryptography", "google"}
ALLOWED = {*sys.stdlib_module_names, "numpy", *MORE, *(runtime.module for runtime in RUNTIMES.values())}


def imported(source: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def refused(name: str) -> bool:
    """Whether a file on a device may not import this."""
    top, _, rest = name.partition(".")
    if top != "edgeloop":
        return top not in ALLOWED
    path = rest.replace(".", "/") + "/"
    return path.partition("/")[0] not in GROUND_FLOOR and not any(path.startswith(f"{name}/") for name in FOLDERS)


@pytest.mark.parametrize("files", TRAVELS)
def test_what_travels_is_python_3_9(root, files):
    found = sorted(root.glob(files))
    assert found
    for file in found:
        tree = ast.parse(file.read_text(), str(file), feature_version=(3, 9))
        future = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
        assert "annotations" in future, "`int | None` in a signature is evaluated by Python 3.9 unless it is postponed"
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        # of dataclass and zip: newer than 3.9, and no matter of syntax
        assert not {keyword.arg for call in calls for keyword in call.keywords} & {"slots", "kw_only", "strict"}


@pytest.mark.parametrize("files", TRAVELS)
def test_what_travels_imports_numpy_a_runtime_and_what_travels_with_it(root, files):
    for file in root.glob(files):
        assert [name for name in sorted(imported(file.read_text())) if refused(name)] == [], file


@pytest.mark.parametrize(
    ("line", "is_refused"),
    [
        ("import tensorflow.lite", False),  # a runtime to compare with
        ("import keras", True),
        ("def f():\n    from rich import print", True),
        ("from edgeloop.extras import need", True),
        ("from edgeloop.runtime import client", True),
        ("from edgeloop.runtime.agent import survey", False),
        ("import edgeloop.errors", False),
    ],
)
def test_an_import_that_a_device_lacks_would_be_seen(line, is_refused):
    assert any(map(refused, imported(line))) is is_refused


def test_ruff_holds_the_same_files_to_python_3_9(root):
    ruff = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["ruff"]
    assert ruff["per-file-target-version"] == dict.fromkeys(PATTERNS, "py39")
    assert {name for name, rules in ruff["lint"]["per-file-ignores"].items() if rules == ["PTH"]} == set(PATTERNS)


def test_the_packed_program_holds_these_files_and_no_other(root):
    with zipfile.ZipFile(io.BytesIO(program())) as archive:
        packed = {name for name in archive.namelist() if name.endswith(".py")}
    paths = [path.relative_to(root).as_posix() for files in TRAVELS for path in root.glob(files)]
    assert packed == {f"edgeloop/{path.partition('/edgeloop/')[2]}" for path in paths} | {"__main__.py"}


def test_the_document_names_each_folder_and_each_module_that_travels(root):
    _, _, text = (root / "docs/architecture.md").read_text().partition("## What travels to a device")
    text, _, _ = text.partition("\n## ")
    for names in ([f"`{name}/`" for name in FOLDERS], [f"`{name}`" for name in GROUND_FLOOR]):
        assert ", ".join(names) in " ".join(text.split()), f"name {names} there"
