"""What `edgeloop setup` promises when packages cannot be had."""

import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from edgeloop import setup
from edgeloop.errors import DataError, MissingExtra, WriteError
from edgeloop.processes.command import run_program
from edgeloop.runtime import device, environment


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A `uv` that fails, and a Python whose `-m pip` writes down what it was asked."""
    (tmp_path / "uv").write_text("#!/bin/sh\necho no index >&2\nexit 7\n")
    (tmp_path / "python").write_text(f"#!/bin/sh\necho \"$@\" > '{tmp_path}/asked'\n")
    for name in ("uv", "python"):
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    return tmp_path


def test_pip_is_asked_the_same_where_uv_fails(programs):
    environment.install(Path("device/bin/python"), ["--require-hashes", "-r", "device.txt"])
    asked = (programs / "asked").read_text()
    assert asked == "-m pip --python device/bin/python install --require-hashes -r device.txt\n"


def test_where_both_fail_both_reasons_are_named_in_one_line(programs):
    (programs / "python").write_text("#!/bin/sh\necho no matching distribution\nexit 1\n")
    with pytest.raises(MissingExtra) as refused:
        environment.install(Path("device/bin/python"), ["x"])
    message = str(refused.value)
    assert "failed (exit code 7): no index" in message and "failed (exit code 1): no matching" in message
    assert "\n" not in message


def test_a_program_that_fails_is_an_error_of_the_class_that_the_caller_names(tmp_path):
    with pytest.raises(MissingExtra, match=r"did not end within 0\.2 s"):
        run_program(["sleep", "60"], MissingExtra, timeout_s=0.2, advice="Try again.")
    with pytest.raises(WriteError, match=r"^sh -c exit 3 … failed \(exit code 3\): exit code 3\. Choose another\.$"):
        run_program(["sh", "-c", "exit 3"], WriteError, timeout_s=9, advice="Choose another.")
    with pytest.raises(DataError, match=r"^no-such-program … failed: .*No such file"):
        run_program(["no-such-program"], DataError, timeout_s=9, advice="Install it.")


def test_an_environment_that_fails_half_way_is_taken_away(tmp_path, monkeypatch):
    def fails(python, arguments):
        assert python == tmp_path / "env" / "bin" / "python" and python.exists()
        raise MissingExtra("no index")

    monkeypatch.setattr(setup, "install", fails)
    with pytest.raises(MissingExtra, match="no index"):
        setup.build_device_environment(tmp_path / "env")
    assert not (tmp_path / "env").exists()


def test_a_place_that_may_not_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=r"cannot write .*/file/env.* Set XDG_DATA_HOME"):
        setup.build_device_environment(tmp_path / "file" / "env")
    with (
        pytest.raises(WriteError, match=r"cannot write .*/file/env .* Name another Python\."),
        environment.new_environment(tmp_path / "file" / "env", "another Python"),
    ):
        raise AssertionError("it was made")


def test_another_version_of_edgeloop_is_told_of_its_own_environment_and_those_that_lie_beside_it(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    ours = environment.environment_folder("device")
    assert ours.parent == tmp_path / "edgeloop/environments"
    assert ours.name == f"device-{version('edgeloop')}-py{sys.version_info.major}.{sys.version_info.minor}"
    for name in (ours.name, "device-0.0.9-py3.11", "onnx-0.0.9-py3.11"):
        (ours.parent / name).mkdir(parents=True)
    (ours.parent / "device-0.0.9-py3.11.lock").touch()
    old = f"{ours.parent}/device-0.0.9-py3.11, {ours.parent}/onnx-0.0.9-py3.11"
    assert setup.other_environments() == [
        f"Other versions of edgeloop or Python made {old}. Delete those you do not need."
    ]


def test_a_checkout_keeps_its_environments_where_its_links_lead(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/device-environment").symlink_to("../.venv-device")
    assert environment.environment_folder("device") == tmp_path / ".venv-device"  # need not exist yet


def test_an_environment_whose_making_was_killed_is_not_taken_for_a_whole_one(tmp_path, monkeypatch):
    monkeypatch.delenv(device.DEVICE_PYTHON, raising=False)
    monkeypatch.setattr(device, "environment_folder", lambda name: tmp_path / name)
    making = environment.new_environment(tmp_path / "device", "another")
    python = making.__enter__()
    with pytest.raises(MissingExtra, match=r"no device environment at .* Run: edgeloop setup device"):
        device.device_environment()
    making.__exit__(None, None, None)
    assert device.device_environment().python == python


def test_the_copy_of_an_editable_edgeloop_is_editable_and_brings_nothing_else(root, tmp_path):
    setup.copy_edgeloop(tmp_path)
    copied = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*") if path.is_file()}
    assert "_edgeloop.pth" in copied and any(name.endswith(".dist-info") for name in copied)
    portions = {str(path.parent) for path in root.glob("*/edgeloop")}
    assert set((tmp_path / "_edgeloop.pth").read_text().split()) == portions
