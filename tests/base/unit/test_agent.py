"""The agent's frames and the client's bounds, without any runtime."""

import importlib.metadata
import io
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgeloop.errors import DeviceError, EdgeloopError, TargetError
from edgeloop.processes import children, frames
from edgeloop.processes.children import owned
from edgeloop.processes.conversation import Conversation
from edgeloop.processes.exit_status import NO_PACKAGE, signal_of
from edgeloop.runtime import client, connection, ssh
from edgeloop.runtime.agent import tflite
from edgeloop.runtime.agent.serve_model import RUNS_LIMIT, timed
from edgeloop.runtime.device import Device, Host, parse_device
from edgeloop.runtime.program import local_program

HERE = parse_device("local")
ECHO = """
import os, sys, time
from edgeloop.runtime.agent import serve_model as agent
from edgeloop.runtime.agent import runtimes

class Echo:
    version, delegated = "1", None
    def load(self, path, threads, keep=False, delegate=None):
        content = open(path).read()
        if content == "crash":
            os.kill(os.getpid(), 11)
        if content == "hang":
            time.sleep(60)
        if content == "refuse":
            raise ValueError("no such operator")
        print("a runtime that prints", flush=True)
        os.write(1, b"and one that writes to descriptor 1\\n")
        return {"infer": {"inputs": {}, "outputs": {}}}
    def arena_bytes(self):
        return 4096
    def ready(self, signature, inputs):
        calls = []
        outputs = lambda: {**{n: v * 2 for n, v in inputs.items()}, "calls": len(calls)}
        return runtimes.Call(lambda: calls.append(time.sleep(0.002)), outputs)
    def tensors(self, signature, inputs, graph, indices):
        return {str(i): inputs["x"] + 10 * graph + i for i in indices}

runtimes.LOADERS["echo"] = Echo
agent.main(sys.argv[2:])
"""


@pytest.fixture
def echo(tmp_path, monkeypatch):
    """An agent whose runtime doubles its inputs, and crashes, hangs or refuses on a model that says so."""
    stand_in = tmp_path / "agent.py"
    stand_in.write_text(ECHO)
    monkeypatch.setattr(connection, "local_program", lambda: stand_in)
    models = tmp_path / "models"
    models.mkdir()
    for name in ("good", "crash", "hang", "refuse"):
        (models / name).write_text(name)
    return lambda timeout_s=60.0: client.agent(HERE, "echo", models, timeout_s)


LOADED = """
import sys
sys.path.insert(0, sys.argv[1])
from edgeloop.runtime.agent import runtimes, serve_model
print(sorted({"email", "importlib.metadata"} & set(sys.modules)))
from edgeloop.runtime.agent import survey
print(sorted({"_hashlib", "ctypes", "edgeloop.bundle"} & set(sys.modules)))
"""


def test_an_agent_that_runs_a_model_loads_neither_openssl_nor_what_reads_bundles_or_metadata():
    """Each takes megabytes and, compiled anew out of the packed file, a device's time."""
    command = [sys.executable, "-I", "-S", "-c", LOADED, local_program()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert (done.stdout, done.stderr) == ("[]\n[]\n", "")


def test_a_runtime_tells_its_version_itself_and_its_metadata_is_read_only_where_it_does_not(monkeypatch):
    kinds = SimpleNamespace(__version__="2.3.0"), SimpleNamespace()
    for name, kind in zip(("telling", "silent"), kinds, strict=True):
        monkeypatch.setitem(sys.modules, name, kind)
    monkeypatch.setattr(importlib.metadata, "version", lambda package: f"of {package}")
    assert tflite._version("telling.interpreter", "telling") == "2.3.0"
    assert tflite._version("silent.interpreter", "silent-package") == "of silent-package"


def test_a_python_without_a_package_names_what_installs_it():
    """-S: an environment without packages."""
    command = [sys.executable, "-E", "-s", "-S", local_program(), "edge.on_device.serving.serve"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    said = f"No module named 'numpy'. Run there: {sys.executable} -m pip install numpy\n"
    assert (done.returncode, done.stdout, done.stderr) == (NO_PACKAGE, "", said)


def test_a_frame_comes_back_as_it_went():
    stream = io.BytesIO()
    frames.write_frame(stream, {"id": 7, "op": "run"}, b"\0\n\xff")
    stream.seek(0)
    header, payload = frames.read_frame(stream)
    assert (header["v"], header["id"], header["op"], header["bytes"], payload) == (1, 7, "run", 3, b"\0\n\xff")
    assert frames.read_frame(stream) is None


@pytest.mark.parametrize(
    "data",
    [
        b'{"bytes": 5}\nabc',
        b'{"bytes": -1}\n',
        b'{"bytes": "9"}\n',
        b"no json\n",
        b'{"op": "probe"}',
        b" " * (frames.HEADER_LIMIT_BYTES + 1),
    ],
    ids=["payload ends early", "negative", "text", "no json", "no newline", "too long"],
)
def test_bytes_that_are_no_frame_are_refused(data):
    with pytest.raises(ValueError):
        frames.read_frame(io.BytesIO(data))


def test_what_a_runtime_prints_does_not_land_between_frames(echo):
    with echo() as agent:
        agent.prepare("good")
        answer = agent.run({"x": np.array([1.0, 2.0])}, warmup=1, runs=3)
        np.testing.assert_array_equal(answer.outputs["x"], [2, 4])


def test_a_run_answers_with_the_times_of_its_runs_and_not_of_its_warm_up(echo):
    with echo() as agent:
        agent.prepare("good")
        first = agent.run({"x": np.zeros(1)}, warmup=2, runs=3)
        later = agent.run({"x": np.zeros(1)}, runs=1)
    assert first.outputs["calls"] == 5
    assert len(first.wall_ms) == len(first.cpu_ms) == len(first.started_s) == 3
    assert min(first.wall_ms) >= 2  # each sleeps 2 ms
    assert first.started_s[0] == 0
    ends = [start + wall / 1e3 for start, wall in zip(first.started_s, first.wall_ms, strict=True)]
    starts = [*first.started_s[1:], *later.started_s]
    assert all(end <= start for end, start in zip(ends, starts, strict=True))  # one clock, one after another
    assert first.involuntary_switches >= 0
    assert 0 < first.rss_bytes <= first.rss_peak_bytes


@pytest.mark.parametrize("runs", [0, -1, 10_001])
def test_a_number_of_runs_whose_times_fit_no_header_is_refused(echo, runs):
    with echo() as agent:
        agent.prepare("good")
        with pytest.raises(TargetError, match=f"{runs} runs at a time. Expected 1 to 10000"):
            agent.run({"x": np.zeros(1)}, runs=runs)


def test_the_longest_series_of_times_fits_a_header():
    longest = {name: [123456.789012345] * RUNS_LIMIT for name in ("wall_ms", "cpu_ms", "started_s")}
    stream = io.BytesIO()
    frames.write_frame(stream, longest)
    stream.seek(0)
    assert frames.read_frame(stream)[0]["started_s"][-1] == 123456.789012345


def test_an_answer_has_no_fields_of_its_frame(echo):
    with echo() as agent:
        answer, _ = agent.ask("prepare", {"path": "good"})
    assert set(answer) == {"import_ms", "load_ms", "signatures", "arena_bytes", "delegated"}


def test_each_run_is_timed_by_itself(monkeypatch):
    """A wall clock that a run alone moves on, by 1000 and then 5000 ns; a CPU clock that each reading moves by 1 ns."""
    now, cpu_now, takes = [100], iter(range(100)), iter([1000, 5000])
    monkeypatch.setattr(time, "perf_counter_ns", lambda: now[0])
    monkeypatch.setattr(time, "process_time_ns", lambda: next(cpu_now))

    def invoke():
        now[0] += next(takes)

    assert timed(invoke, 2) == ([100, 1100], [1000, 5000], [1, 1])


def test_inner_tensors_arrive_by_their_index(echo):
    with echo() as agent:
        agent.prepare("good", keep=True)
        found = agent.tensors({"x": np.array([1.0])}, [3, 4], graph=2)
        assert {i: a.tolist() for i, a in found.items()} == {3: [24.0], 4: [25.0]}


def test_a_large_answer_arrives_whole(echo):
    with echo() as agent:
        agent.prepare("good")
        x = np.arange(3_000_000, dtype=np.float32)
        np.testing.assert_array_equal(agent.run({"x": x}).outputs["x"], 2 * x)


def test_a_model_outside_the_root_is_refused(echo):
    with echo() as agent, pytest.raises(TargetError, match="leads out of the agent's root"):
        agent.prepare("../agent.py")


def test_a_model_the_runtime_refuses_is_a_target_error_with_its_words(echo):
    with echo() as agent:
        with pytest.raises(TargetError, match="ValueError: no such operator"):
            agent.prepare("refuse")
        agent.prepare("good")  # and the agent goes on


def test_a_model_that_kills_the_runtime_kills_the_agent_and_not_the_tool(echo):
    with (
        echo() as agent,
        pytest.raises(DeviceError, match=r"ended during prepare \(signal SIGSEGV.*The runtime crashes"),
    ):
        agent.prepare("crash")


@pytest.mark.parametrize(
    ("code", "name"),
    [(-9, "SIGKILL"), (137, "SIGKILL"), (-4, "SIGILL"), (0, ""), (1, ""), (127, ""), (-50, ""), (None, "")],
)
def test_a_signal_is_told_from_a_return_code_of_a_child_and_of_a_shell(code, name):
    assert signal_of(code) == name


@pytest.mark.parametrize("error", ["no dictionary", {"type": 7}, {"type": "EdgeloopError", "found": ["x"]}, None])
def test_an_error_of_any_form_is_an_error_of_the_device(tmp_path, monkeypatch, error):
    program = "import json, sys\nasked = json.loads(sys.stdin.readline())\n"
    program += f"print(json.dumps({{'id': asked['id'], 'bytes': 0, 'error': {error!r}}}), flush=True)"
    (tmp_path / "agent.py").write_text(program)
    monkeypatch.setattr(connection, "local_program", lambda: tmp_path / "agent.py")
    with client.agent(HERE, "litert", ".") as agent, pytest.raises(EdgeloopError, match="litert on local: "):
        agent.probe()


def test_a_device_that_takes_an_upload_and_never_has_it_is_given_up(tmp_path, monkeypatch):
    program = "import json, sys\nwhile line := sys.stdin.readline():\n    asked = json.loads(line)\n"
    program += "    sys.stdin.read(asked['bytes'])\n"
    program += "    print(json.dumps({'id': asked['id'], 'bytes': 0, 'done': False, 'have': 0}), flush=True)\n"
    (tmp_path / "agent.py").write_text(program)
    monkeypatch.setattr(connection, "local_program", lambda: tmp_path / "agent.py")
    with client.agent(HERE, "litert", ".") as agent, pytest.raises(DeviceError, match="stays at 0 bytes"):
        agent.push(tmp_path / "agent.py", "file")


def test_a_runtime_that_hangs_is_ended_when_its_time_is_up(echo):
    with echo(timeout_s=1.0) as agent, pytest.raises(DeviceError, match="gave no answer in 1 s") as refused:
        agent.prepare("hang")
    assert agent.child.returncode is not None and "smaller variant" in refused.value.advice


def test_a_program_without_a_model_that_hangs_is_not_blamed_on_a_variant(tmp_path):
    with (
        owned(["sleep", "60"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child,
        (tmp_path / "log").open("wb") as log,
    ):
        asking = Conversation(child, "ssh://camera", 0.2, log)
        with pytest.raises(
            DeviceError, match=r"^ssh://camera: status gave no answer in 0\.2 s, .*\. Check what else runs"
        ):
            asking.ask("status")


def test_a_request_that_shares_its_time_with_others_names_all_of_it(tmp_path):
    """What is left for it may be much less: `gave no answer in 5 s` would be wrong after 0.2."""
    with (
        owned(["sleep", "60"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child,
        (tmp_path / "log").open("wb") as log,
    ):
        asking = Conversation(child, "int8 on litert", 5.0, log)
        asking.deadline = time.monotonic() + 0.2
        with pytest.raises(DeviceError, match="gave no answer before the 5 s for all requests together were over"):
            asking.ask("run")


def test_a_login_shell_that_hangs_names_the_time_that_it_was_given():
    line = ssh.SshConnection(Host("camera"), Path("python3"), ssh._SharedConnection(), timeout_s=0.2)
    with (
        owned(["sh", "-c", "echo Welcome; exec sleep 60"], stdout=subprocess.PIPE) as child,
        pytest.raises(DeviceError, match=r"ssh camera: its login shell ran no command in 0\.2 s .*last line: Welcome"),
    ):
        assert select.select([child.stdout], [], [], 60)[0]  # it has greeted
        line._skip_greeting(child)


def test_a_stopped_agent_is_ended_when_a_write_to_it_takes_too_long(echo):
    with echo() as agent:
        agent.prepare("good")
        agent.timeout_s = 1.0
        os.kill(agent.child.pid, signal.SIGSTOP)
        with pytest.raises(DeviceError, match="gave no answer in 1 s"):
            agent.run({"x": np.zeros(250_000, np.float32)})  # 1 MB; a pipe holds 64 KiB
    assert agent.child.returncode == -signal.SIGKILL


def test_a_tensor_may_have_the_name_of_a_parameter_of_savez(echo):
    with echo() as agent:
        agent.prepare("good")
        assert agent.run({"file": np.ones(2), "allow_pickle": np.ones(1)}).outputs["file"].tolist() == [2, 2]


def test_the_state_of_the_device_is_told_between_runs(echo):
    with echo() as agent:
        told = agent.conditions()
    assert {"governor", "frequency_mhz", "temperature_c", "throttled", "load"} <= set(told)
    assert len(told["load"]) == 3


def test_a_probe_tells_what_the_device_can(echo):
    with echo() as agent:
        told = agent.probe().capabilities
    assert told["emulated"] is False and told["ram_total_bytes"] >= told["ram_available_bytes"] > 0
    assert told["delegates"]["edgetpu"] in ("unsupported", "unknown") or told["delegates"]["edgetpu"]


def test_a_packed_payload_is_an_npz_and_an_npz_is_unpacked():
    arrays = {"file": np.arange(6.0).reshape(2, 3).T, "in/é": np.array(7), "none": np.zeros((0, 2), np.int8)}
    with np.load(io.BytesIO(frames.pack(arrays))) as loaded:
        assert {name: loaded[name].tolist() for name in loaded.files} == {n: a.tolist() for n, a in arrays.items()}
    for save in (np.savez, np.savez_compressed):
        packed = io.BytesIO()
        save(packed, a=np.arange(3), b=np.float32(1))
        unpacked = frames.unpack(packed.getvalue())
        assert {name: (a.dtype, a.tolist()) for name, a in unpacked.items()} == {
            "a": (np.arange(3).dtype, [0, 1, 2]),
            "b": (np.float32, 1.0),
        }


def test_an_archive_that_unpacks_to_more_than_a_payload_is_not_unpacked(monkeypatch):
    packed = io.BytesIO()
    np.savez_compressed(packed, x=np.zeros(100_000))
    assert len(packed.getvalue()) < 2000 and frames.unpack(packed.getvalue())["x"].size == 100_000
    monkeypatch.setattr(frames, "PAYLOAD_LIMIT_BYTES", 700_000)
    with pytest.raises(ValueError, match="800128 bytes in an archive of"):
        frames.unpack(packed.getvalue())


def test_a_pickle_is_neither_packed_nor_unpacked():
    with pytest.raises(ValueError, match="allow_pickle"):
        frames.pack({"x": np.array([object()])})
    packed = io.BytesIO()
    np.savez(packed, x=np.array([{}]))
    with pytest.raises(ValueError, match="allow_pickle"):
        frames.unpack(packed.getvalue())


@pytest.mark.parametrize("answer", ["hello", "[]", '{"id": 9, "bytes": 0}', '{"id": 1, "bytes": -1}', '{"id": 1}'])
def test_a_program_that_is_no_agent_is_a_device_error_with_what_it_said(tmp_path, answer):
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\nread line\necho '{answer}'\nread line\n")
    program.chmod(0o755)
    with client.agent(Device("x", program), "litert", ".", 10) as agent, pytest.raises(DeviceError) as refused:
        agent.probe()
    assert repr(answer.encode()) in str(refused.value) and "Expected a frame" in str(refused.value)


def test_a_file_that_is_no_program_is_a_device_error(tmp_path):
    (tmp_path / "passwd").write_text("root")
    refused = pytest.raises(DeviceError, match=r"passwd does not start \(Permission denied\)")
    with refused, client.agent(Device("x", tmp_path / "passwd"), "litert", "."):
        pass


def test_an_error_of_the_caller_is_not_taken_for_one_of_the_start(echo):
    with pytest.raises(FileNotFoundError, match="the caller's"), echo():
        raise FileNotFoundError("the caller's")


def test_an_interpreter_that_does_not_exist_is_named():
    with (
        pytest.raises(DeviceError, match="no Python at /nowhere/python"),
        client.agent(Device("x", Path("/nowhere/python")), "litert", "."),
    ):
        pass


def test_a_child_and_its_own_children_end_with_the_block():
    with owned(["sh", "-c", "sleep 300 & sleep 300 & echo $!; wait"], stdout=subprocess.PIPE) as child:
        grandchild = int(child.stdout.readline())
        os.kill(grandchild, 0)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and _alive(grandchild):
        time.sleep(0.02)
    assert not _alive(grandchild)


def test_a_child_that_ignores_the_request_is_killed():
    with owned(
        ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"], stdout=subprocess.PIPE, grace_s=0.2
    ) as c:
        c.stdout.readline()
    assert c.returncode == -signal.SIGKILL


def test_a_second_interruption_while_ending_leaves_nothing_alive(monkeypatch):
    def interrupted(seconds):
        raise KeyboardInterrupt

    script = "trap '' TERM; echo ready; while :; do sleep 1; done"
    with pytest.raises(KeyboardInterrupt), owned(["sh", "-c", script], stdout=subprocess.PIPE, grace_s=60) as child:
        child.stdout.readline()
        monkeypatch.setattr(children.time, "sleep", interrupted)
    assert child.returncode == -signal.SIGKILL


def test_what_is_still_buffered_for_a_child_that_does_not_read_does_not_hold_up_its_end():
    held_up = threading.Event()
    with owned(["sleep", "60"], stdin=subprocess.PIPE) as child:
        os.set_blocking(child.stdin.fileno(), False)
        with pytest.raises(BlockingIOError):
            while True:
                os.write(child.stdin.fileno(), bytes(4096))
        os.set_blocking(child.stdin.fileno(), True)
        child.stdin.write(b"left in the buffer")
        killer = threading.Timer(40, lambda: (held_up.set(), child.kill()))  # so that a failure is one, and no hang
        killer.start()
    killer.cancel()
    assert not held_up.is_set()


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
