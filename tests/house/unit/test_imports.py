"""Imports that are light, and arrows that point down where an import graph cannot look."""

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

HEAVY = {
    "tensorflow", "keras", "tf_keras", "tensorflowjs", "torch", "jax", "flwr", "ray", "onnx", "onnxruntime", "tf2onnx",
    "ai_edge_litert", "ai_edge_quantizer", "tflite_runtime", "sklearn", "scipy", "matplotlib", "h5py", "playwright",
    "mlperf_loadgen", "pyarrow", "apache_beam",
}  # fmt: skip
PROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
LAYERS = PROJECT["tool"]["importlinter"]["contracts"][0]
*BASE_FOLDERS, GROUND_FLOOR = (  # as the import contract has them: its last layer, and the three above it
    {f"edgeloop.{name}" for name in layer.split(" : ")} for layer in LAYERS["layers"][-4:]
)
NOT_ON_A_DEVICE = {"tensorflow", "keras", "tf_keras", "tensorflowjs"}


def heavy_modules_after(code: str, *folders) -> set[str]:
    """Which of HEAVY a fresh interpreter holds after `code`; `folders` go first on its path."""
    report = "\nimport json, sys; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    start = f"import sys; sys.path[:0] = {[str(folder) for folder in folders]!r}\n"
    done = subprocess.run([sys.executable, "-c", start + code + report], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return HEAVY & {name.partition(".")[0] for name in json.loads(done.stderr.splitlines()[-1])}


HELP = "from edgeloop.cli import run\nassert run(['--help']) == 0"


def test_help_imports_no_framework():
    assert heavy_modules_after(HELP) == set()


def test_the_help_of_every_verb_imports_no_framework():
    """Whoever has installed no extra, or another one, can read it."""
    pages = "from edgeloop.cli import run\nfrom edgeloop.verbs import GROUPS, VERBS\n"
    assert (
        heavy_modules_after(pages + "for page in (*GROUPS, *VERBS): assert run([*page.split(), '--help']) == 0")
        == set()
    )


def test_a_framework_that_help_imported_would_be_seen(tmp_path):
    (tmp_path / "tensorflow").mkdir()  # a planted one: the real one takes eight seconds
    (tmp_path / "tensorflow" / "__init__.py").write_text("from . import python")
    (tmp_path / "tensorflow" / "python.py").write_text("")
    assert heavy_modules_after(HELP + "\nimport tensorflow", tmp_path) == {"tensorflow"}


def test_the_ground_floor_imports_no_more_than_numpy():
    lines = "\n".join(f"import {name}" for name in sorted(GROUND_FLOOR))
    assert heavy_modules_after(lines) == set()


def imports(path) -> set[str]:
    """Full names of everything a file imports, wherever it stands, also by name: `need("x")`, `import_module("x")`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import; write the whole name"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in {"need", "import_module", "__import__", "importorskip"}:
                found.add(str(node.args[0].value))
    return found


def within(name: str, modules: set[str]) -> bool:
    return any(name == module or name.startswith(module + ".") for module in modules)


def test_the_ground_floor_uses_the_standard_library_numpy_and_itself(root):
    allowed = set(sys.stdlib_module_names) | {"numpy"} | GROUND_FLOOR
    for name in GROUND_FLOOR:
        used = imports(root / "src" / f"{name.replace('.', '/')}.py")
        assert [module for module in sorted(used) if not within(module, allowed)] == [], name


def test_what_runs_on_a_device_or_speaks_with_one_never_asks_for_tensorflow(root):
    folders = [root / "src" / name.replace(".", "/") for layer in BASE_FOLDERS for name in sorted(layer)]
    paths = [path for folder in [*folders, root / "edge/edgeloop"] for path in folder.rglob("*.py")]
    assert len(paths) > 100
    for path in paths:
        assert [name for name in sorted(imports(path)) if within(name, NOT_ON_A_DEVICE)] == [], path


@pytest.mark.parametrize(
    "line",
    ["import tensorflow as tf", "def f():\n    from tensorflow.lite import x", "tf = need('tensorflow', extra='x')",
     "importlib.import_module('tensorflow')"],
)  # fmt: skip
def test_an_import_of_tensorflow_would_be_seen(tmp_path, line):
    (tmp_path / "x.py").write_text(line)
    assert any(within(name, NOT_ON_A_DEVICE) for name in imports(tmp_path / "x.py"))
