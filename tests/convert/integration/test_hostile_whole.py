"""Hostile files through the whole of `edgeloop convert`: one line, exit 4, nothing left on the disk or running."""

import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hostile_files as made
import numpy as np
import pytest

from edgeloop import cli
from edgeloop.convert import convert as parent
from edgeloop.convert.convert import convert
from edgeloop.convert.options import ConvertOptions
from edgeloop.errors import ModelError

X = np.array([[1.0, -2.0]], np.float32)
# each case takes a worker of its own, half a second; tests/convert/unit/test_hostile.py reads every one without
SAMPLE = list(made.HOSTILE)[::6]


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def children() -> list[str]:
    tasks = Path("/proc/self/task").iterdir()
    return [pid for task in tasks for pid in (task / "children").read_text().split()]


@pytest.fixture(scope="module")
def refused(request, tmp_path_factory) -> dict[str, tuple[Exception | None, list[str], list[str]]]:
    """By case that is tested: what `convert` raised, and what lay beside the file before and after."""
    folder = tmp_path_factory.mktemp("hostile")
    ours = [item for item in request.session.items if item.path == request.path and "refused" in item.fixturenames]
    cases = [item.callspec.params["case"] for item in ours]

    def one(case: str, number: int) -> tuple[Exception | None, list[str], list[str]]:
        place = folder / str(number)
        place.mkdir()
        path, error = made.HOSTILE[case][0](place), None
        before = tree(place)
        try:
            convert(path, place / "new" / "bundle", ConvertOptions(cache=False))
        except Exception as e:
            error = e
        return error, before, tree(place)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(cases, pool.map(one, cases, range(len(cases))), strict=True))


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in SAMPLE else pytest.mark.faults) for case in made.HOSTILE]
)
def test_a_hostile_file_is_refused_in_one_line_and_leaves_nothing(refused, case):
    error, before, after = refused[case]
    assert isinstance(error, ModelError), error
    with pytest.raises(ModelError, match=made.HOSTILE[case][1]):
        raise error
    assert "\n" not in str(error)
    assert after == before


@pytest.mark.parametrize("case", ["an HTML page", ".keras: a slip", ".onnx: data at an absolute path"])
def test_the_command_says_one_line_and_ends_with_4(tmp_path, capfd, case):
    path = made.HOSTILE[case][0](tmp_path)
    before = tree(tmp_path)
    assert cli.run(["convert", str(path), "-o", str(tmp_path / "b")]) == 4
    said = capfd.readouterr()
    assert said.out == "" and said.err.startswith("edgeloop: ") and said.err.count("\n") == 1
    assert tree(tmp_path) == before


def layer(kind: str, name: str, **config: object) -> dict:
    """As Keras 3 writes it, complete enough to be loaded."""
    whole = {"name": name, "trainable": True, "dtype": "float32", **config}
    return {"module": "keras.layers", "class_name": kind, "config": whole, "registered_name": None}


def test_a_layer_of_14_gigabytes_is_ended_by_the_memory_limit(tmp_path):
    h5py = pytest.importorskip("h5py")
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        file.create_group("layers")
    wide = [layer("InputLayer", "x", batch_shape=[None, 60000]), layer("Dense", "wide", units=60000)]
    model = {"module": "keras", "class_name": "Sequential", "config": {"name": "m", "layers": wide}}
    made.keras_file(tmp_path / "m.keras", model, {"model.weights.h5": weights.getvalue()})
    with pytest.raises(
        ModelError, match=r"^reading the model took [2-3],\d\d\d MB of memory, more than 2,000.*--memory"
    ):
        convert(tmp_path / "m.keras", tmp_path / "b", ConvertOptions(cache=False))
    assert tree(tmp_path) == ["m.keras"]
    assert children() == []


@pytest.fixture
def spy(tmp_path) -> tuple[Path, Path]:
    """A .keras of x * 3 whose Lambda writes a file when it is called, and that file."""
    keras = pytest.importorskip("keras")
    evil = tmp_path / "evil"
    x = keras.Input((2,), name="x")
    # the path inside of the code: Keras loads no Lambda with defaults
    code = eval(f"lambda t: (open({str(evil)!r}, 'w').close(), t * 3.0)[1]")
    keras.Model(x, keras.layers.Lambda(code, name="triple")(x)).save(tmp_path / "m.keras")
    evil.unlink()
    return tmp_path / "m.keras", evil


def test_a_lambda_runs_only_when_allowed_and_what_was_allowed_is_said(spy, tmp_path, capfd):
    model, evil = spy
    assert cli.run(["convert", str(model), "-o", str(tmp_path / "b")]) == 4
    assert "the Lambda layer 'triple', which is Python code" in capfd.readouterr().err
    assert tree(tmp_path) == ["m.keras"]
    command = ["convert", str(model), "-o", str(tmp_path / "b"), "--allow-unsafe", "--to", "tflite"]
    assert cli.run(command) == 0
    out = capfd.readouterr().out
    assert "--allow-unsafe: m.keras has the Lambda layer 'triple', which is Python code." in out
    assert evil.exists()
    from ai_edge_litert.interpreter import Interpreter

    answer = Interpreter(model_path=str(tmp_path / "b" / "float32.tflite")).get_signature_runner("infer")(x=X)
    np.testing.assert_array_equal(answer["triple"], 3 * X)


def test_a_worker_that_dies_is_a_refused_model_and_no_bug(tmp_path, monkeypatch, capfd):
    """As a crash in native code does while a hostile file is loaded."""
    (tmp_path / "worker.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setattr(parent, "WORKER", (str(tmp_path / "worker.py"),))
    model = made.honest(tmp_path)["tflite"]
    before = tree(tmp_path)
    assert cli.run(["convert", str(model), "-o", str(tmp_path / "b"), "--no-cache"]) == 4
    assert "crashed (signal SIGSEGV)" in capfd.readouterr().err
    assert tree(tmp_path) == before
