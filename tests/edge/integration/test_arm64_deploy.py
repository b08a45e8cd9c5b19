"""A fleet of emulated arm64 devices through the whole loop: enrolled, deployed to in waves, taken back, asked.

The bundle is a digit classifier that `convert` made. The devices serve all tests: what changes them does so under a
name of its own, and so in a slot of its own.
"""

import contextlib
import gzip
import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from devices import arm64_device, make_key

from edgeloop.bundle import MANIFEST, Requirements, read_bundle
from edgeloop.cli import run as edgeloop
from edgeloop.edge.deploy.known_devices import FLEET
from edgeloop.registry.signatures.sign import sign_bundle
from edgeloop.runtime.client import agent
from edgeloop.runtime.connection import connect
from edgeloop.runtime.parity.reference import read_reference
from edgeloop.runtime.ssh_login import CONFIG

DEVICES = {
    "a53": {"cpu": "cortex-a53", "runtimes": "litert"},
    "a72": {"cpu": "cortex-a72", "runtimes": "litert"},
    "small": {"cpu": "cortex-a53", "runtimes": "litert", "memory_mb": 128},
    "older": {"cpu": "cortex-a76", "runtimes": "tflite-runtime"},
}
RUNTIME = {name: settings["runtimes"] for name, settings in DEVICES.items()}
IN_WAVES = ("--waves", "1,50%,100%")  # of four devices: one, one, two
# With a variant named nothing is measured, which takes minutes under emulation and would mean nothing.
FLOAT32, INT8 = ("--variant", "float32", "--probation", "16"), ("--variant", "int8", "--probation", "16")
# ldadd w1, w0, [x0]; ret: an atomic of Armv8.1, which a Cortex-A53 and A72 lack
FOR_ARMV8_1 = """
import ctypes, mmap, struct
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(struct.pack("<2I", 0xB8210000, 0xD65F03C0))
add = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
add(ctypes.addressof(ctypes.c_int(40)), 2)
"""
MODEL_OPERATORS = ["CONV_2D", "AVERAGE_POOL_2D", "FULLY_CONNECTED", "FULLY_CONNECTED", "SOFTMAX"]  # and a RESHAPE
ITS_LITERT = "/usr/local/lib/python3.11/dist-packages/ai_edge_litert"  # found before what the device was given


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """The release key, whose public half `signers` names; `other` is another one."""
    folder = tmp_path_factory.mktemp("release-keys")
    for name in ("key", "other"):
        make_key(folder / name)
    (folder / "signers").write_text("release@example.org " + (folder / "key.pub").read_text())
    (folder / "others").write_text("release@example.org " + (folder / "other.pub").read_text())
    return folder


@pytest.fixture(scope="module")
def devices(arm64_place, root, device_keys, keys, tmp_path_factory):
    """{name: a running device}, every one of them enrolled, and no other known to this machine."""
    script = root / "scripts" / "arm64-device"
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as running:
        patch.setenv(CONFIG, str(device_keys / "config"))
        patch.setenv(FLEET, str(tmp_path_factory.mktemp("fleet") / "fleet.json"))
        started = {}
        for name, settings in DEVICES.items():
            folder = tmp_path_factory.mktemp(name)
            started[name] = running.enter_context(arm64_device(script, folder, device_keys, settings))
            running.enter_context(connect(started[name].device))  # one login for all that follows
        addresses = [one.device.name for one in started.values()]
        assert edgeloop(["enroll", *addresses, "--signers", str(keys / "signers")]) == 0
        yield started


@pytest.fixture(scope="module")
def digits(shared):
    """96 real test images, as the model takes them."""
    with gzip.open(shared / "data" / "mnist" / "test-a-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(16 + 96 * 784)[16:], np.uint8)
    return pixels.reshape(-1, 28, 28, 1) / np.float32(255)


@pytest.fixture(scope="module")
def converted(shared, digits, tmp_path_factory):
    """The digit classifier in float32 and int8, with 16 digits and the source's answers to them."""
    folder = tmp_path_factory.mktemp("converted")
    np.savez(folder / "digits.npz", conv2d_input=digits)
    model = shared / "models" / "mnist_conv_fc" / "conv_fc_mnist.tflite"
    data = ["--calibration", folder / "digits.npz", "--schemes", "float32,int8", "--to", "tflite"]
    command = [sys.executable, "-m", "edgeloop", "convert", model, "-o", folder / "m", *data]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return folder / "m"


@pytest.fixture(scope="module")
def release(converted, keys, tmp_path_factory):
    """`release(name, version)`: the classifier, signed with `key`; what every variant `requires` besides a runtime."""

    def make(name: str, version: int = 1, key: str | None = "key", **requires) -> Path:
        path = tmp_path_factory.mktemp(f"{name}-{version}") / "m"
        shutil.copytree(converted, path, ignore=shutil.ignore_patterns(MANIFEST, "proof.json"))
        manifest = read_bundle(converted).manifest
        variants = tuple(replace(v, requires=Requirements(v.requires.runtimes, **requires)) for v in manifest.variants)
        made = replace(manifest, name=name, version=version, variants=variants, proof_sha256=None)
        (path / MANIFEST).write_bytes(made.to_bytes())
        if key is not None:
            sign_bundle(read_bundle(path), keys / key)
        return path

    return make


@pytest.fixture(scope="module")
def ask(devices):
    """`ask(ARGUMENT...)`: the exit code of edgeloop and the JSON document it printed; names of devices are theirs."""

    def ask(*arguments):
        words = [devices[word].device.name if word in devices else str(word) for word in arguments]
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            code = edgeloop([*words, "--json"])
        return code, json.loads(printed.getvalue() or "null")

    return ask


@pytest.fixture(scope="module")
def deploy(ask):
    """`deploy(bundle, names, OPTION...)`: the exit code, and a row for each device in the order they were named."""

    def deploy(bundle, names, *options):
        code, document = ask("deploy", bundle, *(word for name in names for word in ("--to", name)), *options)
        return code, document["devices"]

    return deploy


@pytest.fixture(scope="module")
def story(devices, release, deploy, ask):
    """Release 1 in waves, release 2 at once, and back: what was said, and which version each device held then."""

    def held():
        return [version_on(one, "digits") for one in devices.values()]

    told = {"first": (*deploy(release("digits", 1), devices, *FLOAT32, *IN_WAVES), held())}
    second = release("digits", 2)
    told["second"] = (*deploy(second, devices, *INT8), held())
    told["again"] = (*deploy(second, devices, *INT8), held())
    code, document = ask("rollback", *devices)
    told["back"] = (code, document["devices"], held())
    return told


def of(rows, key):
    return [row[key] for row in rows]


def version_on(device, slot) -> int | None:
    """Of what `current` leads to, every hash checked; None where nothing was ever installed."""
    current = device.home / "slots" / slot / "current"
    return read_bundle(current.resolve()).manifest.version if current.exists() else None


def size(bundle, *names) -> int:
    return sum(read_bundle(bundle).file(name).stat().st_size for name in names)


def test_a_release_reaches_a_fleet_in_waves_each_device_on_the_runtime_it_has(story):
    code, rows, held = story["first"]
    assert (code, of(rows, "result"), of(rows, "wave")) == (0, ["committed"] * 4, [1, 2, 3, 3])
    assert of(rows, "runtime") == list(RUNTIME.values())
    assert held == [1] * 4


def test_of_the_next_release_what_changed_travels_and_then_nothing(story, converted):
    code, rows, held = story["second"]
    assert (code, of(rows, "result"), of(rows, "before"), held) == (0, ["committed"] * 4, [1] * 4, [2] * 4)
    signature_bytes = rows[0]["sent_bytes"] - size(converted, "int8.tflite")
    assert set(of(rows, "sent_bytes")) == {rows[0]["sent_bytes"]} and 0 < signature_bytes < 1000  # no reference.npz
    code, rows, held = story["again"]
    assert (code, of(rows, "result"), of(rows, "sent_bytes")) == (0, ["unchanged"] * 4, [0] * 4)


def test_a_fleet_goes_back_to_the_release_before(story):
    code, rows, held = story["back"]
    assert (code, held) == (0, [1] * 4)
    assert [(row["before"], row["version"], row["variant"]) for row in rows] == [(2, 1, "float32")] * 4


@pytest.mark.usefixtures("story")
def test_devices_tells_of_every_one_what_runs_there_and_what_it_is(devices, ask):
    code, document = ask("devices")
    found = {row["device"]: row for row in document["devices"]}
    assert code == 0 and set(found) == {one.device.name for one in devices.values()}
    for name, one in devices.items():
        row, runs = found[one.device.name], found[one.device.name]["slots"]["digits"]
        assert (row["reachable"], row["enrolled"], row["machine"]["machine"]) == (True, True, "aarch64")
        assert (runs["current"], runs["floor"], runs["state"], runs["variant"]) == (1, 2, "committed", "float32")
        assert runs["runtime"] == RUNTIME[name]
    assert found[devices["small"].device.name]["machine"]["ram_total_bytes"] == 128 << 20


def test_what_the_release_key_did_not_sign_is_refused_by_every_device(devices, release, deploy, ask, keys):
    code, rows = deploy(release("unsigned", key=None), devices, *INT8)
    assert (code, of(rows, "result"), of(rows, "sent_bytes")) == (9, ["failed"] * 4, [0] * 4)
    assert all("is not signed" in row["reason"] for row in rows)
    code, rows = deploy(release("foreign", key="other"), devices, *INT8)
    codes = [row["error"]["exit_code"] for row in rows]
    assert (code, codes, of(rows, "step")) == (9, [9] * 4, ["check"] * 4)  # OpenSSH's word, on each
    assert [version_on(one, name) for one in devices.values() for name in ("unsigned", "foreign")] == [None] * 8
    code, document = ask("enroll", *devices, "--signers", keys / "others")
    assert (code, of(document["devices"], "result")) == (9, ["failed"] * 4)


# --- a gate that stays shut, in the second of three waves ---


@pytest.mark.parametrize(
    ("name", "order", "requires", "reason"),
    [
        # a device of 128 MB, among three that have what this machine has
        ("much", ("a53", "small", "a72", "older"), {"ram_bytes": 160_000_000}, "needs 160 MB of memory"),
        # dot products came with Armv8.2: the A76 has them
        ("fast", ("older", "a72", "small", "a53"), {"cpu_features": ("asimddp",)}, "needs the CPU features asimddp"),
    ],
)
def test_what_a_device_lacks_keeps_the_waves_after_it_from_starting(
    devices, release, deploy, name, order, requires, reason
):
    code, rows = deploy(release(name, **requires), order, *INT8, *IN_WAVES)
    assert (code, of(rows, "result")) == (7, ["committed", "failed", "not started", "not started"])
    assert rows[1]["step"] == "choose" and reason in rows[1]["reason"] and rows[1]["sent_bytes"] == 0
    assert [(devices[one].home / "slots" / name).exists() for one in order] == [True, False, False, False]


def test_a_runtime_for_another_core_dies_alone_and_the_same_command_goes_on_when_it_is_mended(devices, release, deploy):
    order, path = ("a72", "a53", "small", "older"), release("other-core")
    with connect(devices["a53"].device) as line:
        line.run(f"mkdir {ITS_LITERT} && cat > {ITS_LITERT}/__init__.py", FOR_ARMV8_1.encode())
        try:
            code, rows = deploy(path, order, *INT8, *IN_WAVES)
        finally:
            line.run(f"rm -r {ITS_LITERT}")
    assert (code, of(rows, "result")) == (7, ["committed", "failed", "not started", "not started"])
    assert (
        rows[1]["step"] == "trial" and "the agent ended during" in rows[1]["reason"] and "SIGILL" in rows[1]["reason"]
    )
    assert [version_on(devices[name], "other-core") for name in order] == [1, None, None, None]

    code, rows = deploy(path, order[:2], *INT8, "--waves", "1,100%")
    assert (code, of(rows, "result")) == (0, ["unchanged", "committed"])
    assert rows[1]["sent_bytes"] == size(path, "manifest.json.sig")  # the rest was there
    assert version_on(devices["a53"], "other-core") == 1


@pytest.mark.usefixtures("story")
def test_a_release_over_its_latency_budget_takes_itself_back_and_no_other_device_gets_it(devices, release, deploy):
    order, budget = ("older", "a72", "a53"), ("--p90-budget-ms", "0.0000001", "--waves", "1,100%")
    code, rows = deploy(release("digits", 3), order, "--variant", "int8", *budget)
    assert (code, of(rows, "result")) == (6, ["rolled back", "not started", "not started"])
    assert "budget" in rows[0]["reason"]
    assert [version_on(devices[name], "digits") for name in order] == [1] * 3


# --- what runs there ---


@pytest.mark.usefixtures("story")
@pytest.mark.parametrize("name", ["a72", "older"])
def test_run_answers_on_the_device_as_the_source_did(devices, converted, name):
    inputs, expected = (next(iter(arrays.values())) for arrays in read_reference(read_bundle(converted)))
    command = [sys.executable, "-m", "edgeloop", "run", devices[name].device.name, "--slot", "digits", "--input", "-"]
    lines = "".join(json.dumps(x.tolist()) + "\n" for x in inputs)
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(a["n"], a["release"], a["variant"]) for a in answers] == [(n, 1, "float32") for n in range(1, 17)]
    given = np.array([a["outputs"]["dense_1"] for a in answers])
    # test_arm64.py derives it: rounding of logits up to 30, and a quarter of that in a probability
    np.testing.assert_allclose(given.reshape(expected.shape), expected, rtol=0, atol=8e-6)
    assert len(set(given.argmax(axis=-1).ravel())) > 4  # not the same digit again and again


# --- what its operators take ---


def test_bench_profiles_the_operators_of_an_emulated_device(devices, shared, ask):
    model = shared / "models" / "mnist_conv_fc" / "conv_fc_mnist.tflite"
    code, document = ask("bench", model, "--on", "a72", "--runtime", "litert", "--runs", "11", "--profile")
    (record,) = document["bench"]
    assert code == 0 and record["functional_only"]
    ops = record["profile"]
    assert all(op["delegated"] and op["calls"] == 50 for op in ops)
    assert [op["operator"] for op in ops if op["operator"]] == MODEL_OPERATORS
    assert sum(op["share"] for op in ops) == pytest.approx(1)


def test_where_xnnpack_does_not_start_the_kernels_that_answer_are_timed_and_said(devices, shared, digits):
    """XNNPACK asks /sys for the processors. `Interpreter` then runs without it and says nothing."""
    model = shared / "models" / "mnist_conv_fc" / "conv_fc_mnist.tflite"
    inputs = {"conv2d_input": digits[:1]}
    with connect(devices["a72"].device) as line:
        line.run("mv /sys/devices /sys/hidden")
        try:
            with agent(devices["a72"].device, "litert", model.parent) as running:
                running.prepare(model.name)
                found = running.profile(inputs, runs=3)
        finally:
            line.run("mv /sys/hidden /sys/devices")
    assert found.kernels == "builtin" and "XNNPACK does not start there" in found.why
    names = [(op["name"], op["delegated"], op["calls"]) for op in found.ops]
    expected = [*MODEL_OPERATORS[:2], "RESHAPE", *MODEL_OPERATORS[2:]]
    assert names == [(name, False, 3) for name in expected]
