"""The whole loop as a user runs it: its figures, its files, and what Ctrl-C leaves behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from devices import eventually

from edgeloop.bundle import read_bundle
from edgeloop.demo.files import MARK as DEMO_MARK
from edgeloop.errors import MissingExtra

pytestmark = pytest.mark.timeout(1800)
MARK = "EDGELOOP_TEST_MARK"


@pytest.fixture(scope="module")
def chromium():
    from edgeloop.browser.chromium import find_chromium

    try:
        return find_chromium()
    except MissingExtra as e:
        pytest.skip(f"Chromium is missing: {e}")


@pytest.fixture(scope="module")
def digits(chromium, device_python, tmp_path_factory):
    """The document of one run on the digits, and its folder."""
    out = tmp_path_factory.mktemp("demo") / "out"
    command = [sys.executable, "-m", "edgeloop", "demo", "-o", str(out), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), out


def test_the_document_has_every_part_of_the_loop(digits):
    document, _ = digits
    assert {"train", "bundle", "variants", "bench", "federated", "browser", "seconds"} <= set(document)
    assert set(document["train"]) == {"before", "central"}
    assert [v["id"] for v in document["variants"]] == [
        "float32",
        "float16",
        "dynamic",
        "int8",
        "onnx",
        "onnx-int8",
        "tfjs",
        "trainable",
    ]
    for variant in document["variants"]:
        assert {"id", "format", "scheme", "bytes", "parity", "accuracy"} <= set(variant)
        assert {"max_abs", "snr_db", "top1_agreement", "passed"} == set(variant["parity"])
        assert variant["parity"]["passed"]
    assert {"rounds", "before", "after"} <= set(document["federated"])
    assert len(document["federated"]["rounds"]) == 3


def test_training_on_all_digits_reaches_95_percent(digits):
    assert digits[0]["train"]["central"] >= 0.95


def test_three_rounds_close_half_of_the_gap_to_training_on_all_data(digits):
    train, federated = digits[0]["train"], digits[0]["federated"]
    gap = train["central"] - train["before"]
    assert gap > 0, "the cloud's own share is as good as everything: this run shows nothing"
    assert federated["after"] - train["before"] >= gap / 2


def test_int8_is_within_half_a_point_of_float32(digits):
    accuracy = {v["id"]: v["accuracy"] for v in digits[0]["variants"]}
    assert accuracy["int8"] >= accuracy["float32"] - 0.005


def test_the_page_agreed_with_python_on_at_least_32_images(digits):
    page = digits[0]["browser"]
    assert page["engine"] == "litertjs" and page["n"] >= 32
    assert page["variants"]["float32"] <= 1e-5 and page["variants"]["int8"] <= 2 / 256


def test_every_tflite_was_measured_on_every_runtime_of_the_device_environment(digits):
    records = digits[0]["bench"]
    runtimes = {r["runtime"] for r in records}
    assert "litert" in runtimes
    for variant in ("float32", "float16", "dynamic", "int8", "trainable"):
        assert {r["runtime"] for r in records if r["variant"] == variant} == runtimes
    for r in records:
        assert r["p50_ms"] > 0 and r["p90_ms"] > 0 and r["cpu_p50_ms"] > 0 and r["rss_peak_bytes"] > 0


def test_both_releases_are_whole_and_the_second_has_other_weights(digits):
    _, out = digits
    first, second = read_bundle(out / "release-1"), read_bundle(out / "release-2")
    assert (first.manifest.version, second.manifest.version) == (1, 2)
    assert first.manifest.files["float32.tflite"] != second.manifest.files["float32.tflite"]


def test_the_devices_hold_different_labels_and_share_no_image(digits):
    import numpy as np

    _, out = digits
    shards = [np.load(file) for file in sorted((out / "devices").glob("*.npz"))]
    counts = [np.bincount(s["y"], minlength=10) / len(s["y"]) for s in shards]
    # two random halves of 1,259 labels differ by about 2 * sqrt(0.1 * 0.9 / 630) = 2.4 points a label
    assert max(abs(counts[0] - counts[1])) > 0.05
    images = [{x.tobytes() for x in s["x"]} for s in shards]
    assert len(images[0] & images[1]) <= 1  # the data itself may repeat an image


def test_the_report_shows_both_plots_and_needs_no_other_file(digits):
    page = (digits[1] / "report.html").read_text()
    assert page.count("<svg") == 2
    others = re.findall(r"""(?:src|href)=["'](?!#)([^"']*)""", page.replace("xlink:href", "href"))
    assert {Path(other).name for other in others} == {"manifest.json", "demo.json"}, "its bundle and its figures"
    assert all((digits[1] / other).is_file() for other in others)


def running(mark: str) -> list[str]:
    """Command lines of every process that carries the mark in its environment. A zombie has none: it is dead."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}" in (process / "environ").read_text(errors="replace"):
                found.append((process / "cmdline").read_text().replace("\0", " ")[:120])
        except OSError:  # it ended while we looked
            continue
    return found


@pytest.mark.parametrize("line", ["1 cloud", pytest.param("3 edge", marks=pytest.mark.faults), "  round 1"])
def test_ctrl_c_ends_every_process_exits_130_and_leaves_no_half_written_file(
    chromium, device_python, tmp_path, line, monkeypatch
):
    """After `line` is printed the demo is inside the next step: converting, starting rounds, in the rounds."""
    mark = uuid.uuid4().hex
    out = tmp_path / "out"
    command = [sys.executable, "-m", "edgeloop", "demo", "-o", str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, MARK: mark}) as demo:
        for text in demo.stderr:
            if text.startswith(line):
                break
        assert eventually(lambda: len(running(mark)) > 1)
        time.sleep(1.5)  # somewhere in the step
        demo.send_signal(signal.SIGINT)
        rest = demo.stderr.read()
        assert demo.wait(timeout=300) == 130, rest
    assert "interrupted" in rest and "Traceback" not in rest
    assert eventually(lambda: not running(mark)), running(mark)
    hidden = {path.name for path in out.rglob(".*")}
    locks = {".lock", ".server-lock"}  # of the run of rounds: they lie in its folder as long as that does
    assert hidden - locks == {DEMO_MARK}, "a temporary file was left"
    for release in out.glob("release-*"):
        read_bundle(release)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_mnist_reaches_its_marks(chromium, device_python, shared, tmp_path):
    command = [sys.executable, "-m", "edgeloop", "demo", "-o", str(tmp_path / "out"), "--json", "--data"]
    done = subprocess.run([*command, str(shared / "data" / "mnist")], capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    train, after = document["train"], document["federated"]["after"]
    accuracy = {v["id"]: v["accuracy"] for v in document["variants"]}
    assert train["central"] >= 0.98
    assert after - train["before"] >= (train["central"] - train["before"]) / 2
    assert accuracy["int8"] >= accuracy["float32"] - 0.005
