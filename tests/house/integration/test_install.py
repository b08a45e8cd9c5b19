"""`pip install` of the wheel into an empty environment, of whatever is newest today, held back by no lock of ours."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MINORS = (11, 12, 13)
EVERY_HELP = """
import contextlib, io
from edgeloop import cli
from edgeloop.verbs import GROUPS, VERBS
for page in ("", *GROUPS, *VERBS):
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = cli.run([*page.split(), "--help"])
    assert code == 0 and f"Usage: {' '.join(['edgeloop', *page.split()])} " in printed.getvalue(), (page, code)
print(len(VERBS))
"""
MODEL = """
import sys
import keras
inputs = keras.Input((8, 8, 1), name="image")
hidden = keras.layers.Flatten()(keras.layers.Conv2D(4, 3, activation="relu")(inputs))
keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(hidden)).save(sys.argv[1])
"""


def pythons() -> dict[str, str]:
    """Interpreters on this machine by version, e.g. {"3.12": "/usr/bin/python3.12"}; ours first.

    pyenv's shims are passed by: one may be there for a version that it then refuses to run.
    """
    found = {f"3.{sys.version_info.minor}": sys.executable}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for minor in MINORS:
        name = f"python3.{minor}"
        on_path = [shutil.which(name, path=folder) for folder in os.environ["PATH"].split(os.pathsep)]
        there = [path for path in on_path if path and "shims" not in path]
        there += map(str, sorted(pyenv.glob(f"3.{minor}.*/bin/{name}")))
        if there:
            found.setdefault(f"3.{minor}", there[0])
    return found


PYTHONS = pythons()


def command(*arguments, timeout_s=240):
    env = {**os.environ, "XDG_DATA_HOME": "/nonexistent"}  # the user's device environment is none of a new user's
    done = subprocess.run([*map(str, arguments)], capture_output=True, text=True, timeout=timeout_s, cwd="/", env=env)
    assert done.returncode == 0, f"{arguments[:3]} ended with {done.returncode}: {done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def install(wheel, tmp_path_factory):
    """install(python, extra): an environment with the wheel and that extra in it, as the newest packages fit."""

    folders = []

    def install(python, extra):
        folder = tmp_path_factory.mktemp("environment") / "venv"
        folders.append(folder)
        uv = Path(sys.executable).with_name("uv")
        command(uv, "--quiet", "venv", "--python", python, folder)
        command(uv, "--quiet", "pip", "install", "--python", folder / "bin/python", f"{wheel}[{extra}]")
        return folder / "bin"

    yield install
    for folder in folders:  # pytest would keep those of its last three runs, 2.5 GB each
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def edge(install):
    """An environment with edgeloop[edge], of the Python that runs these tests."""
    return install(sys.executable, "edge")


def packages(bin):
    """Names of the distributions in an environment."""
    look = "import importlib.metadata as m; print(*(d.name.lower() for d in m.distributions()))"
    return set(command(bin / "python", "-c", look).split())


@pytest.mark.parametrize("version", PYTHONS)
def test_every_verb_shows_its_help_on_every_python_without_a_framework(install, edge, version):
    bin = edge if PYTHONS[version] == sys.executable else install(PYTHONS[version], "edge")
    assert command(bin / "python", "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip() == version
    assert "Usage: edgeloop " in command(bin / "edgeloop", "--help")
    assert int(command(bin / "python", "-c", EVERY_HELP)) > 10
    there = packages(bin)
    assert "ai-edge-litert" in there and not {"tensorflow", "flwr", "click"} & there


def test_edge_alone_measures_and_inspects_a_tflite(edge, root):
    model = root / "tests/golden/bundle-1/float32.tflite"
    measured = json.loads(command(edge / "edgeloop", "bench", model, "--json"))
    assert {row["runtime"] for row in measured["bench"]} == {"litert"}
    assert "float32" in command(edge / "edgeloop", "inspect", model)


def test_federated_alone_has_flower_and_no_tensorflow(install):
    bin = install(sys.executable, "federated")
    there = packages(bin)
    assert {"flwr", "ai-edge-litert"} <= there and not {"tensorflow", "keras", "onnxruntime"} & there
    assert "Usage: edgeloop federate run " in command(bin / "edgeloop", "federate", "run", "--help")
    modules = ("rounds.run_rounds", "rounds.server_app", "device.client_app")
    look = "import " + ", ".join(f"edgeloop.federated.{module}" for module in modules)
    command(bin / "python", "-c", look)


@pytest.mark.soak
@pytest.mark.timeout(2400)  # 2.3 GB of packages
@pytest.mark.parametrize("version", PYTHONS)
def test_pip_installs_convert_on_every_python_and_a_model_converts(wheel, tmp_path, version):
    bin = tmp_path / "venv/bin"
    command(PYTHONS[version], "-m", "venv", bin.parent)
    try:
        command(bin / "pip", "install", "--quiet", f"{wheel}[convert]", timeout_s=1800)
        command(bin / "python", "-c", MODEL, tmp_path / "model.keras")
        command(bin / "edgeloop", "convert", tmp_path / "model.keras", "-o", tmp_path / "bundle", timeout_s=600)
    finally:
        shutil.rmtree(bin.parent)
    proved = json.loads((tmp_path / "bundle/proof.json").read_text())["parity"]
    assert proved and all(row["passed"] for row in proved)


def test_convert_alone_converts_and_proves_and_says_how_to_get_tfjs(install, tmp_path):
    bin = install(sys.executable, "convert")
    command(bin / "python", "-c", MODEL, tmp_path / "model.keras")
    converted = command(bin / "edgeloop", "convert", tmp_path / "model.keras", "-o", tmp_path / "bundle")
    assert "tfjs was not written" in converted and "edgeloop setup tfjs" in converted
    proved = json.loads((tmp_path / "bundle/proof.json").read_text())["parity"]
    assert {row["variant"] for row in proved} == {"float32", "float16", "dynamic", "onnx"}
    assert all(row["passed"] for row in proved)
