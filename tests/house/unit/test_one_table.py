"""One table says which runtimes there are; every other module asks it."""

import ast
import re

import pytest

from edgeloop.runtime_table import RUNTIMES, TENSORFLOW

PORTIONS = ("src", "convert", "edge", "federated", "browser", "cloud")
TABLE = "src/edgeloop/runtime_table.py"
# TensorFlow is more than a runtime: as the converter and the trainer it is named in many places
OURS = {text for one in RUNTIMES.values() if one is not TENSORFLOW for text in (one.name, one.module, one.package)}
NAMES = {one.name for one in RUNTIMES.values() if one.name != one.module}  # of others, `import onnxruntime` is one more
# a bundle tells their versions; none is chosen
PACKAGES_OF_THE_TOOLCHAIN = {"convert/edgeloop/convert/proof/prove_bundle.py"}


def second_lists(source: str) -> list[str]:
    """Strings of a module that name a runtime, or several in one list or sentence; docstrings may."""
    tree = ast.parse(source)
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    strings = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    said = [node.value for node in strings if id(node) not in docs]
    named = [text for text in said if text in NAMES or len(words(text) & OURS) > 1]
    for node in ast.walk(tree):
        inside = node.keys if isinstance(node, ast.Dict) else getattr(node, "elts", ())
        listed = [part.value for part in inside if isinstance(part, ast.Constant) and part.value in OURS]
        named += [", ".join(listed)] if len(listed) > 1 else []
    return named


def words(text: str) -> set[str]:
    return set(re.findall(r"[\w-]+", text))


def test_no_other_module_has_a_list_of_runtimes(root):
    found = {}
    for portion in PORTIONS:
        for path in (root / portion / "edgeloop").rglob("*.py"):
            name = path.relative_to(root).as_posix()
            if name not in {TABLE, *PACKAGES_OF_THE_TOOLCHAIN} and (lists := second_lists(path.read_text())):
                found[name] = lists
    assert found == {}


@pytest.mark.parametrize(
    ("source", "seen"),
    [
        ("RUNTIMES = {'litert': 1}", True),
        ("x = ('onnxruntime', 'ai_edge_litert')", True),
        ("help = 'litert, tflite-runtime; repeat.'", True),
        ("import onnxruntime; need('onnxruntime.quantization')", False),
        ("'''litert, tflite-runtime'''", False),
    ],
)
def test_such_a_list_would_be_seen(source, seen):
    assert bool(second_lists(source)) is seen


def test_the_document_has_the_table_as_the_code_has_it(root):
    yes = {True: "yes", False: "no"}
    rows = [
        f"| `{one.name}` | {', '.join(sorted(f.value for f in one.formats))} | {one.package} | {yes[one.trains]} "
        f"| {yes[one.comparison]} |"
        for one in RUNTIMES.values()
    ]
    assert "\n".join(["|---|---|---|---|---|", *rows, ""]) in (root / "docs/bundle.md").read_text()
