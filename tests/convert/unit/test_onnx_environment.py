"""When the environment of onnx2tf is made, and what a name becomes. No package is installed here."""

import pytest

from edgeloop.convert.sources import onnx_environment
from edgeloop.convert.sources.names import identifiers
from edgeloop.errors import MissingExtra, WriteError
from edgeloop.runtime import environment


@pytest.fixture
def built(tmp_path, monkeypatch):
    """An empty place for the environment, and the list of installations made."""
    calls = []
    monkeypatch.delenv("EDGELOOP_ONNX2TF_PYTHON", raising=False)
    monkeypatch.setattr(onnx_environment, "environment_folder", lambda name: tmp_path / name)
    monkeypatch.setattr(onnx_environment, "install", lambda python, arguments: calls.append(arguments))
    monkeypatch.setattr(onnx_environment, "run_program", lambda command, failed, **how: "a warning\n1.28.8\n")
    return calls


def test_it_is_made_on_first_use_from_the_lock_and_not_again(built, tmp_path):
    told = []
    python = onnx_environment.onnx2tf_python(lambda what, done, total: told.append((what, done)))
    assert python == tmp_path / "onnx2tf/bin/python" and python.exists()
    assert onnx_environment.onnx2tf_python() == python
    assert len(built) == 1 and "--require-hashes" in built[0] and "--no-deps" in built[0]
    assert [done for _, done in told] == [0, 1] and "once" in told[0][0]


def test_it_is_made_again_when_its_lock_has_changed(built, monkeypatch):
    onnx_environment.onnx2tf_python()
    monkeypatch.setattr(onnx_environment, "_lock_digest", lambda: "another")
    onnx_environment.onnx2tf_python()
    assert len(built) == 2


def test_half_an_environment_is_taken_away_and_the_line_to_run_is_named(built, tmp_path, monkeypatch):
    def fails(python, arguments):
        raise MissingExtra("no index.")

    monkeypatch.setattr(onnx_environment, "install", fails)
    with pytest.raises(MissingExtra, match=r"no index\. Then run: edgeloop setup onnx2tf"):
        onnx_environment.onnx2tf_python()
    assert not (tmp_path / "onnx2tf").exists()


def test_an_interpreter_that_is_named_is_taken_as_it_is(built, monkeypatch):
    monkeypatch.setenv("EDGELOOP_ONNX2TF_PYTHON", "/opt/python")
    assert str(onnx_environment.onnx2tf_python()) == "/opt/python" and not built


def test_two_processes_do_not_make_one_environment_at_once(tmp_path):
    with (
        environment.one_at_a_time(tmp_path / "env"),
        pytest.raises(MissingExtra, match=r"for 0\.1 s"),
        environment.one_at_a_time(tmp_path / "env", timeout_s=0.1),
    ):
        raise AssertionError("both were let in")
    with environment.one_at_a_time(tmp_path / "env", timeout_s=0.1):
        pass


def test_a_place_that_cannot_exist_is_a_write_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=r"env\.lock"), environment.one_at_a_time(tmp_path / "file" / "env"):
        raise AssertionError("it was let in")


@pytest.mark.parametrize(
    ("names", "clean"),
    [
        (["x", "my-in"], ["x", "my_in"]),
        (["/x.1", "495"], ["x_1", "t495"]),  # TensorFlow drops an underscore that a name begins with
        (["é", ""], ["t_0", "t_1"]),
        (["a-b", "a_b", "a_b_0"], ["a_b_0", "a_b_1", "a_b_0_2"]),
    ],
)
def test_names_become_identifiers_and_no_two_are_the_same(names, clean):
    assert identifiers(names) == clean
