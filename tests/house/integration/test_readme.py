"""What the README shows is what a user gets. Its commands are those of docs/first-steps.md, which a test follows."""

import re
import subprocess
import sys

import pytest


def test_the_commands_of_the_readme_are_those_of_the_first_steps(root):
    shown = re.findall(r"^\$ (edgeloop .+)$", (root / "README.md").read_text(), re.MULTILINE)
    followed = (root / "docs/first-steps.md").read_text().splitlines()
    assert [line.split()[1] for line in shown] == ["convert", "bench", "deploy"]
    assert [line for line in shown if line not in followed] == []


def test_the_five_lines_of_python_do_what_the_command_does(root, tmp_path):
    keras = pytest.importorskip("keras")
    layers = [keras.Input((8, 8, 1), name="image"), keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")]
    keras.Sequential(layers).save(tmp_path / "model.keras")
    (script,) = re.findall(r"```python\n(from edgeloop\.api.*?)```", (root / "README.md").read_text(), re.DOTALL)
    assert len([line for line in script.splitlines() if line]) <= 5
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    said = [line.split() for line in done.stdout.splitlines()]
    assert {line[0] for line in said} == {"float32", "float16", "dynamic", "onnx", "tfjs"}
    assert {line[-1] for line in said} == {"True"}
