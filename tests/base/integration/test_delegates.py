"""The way of a delegate through a real runtime, with one written in C for it: dummy_delegate.c computes ADD and MUL."""

import shutil
import subprocess

import numpy as np
import pytest
from tflite_by_hand import tflite

from edgeloop.errors import DeviceError, OptionsError, TargetError
from edgeloop.runtime.client import agent
from edgeloop.runtime.device import Device, parse_device

X, Y = np.array([[1, 2, 3, 4]], np.float32), np.array([[10, 20, 30, 40]], np.float32)
RUNTIMES = ["litert", "tflite-runtime"]


@pytest.fixture(scope="module")
def library(root, tmp_path_factory):
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler. Run: sudo apt-get install gcc")
    path = tmp_path_factory.mktemp("delegate") / "dummy.so"
    source = root / "tests" / "dummy_delegate.c"
    subprocess.run([compiler, "-Wall", "-Werror", "-fPIC", "-shared", "-o", path, source], check=True, timeout=180)
    return str(path)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """able.tflite is all for the delegate, of part.tflite a SUB between two ADDs is not, two.tflite has two graphs."""
    folder = tmp_path_factory.mktemp("models")
    able = [("ADD", 0, 1, 2), ("MUL", 2, 1, 3), ("ADD", 3, 0, 4)]
    (folder / "able.tflite").write_bytes(tflite(able))
    (folder / "part.tflite").write_bytes(tflite([("ADD", 0, 1, 2), ("SUB", 2, 1, 3), ("ADD", 3, 0, 4)]))
    (folder / "two.tflite").write_bytes(tflite(able, able, signatures={"infer": 0, "train": 1}))
    return folder


@pytest.fixture
def started(device_python, models):
    device = Device(f"local:{device_python}", device_python)
    return lambda runtime="litert": agent(device, runtime, models, 60)


def wanted(library, allow_cpu_ops=False, **options):
    return {"library": library, "options": options, "allow_cpu_ops": allow_cpu_ops}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_delegate_that_takes_everything_computes_everything(started, library, runtime):
    with started(runtime) as running:
        assert running.prepare("able.tflite", delegate=wanted(library)).delegated == [0, 1, 2]
        outputs = running.run({"t0": X, "t1": Y}, runs=3).outputs
    # ((x + y) * y) + x: (1 + 10) * 10 + 1 = 111, (2 + 20) * 20 + 2 = 442, 33 * 30 + 3 = 993, 44 * 40 + 4 = 1764
    assert outputs["t4"].tolist() == [[111, 442, 993, 1764]]


def test_the_profile_of_a_delegated_model_is_not_that_of_the_cpu(started, library):
    with started() as running:
        running.prepare("able.tflite", delegate=wanted(library))
        found = running.profile({"t0": X, "t1": Y}, runs=3)
    assert (found.ops, found.why) == ("unsupported", "LiteRT's profiler runs no external delegate")


def test_without_a_delegate_nothing_is_said_to_be_delegated(started):
    with started() as running:
        assert running.prepare("able.tflite").delegated is None
        assert running.run({"t0": X, "t1": Y}).outputs["t4"].tolist() == [[111, 442, 993, 1764]]


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("model", "options", "left"),
    [
        ("part.tflite", {}, r"1 of 3 operators on the CPU: 1 SUB \(operator 1\)"),
        ("able.tflite", {"take": "0"}, r"1 of 3 operators on the CPU: 1 MUL \(operator 1\)"),
        ("able.tflite", {"take": "none"}, r"3 of 3 operators on the CPU: 2 ADD, 1 MUL \(operator 0, 1, 2\)"),
    ],
)
def test_an_operator_left_on_the_cpu_is_an_error_that_names_it(started, library, runtime, model, options, left):
    with started(runtime) as running:
        with pytest.raises(TargetError, match=left) as refused:
            running.prepare(model, delegate=wanted(library, **options))
        assert refused.value.exit_code == 7
        with pytest.raises(TargetError, match="no signature"):
            running.run({"t0": X, "t1": Y})  # what was refused does not run
        running.prepare(model)  # and the agent goes on


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_operators_may_stay_on_the_cpu_where_the_caller_allows_it(started, library, runtime):
    with started(runtime) as running:
        told = running.prepare("part.tflite", delegate=wanted(library, allow_cpu_ops=True))
        assert told.delegated == [0, 2]  # and not what XNNPACK takes of the rest
        # ((x + y) - y) + x = 2 x
        assert running.run({"t0": X, "t1": Y}).outputs["t4"].tolist() == (2 * X).tolist()


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("options", "words"),
    [({"no_device": 1}, "refuses: no device found"), ({"silent": 1}, "refuses: it gives no reason; most often its")],
)
def test_a_delegate_without_its_device_is_the_devices_failure(started, library, runtime, options, words):
    with started(runtime) as running, pytest.raises(DeviceError, match=words) as refused:
        running.prepare("able.tflite", delegate=wanted(library, **options))
    assert refused.value.exit_code == 8


def test_an_edge_tpu_that_is_not_there_is_said_to_be_missing(started):
    with started() as running:
        if running.probe().capabilities["delegates"]["edgetpu"] != "unsupported":
            return  # one is plugged in, or nobody can tell
        with pytest.raises(DeviceError, match="no Edge TPU on this device"):
            running.prepare("able.tflite", delegate=wanted("edgetpu"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("libnone.so.9", "cannot be loaded .libnone.so.9: cannot open"),
        ("libc.so.6", "is not a delegate .*undefined symbol"),
    ],
)
def test_a_library_that_is_missing_or_no_delegate_is_named(started, name, words):
    with started() as running, pytest.raises(DeviceError, match=words):
        running.prepare("able.tflite", delegate=wanted(name))


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        *(({"fail_prepare": status}, "the dummy's Prepare fails on demand") for status in (1, 2, 3)),
        ({"fail_kernel": 1}, "the dummy's kernel cannot be prepared"),
    ],
)
def test_a_failing_prepare_is_no_silent_return_to_the_cpu(started, library, runtime, options, reason):
    with started(runtime) as running, pytest.raises(TargetError, match=f"fails to prepare this model: {reason}") as e:
        running.prepare("able.tflite", delegate=wanted(library, allow_cpu_ops=True, **options))
    assert "Restored" not in str(e.value)


def test_a_graph_that_nobody_can_look_into_is_not_called_delegated(started, library):
    with started() as running:
        with pytest.raises(TargetError, match="a signature has a graph of its own"):
            running.prepare("two.tflite", delegate=wanted(library))
        assert running.prepare("two.tflite", delegate=wanted(library, allow_cpu_ops=True)).delegated == [0, 1, 2]
        for signature in ("infer", "train"):
            found = running.run({"t0": X, "t1": Y}, signature).outputs["t4"]
            assert found.tolist() == [[111, 442, 993, 1764]]


def test_onnx_runtime_takes_no_such_delegate(models, library):
    pytest.importorskip("onnxruntime")
    with (
        agent(parse_device("local"), "onnxruntime", models, 60) as running,
        pytest.raises(OptionsError, match="takes no TFLite delegate"),
    ):
        running.prepare("able.tflite", delegate=wanted(library))


def test_behind_ssh_a_refusal_arrives_as_the_same_error(ssh_device, models, library):
    with agent(ssh_device.device, "litert", models, 60) as running:
        assert running.prepare("able.tflite", delegate=wanted(library)).delegated == [0, 1, 2]
        with pytest.raises(TargetError, match="1 of 3 operators on the CPU: 1 SUB"):
            running.prepare("part.tflite", delegate=wanted(library))
        with pytest.raises(DeviceError, match="refuses: no device found"):
            running.prepare("able.tflite", delegate=wanted(library, no_device=1))


@pytest.mark.parametrize("where", ["here", "ssh"])
def test_a_segmentation_fault_ends_the_agent_alone_and_is_named(request, where, started, models, library):
    opened = started() if where == "here" else agent(request.getfixturevalue("ssh_device").device, "litert", models, 60)
    with opened as running:
        running.prepare("able.tflite", delegate=wanted(library, crash=1))
        with pytest.raises(DeviceError, match=r"the agent ended during run \(signal SIGSEGV"):
            running.run({"t0": X, "t1": Y})
