"""Emulated arm64 devices, each with its own address, sshd and limits. Functional only: no time means anything here."""

import contextlib
import gzip
import json
import os
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from devices import arm64_device, descendants, eventually

from edgeloop.errors import DeviceError, EdgeloopError
from edgeloop.runtime.client import agent
from edgeloop.runtime.connection import connect
from edgeloop.runtime.device import parse_device

pytestmark = pytest.mark.usefixtures("ssh_keys")

DEVICES = {
    "a53": {"cpu": "cortex-a53", "runtimes": "litert"},
    "a72": {"cpu": "cortex-a72", "runtimes": "litert"},
    "a76": {"cpu": "cortex-a76", "runtimes": "litert"},
    "older": {"cpu": "cortex-a72", "runtimes": "tflite-runtime"},
    "small": {"cpu": "cortex-a53", "runtimes": "litert", "memory_mb": 128},
}
MNIST = "mnist_conv_fc/conv_fc_mnist"
RESNET = "mlperf_tiny_ic/pretrainedResnet"
# ldadd w1, w0, [x0]; ret: an atomic of Armv8.1 (LSE), which compilers use where they may and a Cortex-A53 or A72 lacks
ATOMIC = """
import ctypes, mmap, struct
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(struct.pack("<2I", 0xB8210000, 0xD65F03C0))
add = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
counter = ctypes.c_int(40)
print(add(ctypes.addressof(counter), 2), counter.value)
"""


@pytest.fixture(scope="module")
def devices(arm64_place, root, device_keys, tmp_path_factory):
    """`devices(name)`: one of DEVICES, started when it is first asked for."""
    script, started = root / "scripts" / "arm64-device", {}
    with contextlib.ExitStack() as running:

        def get(name):
            if name not in started:
                folder = tmp_path_factory.mktemp(name)
                started[name] = running.enter_context(arm64_device(script, folder, device_keys, DEVICES[name]))
                running.enter_context(connect(started[name].device))  # one login for all that follows
            return started[name]

        yield get


@pytest.fixture(scope="module")
def agents(devices, shared, device_python):
    """`agents(name)`: a running agent there, with the runtime of that device; "here": LiteRT on this machine."""
    with contextlib.ExitStack() as running:

        @cache
        def started(name: str):
            device = parse_device(f"local:{device_python}") if name == "here" else devices(name).device
            runtime = "litert" if name == "here" else DEVICES[name]["runtimes"]
            return running.enter_context(agent(device, runtime, shared / "models"))

        yield started


@pytest.fixture(scope="module")
def answers(agents, shared):
    """`answers(name, file)`: what a model makes of the same inputs anywhere; computed once."""

    @cache
    def computed(name: str, file: str) -> np.ndarray:
        running = agents(name)
        ((signature, tensors),) = running.prepare(file).signatures.items()
        ((key, tensor),) = tensors["inputs"].items()
        inputs = digits(shared, tensor["dtype"]) if file.startswith(MNIST) else noise(tensor)
        found = np.concatenate([only(running.run({key: x}, signature).outputs) for x in inputs])
        assert len(np.unique(found)) > 10  # a constant would agree with anything
        return found if found.dtype == np.float32 else found.astype(np.int64)

    return computed


def only(outputs) -> np.ndarray:
    (output,) = outputs.values()
    return output


def digits(shared: Path, dtype: str) -> list[np.ndarray]:
    """30 real test images as the two MNIST models take them: 0 to 1, or that in steps of 1/255 from -128."""
    with gzip.open(shared / "data" / "mnist" / "test-a-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(16 + 30 * 784)[16:], np.uint8).reshape(-1, 1, 28, 28, 1)
    return list(pixels / np.float32(255) if dtype == "float32" else (pixels.astype(np.int16) - 128).astype(np.int8))


def noise(tensor) -> list[np.ndarray]:
    numbers = np.random.default_rng(0)
    return [numbers.integers(-128, 128, [n or 1 for n in tensor["shape"]]).astype(np.int8) for _ in range(8)]


@pytest.mark.parametrize(("runtime", "names"), [("litert", ("a53", "a72", "small")), ("tflite-runtime", ("older",))])
def test_bench_measures_a_real_model_on_every_device_and_says_that_its_times_mean_nothing(
    devices, shared, runtime, names
):
    command = [sys.executable, "-m", "edgeloop", "bench", shared / "models" / f"{RESNET}_quant.tflite", "--json"]
    command += ["--runs", "11", "--warmup", "1", "--runtime", runtime]
    command += [word for name in names for word in ("--on", devices(name).device.name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    records = json.loads(done.stdout)["bench"]
    assert {r["device"] for r in records} == {devices(name).device.label for name in names}
    assert all((r["runtime"], r["n"], r["functional_only"]) == (runtime, 11, True) for r in records)


# --- what is computed ---


@pytest.mark.parametrize("file", [f"{MNIST}_srq_a8w8.tflite", f"{RESNET}_quant.tflite"])
def test_int8_is_the_same_to_the_bit_on_every_core(answers, file):
    np.testing.assert_array_equal(answers("a53", file), answers("a72", file))
    np.testing.assert_array_equal(answers("a53", file), answers("a76", file))


@pytest.mark.parametrize("name", ["a72", "older"])
def test_int8_of_either_runtime_is_within_one_step_of_litert_on_x86(answers, name):
    """Not to the bit: kernels for arm64 round some products of scales otherwise. Measured: 1 output of 1000."""
    file = f"{MNIST}_srq_a8w8.tflite"
    np.testing.assert_allclose(answers(name, file), answers("here", file), rtol=0, atol=1)


def test_float32_differs_from_x86_by_rounding_alone(answers):
    # Logits up to 30 are sums of some thousand products: sqrt(1000) half steps of 30 in float32, 3e-5. A probability
    # moves by p(1-p), a quarter at most, of that. Measured: 1.1e-6.
    found, here = (answers(name, f"{MNIST}.tflite") for name in ("a72", "here"))
    np.testing.assert_allclose(found, here, rtol=0, atol=8e-6)


# --- the CPU ---


def test_a_runtime_that_a_device_lacks_is_named(devices):
    with agent(devices("older").device, "litert", ".") as running, pytest.raises(EdgeloopError) as said:
        running.probe()
    assert "ai_edge_litert" in str(said.value)
    assert "\n" not in str(said.value)


def test_each_core_says_what_it_can(agents):
    features = {}
    for name in ("a53", "a76"):
        found = agents(name).probe()
        assert found.machine == "aarch64" and found.capabilities["emulated"] is True
        features[name] = set(found.capabilities["cpu_features"])
    assert features["a53"] < features["a76"]
    # half precision, dot products and atomics came with Armv8.2 and 8.1; names as in Linux's hwcaps
    assert {"asimdhp", "asimddp", "atomics"} <= features["a76"] - features["a53"]


def test_an_instruction_that_a_core_has_runs(devices):
    with connect(devices("a76").device) as line:
        assert line.run(f"python3 -c '{ATOMIC}'") == b"40 42\n"


@pytest.mark.parametrize("name", ["a53", "a72"])
def test_an_instruction_that_a_core_lacks_ends_the_agent_and_the_signal_is_named(devices, name):
    running = devices(name)
    python = running.home / "python-for-armv8.1"
    python.write_text(f"#!/bin/sh\nexec python3 -c '{ATOMIC}'\n")
    python.chmod(0o755)
    device = parse_device(f"{running.device.name}/root/.edgeloop/{python.name}")
    with agent(device, "litert", ".") as started, pytest.raises(DeviceError, match=r"\(signal SIGILL"):
        started.probe()


# --- the memory ---


def test_a_small_device_knows_its_limit_and_outlives_a_call_that_needs_more(devices, shared):
    small, file = devices("small"), shared / "models" / f"{RESNET}.tflite"
    with agent(small.device, "litert", file.parent) as running:
        assert running.probe().capabilities["ram_total_bytes"] == 128 << 20
        ((name, signature),) = running.prepare(file.name).signatures.items()
        ((key, tensor),) = signature["inputs"].items()
        batch = np.zeros([600, *tensor["shape"][1:]], np.float32)  # 7 MB; three of 39 MB are alive at a sum

        with pytest.raises(DeviceError, match=r"the agent ended during run \(signal SIGKILL") as said:
            running.run({key: batch}, name)
    assert "\n" not in str(said.value)
    with agent(small.device, "litert", file.parent) as running:
        running.prepare(file.name)
        assert running.run({key: batch[:1]}, name).outputs


# --- what is left ---


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_device_leaves_nothing_on_this_machine(arm64_place, root, device_keys, tmp_path, number):
    script, before = root / "scripts" / "arm64-device", mounts_and_formats()
    settings = {"cpu": "cortex-a53", "memory_mb": 256, "rate_kbit": 8000}
    with arm64_device(script, tmp_path, device_keys, settings) as device:
        ours = descendants(device.sshd.pid)
        cable = Path("/sys/class/net") / f"edgeloop{device.device.ssh.host.split('.')[2]}"
        (group,) = Path("/sys/fs/cgroup").glob(f"**/edgeloop-{device.sshd.pid}")
        assert len(ours) >= 2 and cable.exists()
        cap = subprocess.run(["tc", "qdisc", "show", "dev", cable.name], capture_output=True, timeout=180)
        assert b"tbf" in cap.stdout and b"8Mbit" in cap.stdout
        assert mounts_and_formats() == before  # they are the device's own
        os.kill(device.sshd.pid, number)
        device.sshd.wait(15)
        assert eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in ours))
    assert eventually(lambda: not cable.exists())
    assert mounts_and_formats() == before
    if number == signal.SIGKILL:  # then nobody is there to take an empty control group away, and the next start does
        assert (group / "cgroup.procs").read_text() == ""
        (tmp_path / "next").mkdir()
        with arm64_device(script, tmp_path / "next", device_keys, settings):
            assert not group.exists()
    assert not group.exists()


def mounts_and_formats() -> set[str]:
    """What is mounted on this machine, and which programs it hands to an emulator."""
    mounts = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    return mounts | {path.name for path in Path("/proc/sys/fs/binfmt_misc").glob("*")}
