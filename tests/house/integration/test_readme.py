"""What the README shows is what a user gets."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest


@pytest.fixture(scope="module")
def desk(root, tmp_path_factory):
    """A folder with mine.keras and c.npz, and the README's text."""
    keras = pytest.importorskip("keras")
    folder = tmp_path_factory.mktemp("desk")
    layers = [keras.Input((8, 8, 1), name="image"), keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")]
    keras.Sequential(layers).save(folder / "mine.keras")
    np.savez(folder / "c.npz", x=np.random.default_rng(0).random((32, 8, 8, 1), np.float32))
    return folder, (root / "README.md").read_text()


def test_the_commands_of_one_verb_at_a_time_run_in_their_order(desk):
    folder, text = desk
    lines = re.findall(r"^(edgeloop (?:convert|inspect|verify|bench) [^#\n]*)", text, re.MULTILINE)
    assert [line.split()[1] for line in lines] == ["convert", "convert", "inspect", "verify", "bench"]
    for line in lines:
        command = [sys.executable, "-m", *line.split(), *(["--to", "tflite"] if "convert" in line else [])]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, env=os.environ)
        assert done.returncode == 0, f"{line}: {done.stderr}"


def test_the_five_lines_of_python_do_what_the_command_does(desk):
    folder, text = desk
    (script,) = re.findall(r"```python\n(from edgeloop.convert.convert.*?)```", text, re.DOTALL)
    assert len([line for line in script.splitlines() if line]) <= 5
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    said = [line.split() for line in done.stdout.splitlines()]
    assert {line[0] for line in said} == {"float32", "float16", "dynamic", "onnx", "tfjs"}
    assert {line[-1] for line in said} == {"True"}
