"""Bad input gets one line, the right exit code, no traceback, and leaves nothing half-written."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest


def edgeloop(*arguments, cwd=None, **env):
    command = [sys.executable, "-m", "edgeloop", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=cwd, env={**os.environ, **env})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files that are not what they seem, and one good model."""
    import gzip

    keras = pytest.importorskip("keras")
    folder = tmp_path_factory.mktemp("bad")
    (folder / "text.keras").write_text("this is no model")
    (folder / "empty.tflite").write_bytes(b"")
    (folder / "lfs.tflite").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    (folder / "empty").mkdir()
    (folder / "nodata").mkdir()
    keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(1)]).save(folder / "good.keras")
    np.savez(folder / "wrong.npz", x=np.zeros((20, 9), np.float32))
    data = folder / "mismatch"
    data.mkdir()
    for name, shape in (("images-idx3", (300, 8, 8)), ("labels-idx1", (299,))):
        header = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
        (data / f"t-{name}-ubyte.gz").write_bytes(gzip.compress(header + bytes(int(np.prod(shape)))))
    torn = folder / "torn"
    torn.mkdir()
    for name in ("images-idx3", "labels-idx1"):
        (torn / f"t-{name}-ubyte.gz").write_bytes((data / f"t-{name}-ubyte.gz").read_bytes()[:20])
    return folder


CASES = {
    "an unknown verb": (["conver"], 2, "has no verb 'conver'. Did you mean convert?"),
    "an unknown option": (
        ["convert", "good.keras", "-o", "out", "--quick"],
        2,
        "edgeloop convert has no option --quick.",
    ),
    "an unknown scheme": (["convert", "good.keras", "-o", "out", "--schemes", "int3"], 2, "'int3' is not known"),
    "int8 without data": (["convert", "good.keras", "-o", "out", "--schemes", "int8"], 2, "--calibration"),
    "a missing file": (["convert", "none.keras", "-o", "out"], 4, "none.keras does not exist"),
    "text named .keras": (["convert", "text.keras", "-o", "out"], 4, "text.keras is a text file"),
    "an empty file": (["convert", "empty.tflite", "-o", "out"], 4, "empty.tflite is an empty file"),
    "a git-lfs pointer": (["convert", "lfs.tflite", "-o", "out"], 4, "git-lfs pointer"),
    "an empty folder": (["convert", "empty", "-o", "out"], 4, "empty is an empty folder"),
    "data that does not fit": (
        ["convert", "good.keras", "-o", "out", "--calibration", "wrong.npz"],
        10,
        "shape [20, 9], and the model takes [n, 2]",
    ),
    "data that is no .npz": (["convert", "good.keras", "-o", "out", "--calibration", "text.keras"], 10, "an .npz"),
    "an output that is a file": (["convert", "good.keras", "-o", "good.keras"], 11, "is a file"),
    "an output below a file": (["convert", "good.keras", "-o", "text.keras/b"], 11, "cannot write"),
    "inspect of text": (["inspect", "text.keras"], 4, "not a model file of a known format"),
    "bench of a missing file": (["bench", "none.tflite"], 4, "none.tflite does not exist"),
    "bench on no device": (["bench", "wrong.npz", "--on", "mars"], 2, "'mars' is not a device"),
    "verify of no bundle": (["verify", "empty"], 4, "no manifest.json"),
    "browse of no bundle": (["browse", "empty", "--no-open"], 4, "no manifest.json"),
    "demo with mismatched labels": (["demo", "-o", "out", "--data", "mismatch"], 10, "300 images and t-labels"),
    "demo with torn files": (["demo", "-o", "out", "--data", "torn"], 10, "cannot be unpacked"),
    "demo without data": (["demo", "-o", "out", "--data", "nodata"], 10, "has no *images-idx3"),
    "demo into a file": (["demo", "-o", "text.keras"], 11, "cannot write"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_gets_one_line_and_its_exit_code(folder, case):
    arguments, code, message = CASES[case]
    before = sorted(p.name for p in folder.rglob("*"))
    done = edgeloop(*arguments, cwd=folder)
    assert done.returncode == code, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("edgeloop: "), done.stderr
    assert message in lines[0]
    assert "Traceback" not in done.stderr and done.stdout == ""
    assert sorted(p.name for p in folder.rglob("*")) == before, "something half-written was left"


def test_an_unwritable_output_is_exit_11(folder, tmp_path):
    if os.geteuid() == 0:  # root may write anywhere but here
        target = Path("/proc/edgeloop-bundle")
    else:
        target = tmp_path / "locked" / "b"
        target.parent.mkdir(mode=0o500)
    done = edgeloop("convert", folder / "good.keras", "-o", target)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (11, 1), done.stderr


def test_a_port_in_use_is_exit_8(folder, tmp_path):
    bundle = tmp_path / "b"
    assert edgeloop("convert", folder / "good.keras", "-o", bundle, "--to", "tflite").returncode == 0
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = edgeloop("browse", bundle, "--no-open", "--port", taken.getsockname()[1])
    assert done.returncode == 8
    assert "in use" in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_json_is_one_document_on_stdout_and_nothing_else(folder, tmp_path):
    done = edgeloop("convert", folder / "good.keras", "-o", tmp_path / "b", "--to", "tflite", "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 0 and done.stdout.count("\n") == 1
    assert [v["id"] for v in document["variants"]] == ["float32", "float16", "dynamic"]
    assert all(v["parity"]["passed"] for v in document["variants"])


@pytest.mark.parametrize("verb", ["verify", "bench"])
def test_a_keras_model_is_converted_on_the_way_and_nothing_of_it_stays(folder, tmp_path, verb):
    done = edgeloop(verb, folder / "good.keras", "--json", TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["variants" if verb == "verify" else "bench"]
    expected = {"float32", "float16", "dynamic"} | ({"onnx", "tfjs"} if verb == "verify" else set())
    assert {row.get("id", row.get("variant")) for row in rows} == expected
    assert list(tmp_path.iterdir()) == []
