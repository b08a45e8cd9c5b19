"""LiteRT.js in Chromium and TF.js in Node against LiteRT in Python, and the page that a person sees."""

import contextlib
import dataclasses
import io
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
import uuid
from pathlib import Path

import numpy as np
import pytest

from edgeloop import cli
from edgeloop.browser.assets import PAGE, TFJS_RUNNER, need_assets
from edgeloop.browser.chromium import find_chromium, open_page
from edgeloop.browser.runners import LITERTJS, TFJS
from edgeloop.browser.server import serve
from edgeloop.bundle import MANIFEST, REFERENCE, Format, Requirements, Scheme, file_entries, read_bundle
from edgeloop.errors import DeviceError, MissingExtra, TargetError
from edgeloop.runtime.parity.quantization import from_io, to_io
from edgeloop.runtime.runners import AGENT_RUNNERS

IN_CI = os.environ.get("CI") == "true"
PAGE_MS = 60_000
PASSED = "parity check passed"
LITERT = AGENT_RUNNERS["litert"]


def or_skip(find, *arguments):
    """A user's machine may lack it; CI may not."""
    try:
        return find(*arguments)
    except MissingExtra as e:
        if IN_CI:
            raise
        pytest.skip(str(e))


@pytest.fixture(scope="session")
def chromium():
    or_skip(need_assets, PAGE)
    return or_skip(find_chromium)


@pytest.fixture(scope="session")
def node():
    return or_skip(need_assets, TFJS_RUNNER)


@pytest.fixture(scope="session")
def digits():
    """scikit-learn's bundled handwritten digits: [n, 8, 8, 1] in 0..1, and their labels."""
    data = pytest.importorskip("sklearn.datasets").load_digits()
    return (data.images[..., None] / 16).astype("float32"), data.target


@pytest.fixture(scope="session")
def model(tmp_path_factory, digits):
    """A small convolutional net, trained for seconds."""
    keras = pytest.importorskip("keras")
    x, y = digits
    keras.utils.set_random_seed(1)
    k = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            k.Conv2D(16, 3, padding="same", use_bias=False),
            k.BatchNormalization(),
            k.ReLU(),
            k.DepthwiseConv2D(3, padding="same"),
            k.Conv2D(32, 3, strides=2, padding="same", activation="relu"),
            k.GlobalAveragePooling2D(),
            k.Dense(10, activation="softmax", name="probabilities"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x[:1400], y[:1400], epochs=15, verbose=0)
    file = tmp_path_factory.mktemp("model") / "digits.keras"
    model.save(file)
    return file


@pytest.fixture(scope="session")
def bundle(tmp_path_factory, digits, model, node):
    """The net in every form, as edgeloop converts it: release 1."""
    from edgeloop.convert.convert import convert
    from edgeloop.convert.forms.recipes import Io
    from edgeloop.convert.options import ConvertOptions

    folder = tmp_path_factory.mktemp("browser")
    np.savez(folder / "calibration.npz", x=digits[0][:200])
    schemes = tuple(scheme for scheme in Scheme if scheme is not Scheme.MIXED)
    options = ConvertOptions(calibration=folder / "calibration.npz", schemes=schemes, io=(Io.FLOAT32, Io.INT8))
    return convert(model, folder / "digits", options).bundle


@pytest.fixture(scope="session")
def two_by_two(tmp_path_factory, node):
    """Two inputs, two outputs, whose names are in no alphabetical order."""
    keras = pytest.importorskip("keras")
    from edgeloop.convert.convert import convert
    from edgeloop.convert.options import ConvertOptions

    keras.utils.set_random_seed(2)
    wide, deep = keras.Input((3,), name="wide"), keras.Input((4,), name="deep")
    both = keras.layers.Concatenate()([wide, deep])
    outputs = {"top": keras.layers.Dense(2, name="top")(both), "bottom": keras.layers.Dense(5, name="bottom")(deep)}
    folder = tmp_path_factory.mktemp("two")
    keras.Model([wide, deep], outputs).save(folder / "two.keras")
    return convert(folder / "two.keras", folder / "two", ConvertOptions()).bundle


def infer(runner, bundle, variant, inputs):
    """Real numbers in, real numbers out."""
    io = bundle.variant(variant).io
    with runner.open(bundle.path, bundle.variant(variant).entry) as session:
        return from_io(session.infer(to_io(inputs, io), "infer" if variant != "tfjs" else None), io)


def float_bound(expected):
    """Two float32 sums of n terms differ by at most n * 2^-24 of the terms' size; the widest layer sums n = 3 * 3 * 32.

    Four layers, one after the other: 4 * 288 * 6e-8 = 7e-5.
    """
    return 7e-5 * max(1.0, float(np.abs(expected).max()))


@pytest.mark.parametrize("variant", ["float32", "float16"])
def test_litertjs_computes_what_litert_in_python_does(bundle, chromium, digits, variant):
    x = {"image": digits[0][1400:1464]}  # 64 samples; the file leaves the batch free
    expected = infer(LITERT, bundle, variant, x)["probabilities"]
    got = infer(LITERTJS, bundle, variant, x)["probabilities"]
    assert got.shape == (64, 10)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=0, atol=float_bound(expected))


@pytest.mark.parametrize("variant", ["int8", "int8-io"])
def test_litertjs_computes_int8_as_python_does_to_one_step(bundle, chromium, digits, variant):
    x = {"image": digits[0][1400:1432]}
    expected = infer(LITERT, bundle, variant, x)["probabilities"]
    got = infer(LITERTJS, bundle, variant, x)["probabilities"]
    step = np.diff(np.unique(expected)).min()  # integers inside: only the last rounding may fall the other way
    assert np.abs(got - expected).max() <= step * 1.01
    float32 = infer(LITERT, bundle, "float32", x)["probabilities"]
    assert np.abs(got - float32).max() > float_bound(float32), "that was the float model"


def test_litertjs_takes_and_gives_the_files_own_integers(bundle, chromium, digits):
    x = to_io({"image": digits[0][:3]}, bundle.variant("int8-io").io)
    with LITERTJS.open(bundle.path, "int8-io.tflite") as session:
        got = session.infer(x, "infer")["probabilities"]
        with pytest.raises(TargetError, match=r"image is float32 \[3,8,8,1\]\. Expected int8 \[1,8,8,1\]"):
            session.infer({"image": digits[0][:3]}, "infer")
    assert (x["image"].dtype, got.dtype, got.shape) == (np.int8, np.int8, (3, 10))


@pytest.mark.parametrize("count", [1, 3, 33])
def test_every_batch_gives_what_its_samples_give_alone(bundle, chromium, digits, count):
    x = digits[0][1400 : 1400 + count]
    with LITERTJS.open(bundle.path, "float32.tflite") as session:
        whole = session.infer({"image": x}, "infer")["probabilities"]
        alone = [session.infer({"image": sample[None]}, None)["probabilities"] for sample in x]
    np.testing.assert_array_equal(whole, np.concatenate(alone))


def test_tfjs_in_node_computes_what_litert_in_python_does(bundle, node, digits):
    x = {"image": digits[0][1400:1464]}
    expected = infer(LITERT, bundle, "float32", x)["probabilities"]
    got = infer(TFJS, bundle, "tfjs", x)["probabilities"]
    np.testing.assert_allclose(got, expected, rtol=0, atol=float_bound(expected))


@pytest.mark.parametrize(("runner", "variant"), [(LITERTJS, "float32"), (TFJS, "tfjs")])
def test_inputs_and_outputs_go_by_their_names(two_by_two, chromium, node, runner, variant):
    rng = np.random.default_rng(3)
    x = {"deep": rng.normal(size=(5, 4)).astype("float32"), "wide": rng.normal(size=(5, 3)).astype("float32")}
    expected = infer(LITERT, two_by_two, "float32", x)
    got = infer(runner, two_by_two, variant, x)
    assert {name: value.shape for name, value in got.items()} == {"top": (5, 2), "bottom": (5, 5)}
    for name, value in expected.items():  # sums of at most 7 terms: 7 * 6e-8 of terms below 10
        np.testing.assert_allclose(got[name], value, rtol=0, atol=5e-6)


W = np.array([[1.0, -2.0], [0.5, 4.0]], np.float32)
X = np.array([[2.0, 0.5], [0.0, 1.0]], np.float32)
Y = np.array([[2.25, -2.0], [0.5, 4.0]], np.float32)  # X @ W by hand: exact in binary


@pytest.fixture
def product(tmp_path, node):
    """A TF.js graph model of x @ w, written by hand."""
    of = {"type": "DT_FLOAT"}
    tensor = {"dtype": "DT_FLOAT", "tensorShape": {"dim": [{"size": "2"}, {"size": "2"}]}}
    nodes = [
        {
            "name": "x",
            "op": "Placeholder",
            "attr": {"dtype": of, "shape": {"shape": {"dim": [{"size": "-1"}, {"size": "2"}]}}},
        },
        {"name": "w", "op": "Const", "attr": {"dtype": of, "value": {"tensor": tensor}}},
        {
            "name": "y",
            "op": "MatMul",
            "input": ["x", "w"],
            "attr": {"T": of, "transpose_a": {"b": False}, "transpose_b": {"b": False}},
        },
    ]
    model = {
        "format": "graph-model",
        "modelTopology": {"node": nodes, "library": {}, "versions": {}},
        "signature": {"inputs": {"left": {"name": "x:0"}}, "outputs": {"product": {"name": "y:0"}}},
        "weightsManifest": [{"paths": ["w.bin"], "weights": [{"name": "w", "shape": [2, 2], "dtype": "float32"}]}],
    }
    folder = tmp_path / "product"
    folder.mkdir()
    (folder / "w.bin").write_bytes(W.tobytes())
    (tmp_path / "secret.bin").write_bytes(W.tobytes())

    def write(**changes):
        (folder / "model.json").write_text(json.dumps({**model, **changes}))
        return folder

    return write


@pytest.mark.parametrize("order", ["C", "F"])
def test_tfjs_computes_x_times_w_whatever_the_memory_order(product, order):
    with TFJS.open(product(), "model.json") as session:
        got = session.infer({"left": np.array(X, order=order)}, None)
    np.testing.assert_array_equal(got["product"], Y)


UINT8 = np.array([[6, 0], [5, 12]], np.uint8)  # W = -2 + 0.5 * UINT8, exactly


@pytest.mark.parametrize(
    ("stored", "quantization"),
    [(W.astype("<f2"), {"dtype": "float16"}), (UINT8, {"dtype": "uint8", "scale": 0.5, "min": -2.0})],
    ids=["float16", "uint8"],
)
def test_tfjs_computes_with_weights_stored_in_fewer_bits(product, stored, quantization):
    weight = {
        "name": "w",
        "shape": [2, 2],
        "dtype": "float32",
        "quantization": {**quantization, "original_dtype": "float32"},
    }
    folder = product(weightsManifest=[{"paths": ["w.bin"], "weights": [weight]}])
    (folder / "w.bin").write_bytes(stored.tobytes())
    with TFJS.open(folder, "model.json") as session:
        np.testing.assert_array_equal(session.infer({"left": X}, None)["product"], Y)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"weightsManifest": [{"paths": ["../secret.bin"], "weights": []}]}, "is outside the model's folder"),
        ({"format": "layers-model"}, "Expected graph-model"),
        ({"signature": {}}, "no signature"),
        ({"modelTopology": {"node": [], "versions": {}}}, "not part of graph"),
    ],
)
def test_tfjs_refuses(product, changes, why):
    with pytest.raises(TargetError, match=why), TFJS.open(product(**changes), "model.json") as session:
        session.infer({"left": X}, None)


def test_tfjs_names_the_inputs_it_wants(product):
    with pytest.raises(TargetError, match="Expected left"), TFJS.open(product(), "model.json") as session:
        session.infer({"right": X}, None)


@pytest.mark.parametrize("damage", [b"<html>not a model</html>", "half"])
def test_litertjs_refuses_a_damaged_file(bundle, chromium, tmp_path, damage):
    whole = (bundle.path / "float32.tflite").read_bytes()
    (tmp_path / "m.tflite").write_bytes(whole[: len(whole) // 2] if damage == "half" else damage)
    with pytest.raises(TargetError, match=r"\.tflite"), LITERTJS.open(tmp_path, "m.tflite"):
        pass


def test_litertjs_says_what_an_input_should_be(bundle, chromium, digits):
    with LITERTJS.open(bundle.path, "float32.tflite") as session:
        with pytest.raises(TargetError, match=r"image is float64 \[2,8,8,1\]\. Expected float32 \[1,8,8,1\]"):
            session.infer({"image": digits[0][:2].astype("float64")}, "infer")
        assert session.infer({"image": digits[0][:2]}, "infer")["probabilities"].shape == (2, 10)  # it lives on


@pytest.mark.parametrize(("runner", "variant"), [(LITERTJS, "float32"), (TFJS, "tfjs")])
def test_a_runtime_that_gives_no_answer_in_time_is_a_device_error(bundle, chromium, node, digits, runner, variant):
    with runner.open(bundle.path, bundle.variant(variant).entry) as session:
        os.kill(session.agent.child.pid, signal.SIGSTOP)
        session.agent.timeout_s = 0.5
        with pytest.raises(DeviceError, match=r"no answer in 0\.5 s"):
            session.infer({"image": digits[0][:1]}, None)


# short sleeps: a signal that comes just before a wait does not end it, and Python sees it after
HOLD = """
import sys, time
from pathlib import Path
from edgeloop.browser.runners import LITERTJS
with LITERTJS.open(Path(sys.argv[1]), "float32.tflite"):
    print("open", flush=True)
    for _ in range(1200):
        time.sleep(0.1)
"""


def marked(mark):
    """Processes that inherited the mark, wherever they hang in the tree."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended while we looked
            if mark.encode() in (process / "environ").read_bytes():
                found.append((int(process.name), (process / "cmdline").read_bytes()[:80]))
    return found


def gone(mark):
    end = time.monotonic() + 60
    while time.monotonic() < end and marked(mark):
        time.sleep(0.1)
    return not marked(mark)


@contextlib.contextmanager
def started(command, mark):
    child = subprocess.Popen(
        command,
        env={**os.environ, "EDGELOOP_TEST_MARK": mark},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate(timeout=180)
        for pid, _ in marked(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_browser_outlives_the_process_that_opened_it(bundle, chromium, number):
    mark = uuid.uuid4().hex
    with started([sys.executable, "-c", HOLD, str(bundle.path)], mark) as child:
        assert child.stdout.readline() == "open\n"
        assert len(marked(mark)) > 3, "agent, driver and Chromium should be there"
        child.send_signal(number)
        child.wait(timeout=90)
        assert gone(mark), marked(mark)


def test_browse_serves_until_ctrl_c_and_leaves_nothing(bundle, node):
    mark = uuid.uuid4().hex
    command = [sys.executable, "-m", "edgeloop", "browse", str(bundle.path), "--no-open"]
    with started(command, mark) as child:
        line = child.stderr.readline()
        assert line.startswith("digits, release 1: http://127.0.0.1:")
        url = line.split()[3]
        with urllib.request.urlopen(url + "bundle/manifest.json", timeout=180) as answer:
            assert json.load(answer)["name"] == "digits"
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=90) == 130
        assert gone(mark), marked(mark)
    with pytest.raises(OSError):
        urllib.request.urlopen(url, timeout=5)


def test_browse_names_a_port_in_use_and_exits_8(bundle, node, capfd):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.run(["browse", str(bundle.path), "--no-open", "--port", str(port)]) == DeviceError.exit_code == 8
    assert capfd.readouterr().err == (
        f"edgeloop: port {port} on 127.0.0.1 is in use. Choose another with --port, or 0 for any that is free.\n"
    )


@contextlib.contextmanager
def opened(bundle, chromium):
    """The page of a bundle, when it is done with the first variant, with its tables open."""
    with serve(bundle.path) as served, open_page(served.url, chromium) as page:
        page.wait_for_selector("body[data-state=ready]", timeout=PAGE_MS)
        for panel in ("variants", "proof"):
            page.locator(f"#fold-{panel}").click()
            page.wait_for_selector(f"#panel-{panel} .panel-body > *", timeout=PAGE_MS)
        yield page


@pytest.fixture
def page(bundle, chromium):
    with opened(bundle, chromium) as page:
        yield page


def expect(locator):
    from playwright.sync_api import expect

    return expect(locator)


def line(page, variant):
    """What the table says of a variant in this tab."""
    return page.locator(f"tr[data-variant={variant}] .standing")


CHOSEN = "id => document.getElementById('variant').value === id && document.body.dataset.state === 'ready'"


def choose(page, variant):
    """Choose it and wait for the verdict."""
    page.locator(f"input[value={variant}]").check()
    page.wait_for_function(CHOSEN, arg=variant, timeout=PAGE_MS)


def used(page, variant):
    """It answers and is timed."""
    expect(page.locator("#status")).to_contain_text(f"The latency of {variant} is the median of", timeout=PAGE_MS)
    return (
        page.locator("#status").inner_text().startswith(f"The latency of {variant} is the median of 30 runs of one ")
        and page.locator("#median").inner_text().endswith(" ms")
        and page.locator("#badge").inner_text().startswith("✓ agrees")
        and page.locator("#reason").is_hidden()
    )


def not_used(page, variant):
    """It is shown, and neither answers nor is timed."""
    return (
        page.locator("#reason").inner_text().startswith(f"{variant} is not used with LiteRT.js, WebAssembly: ")
        and line(page, variant).inner_text().startswith("not used: ")
        and page.locator("#median").all_inner_texts() in (["–"], [])
        and page.locator("#badge").inner_text().startswith("✗ ")
        and page.locator("#guess").inner_text() == "–"
    )


def test_the_page_shows_the_bundle_and_how_far_it_agrees(bundle, page):
    reference = np.load(bundle.path / "reference.npz")
    assert page.locator("h1").inner_text() == "digits"
    schemes = page.locator("#variants td:nth-child(2)").all_inner_texts()
    assert schemes == [variant.scheme.value for variant in bundle.manifest.variants]
    runnable = [variant.id for variant in bundle.manifest.variants if variant.format is not Format.SAVEDMODEL]
    inputs = page.locator("#variants input").all()
    assert [shown.get_attribute("value") for shown in inputs] == runnable
    off = page.locator("#variants td:nth-child(5)").all_inner_texts()
    assert max(map(float, off)) < 1, "a runtime that a variant failed on, as int4 does on tflite-runtime, is left out"
    assert page.locator("#agreement").inner_text() == "16 of 16"
    assert float(page.locator("#max-abs").inner_text()) <= float_bound(reference["out/probabilities"])
    assert float(page.locator("#snr").inner_text().removesuffix(" dB")) >= 100
    assert page.locator("#samples canvas").count() == 16
    classes = reference["out/probabilities"].argmax(1)
    assert page.locator("#samples li p:first-of-type").all_inner_texts() == [f"{c} ✓" for c in classes]
    assert page.evaluate("crossOriginIsolated") is True
    assert used(page, "float32")
    assert line(page, "float32").inner_text() == PASSED
    assert line(page, "int8").inner_text() == "not tested yet"
    assert line(page, "tfjs").inner_text() == "parity check passed at conversion"  # by TF.js in Node


def test_the_page_proves_every_scheme_and_shows_its_own_difference(bundle, page):
    reference = np.load(bundle.path / "reference.npz")
    for variant in ["int8", "int8-io", "int16x8", "int4", "dynamic", "float16"]:
        choose(page, variant)
        got = infer(LITERT, bundle, variant, {"image": reference["in/image"]})["probabilities"]
        expected = np.abs(got - reference["out/probabilities"]).max()
        shown = float(page.locator("#max-abs").inner_text())
        assert shown == pytest.approx(expected, rel=0.05), variant  # shown to two digits
        assert used(page, variant)
        assert line(page, variant).inner_text() == PASSED


def test_the_page_asks_its_own_server_alone(bundle, chromium):
    with serve(bundle.path) as served, open_page(served.url, chromium) as page:
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.reload()
        page.wait_for_selector("body[data-state=ready]", timeout=PAGE_MS)
    assert f"{served.url}bundle/float32.tflite" in asked
    assert [url for url in asked if not url.startswith(served.url)] == []


def png_size(file):
    """Width and height in pixels, of a PNG's first chunk."""
    data = file.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


def test_a_script_takes_the_readmes_picture_of_the_page(bundle, chromium, root, tmp_path):
    taken, committed = tmp_path / "page.png", root / "docs/images/page.png"
    command = [sys.executable, str(root / "scripts/screenshot"), str(bundle.path), str(taken)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"digits: ✓ agrees \(.+\), the drawing is a \d\n", done.stdout)
    for picture in (taken, committed):
        width, height = png_size(picture)
        assert width == 1280
        assert 500 < height < 900
    assert committed.stat().st_size < 200_000


def draw_a_seven(page):
    """Draw, and wait for the answer: pixels [8, 8] from 0 to 1 as the model saw them, and the share of each class."""
    page.locator("#pad").scroll_into_view_if_needed()
    box = page.locator("#pad").bounding_box()
    at = lambda x, y: (box["x"] + x * box["width"], box["y"] + y * box["height"])  # noqa: E731
    page.mouse.move(*at(0.3, 0.2))
    page.mouse.down()
    for x, y in [(0.7, 0.2), (0.45, 0.9)]:
        page.mouse.move(*at(x, y), steps=10)
    page.mouse.up()
    expect(page.locator("#guess")).not_to_have_text("–", timeout=PAGE_MS)
    page.wait_for_timeout(500)  # the last stretch of the stroke is classified a frame later
    seen = page.evaluate("[...document.getElementById('seen').getContext('2d').getImageData(0, 0, 8, 8).data]")
    pixels = np.array(seen, np.float32).reshape(8, 8, 4)[..., 0] / 255
    assert pixels.max() > 0.8, "ink should reach the model"
    shown = [float(text.rstrip("%")) / 100 for text in page.locator("#bars span:last-child").all_inner_texts()]
    assert page.locator("#guess").inner_text() == str(int(np.argmax(shown)))
    return pixels, np.array(shown)


def test_a_drawing_gets_the_class_that_python_gives_to_the_same_pixels(bundle, page):
    for variant in ("float32", "int8-io"):
        choose(page, variant)
        pixels, shown = draw_a_seven(page)
        expected = infer(LITERT, bundle, variant, {"image": pixels.reshape(1, 8, 8, 1)})["probabilities"][0]
        # the canvas holds 8 bits a pixel, the model had the unrounded ones; bars show 0.1%
        np.testing.assert_allclose(shown, expected, rtol=0, atol=0.02)
        page.locator("#clear").click()
        expect(page.locator("#guess")).to_have_text("–", timeout=PAGE_MS)


def test_a_drawing_has_the_range_that_the_model_takes(model, chromium, node, tmp_path):
    from edgeloop.convert.convert import convert
    from edgeloop.convert.forms.preprocess import Preprocessing
    from edgeloop.convert.options import ConvertOptions

    prepared = Preprocessing(input_range=(0.0, 255.0))
    options = ConvertOptions(to=(Format.TFLITE,), schemes=(Scheme.FLOAT32,), preprocess=prepared)
    bundle = convert(model, tmp_path / "bytes", options).bundle
    (image,) = bundle.manifest.signatures["infer"].inputs
    assert image.range == (0, 255)
    with opened(bundle, chromium) as page:
        pixels, shown = draw_a_seven(page)
    expected = infer(LITERT, bundle, "float32", {"image": 255 * pixels.reshape(1, 8, 8, 1)})["probabilities"][0]
    np.testing.assert_allclose(shown, expected, rtol=0, atol=0.02)  # as above
    wrong = infer(LITERT, bundle, "float32", {"image": pixels.reshape(1, 8, 8, 1)})["probabilities"][0]
    assert np.abs(wrong - expected).max() > 0.1, "pixels of 0 to 1 would have looked the same"


@pytest.fixture
def remade(bundle, tmp_path):
    """A copy of the bundle: files written or taken away, the manifest changed to match."""

    def make(files=None, **changes):
        folder = tmp_path / "remade"
        shutil.copytree(bundle.path, folder)
        (folder / "proof.json").unlink()
        for name, content in (files or {}).items():
            (folder / name).unlink(missing_ok=True)
            if content is not None:
                (folder / name).write_bytes(content)
        manifest = dataclasses.replace(bundle.manifest, files=file_entries(folder), proof_sha256=None, **changes)
        (folder / MANIFEST).write_bytes(manifest.to_bytes())
        return read_bundle(folder)

    return make


def claiming(bundle, id, like, *runtimes):
    """A variant of its own file ID.tflite that says it was proved on `runtimes`."""
    made = dataclasses.replace(bundle.variant(like), id=id, entry=f"{id}.tflite", files=(f"{id}.tflite",))
    note = () if runtimes else ("unproved: no runtime of its format was installed when it was made",)
    return dataclasses.replace(made, requires=Requirements(runtimes), notes=note)


def test_a_variant_that_fails_here_is_shown_and_not_used(bundle, remade, chromium):
    good = (bundle.path / "float32.tflite").read_bytes()
    coarse = (bundle.path / "int4.tflite").read_bytes()  # right for int4, far from what float32 promises
    variants = (
        claiming(bundle, "coarse", "float32", "litert", "litertjs"),  # whatever it claims
        claiming(bundle, "unproved", "float32"),
        claiming(bundle, "claimed", "float32", "litertjs"),
        claiming(bundle, "damaged", "float32", "litertjs"),
    )
    files = {
        "coarse.tflite": coarse,
        "unproved.tflite": good,
        "claimed.tflite": good,
        "damaged.tflite": good[: len(good) // 2],
    }
    with opened(remade(files, variants=(*variants, *bundle.manifest.variants)), chromium) as page:
        assert not_used(page, "coarse")  # the first of all
        assert ". float32 requires an SNR of at least 100 dB, " in line(page, "coarse").inner_text()
        assert page.locator("#samples canvas").count() == 16  # shown
        assert line(page, "claimed").inner_text() == "parity check passed at conversion"
        assert page.locator("tr[data-variant=unproved] td:nth-child(6)").inner_text() == "no runtime"
        assert page.locator("tr[data-variant=unproved] .note").inner_text().startswith("unproved: ")

        choose(page, "unproved")
        assert used(page, "unproved")
        assert line(page, "unproved").inner_text() == PASSED
        draw_a_seven(page)

        choose(page, "damaged")
        assert not_used(page, "damaged")
        assert "WebAssembly cannot run the file: the .tflite file is damaged" in line(page, "damaged").inner_text()
        assert page.locator("#samples li").count() == 0  # nothing of the variant before
        assert page.locator("#badge").inner_text() == "✗ cannot run"
        assert page.locator("#problem").is_hidden()

        choose(page, "claimed")
        assert used(page, "claimed")
        assert line(page, "claimed").inner_text() == PASSED
        assert line(page, "damaged").inner_text().startswith("not used")  # the verdicts stay


def test_a_corrupted_shard_gives_a_red_badge_and_a_message(bundle, remade, chromium):
    (shard,) = [name for name in bundle.manifest.files if name.startswith("tfjs/") and name.endswith(".bin")]
    made = remade({shard: b"\xff" * bundle.manifest.files[shard].bytes})  # every weight is not a number
    with opened(made, chromium) as page:
        choose(page, "tfjs")
        assert page.locator("#badge").inner_text().startswith("✗ ")
        assert page.locator("#reason").inner_text().startswith("tfjs is not used with TF.js, ")
        assert page.locator("#try").is_visible()
        choose(page, "float32")
        assert used(page, "float32")


def test_garbage_is_not_used_while_the_rest_is(bundle, model, remade, chromium):
    keras = pytest.importorskip("keras")
    kernel = keras.saving.load_model(model).layers[-1].get_weights()[0].T.tobytes()  # a .tflite holds it transposed
    data = (bundle.path / "float32.tflite").read_bytes()
    assert data.count(kernel) == 1
    data = data.replace(kernel, bytes(len(kernel)))  # it runs, and gives every image the same answer
    variants = (*bundle.manifest.variants, claiming(bundle, "garbage", "int8", "litert"))
    made = remade({"garbage.tflite": data}, variants=variants)
    with opened(made, chromium) as page:
        assert used(page, "float32")
        choose(page, "garbage")
        assert not_used(page, "garbage")
        assert ". int8 requires an SNR of at least 10 dB " in line(page, "garbage").inner_text()
        choose(page, "int8")
        assert used(page, "int8")


def test_without_reference_inputs_only_what_was_proved_on_litertjs_is_used(bundle, remade, chromium):
    good = (bundle.path / "int8-io.tflite").read_bytes()
    variants = (*bundle.manifest.variants, claiming(bundle, "claimed", "int8-io", "litertjs"))
    made = remade({REFERENCE: None, "claimed.tflite": good}, variants=variants)
    with opened(made, chromium) as page:
        assert not_used(page, "float32")
        assert "no reference inputs" in line(page, "float32").inner_text()
        choose(page, "claimed")
        assert line(page, "claimed").inner_text() == "parity check passed at conversion"
        pixels, shown = draw_a_seven(page)
    expected = infer(LITERT, bundle, "int8-io", {"image": pixels.reshape(1, 8, 8, 1)})["probabilities"][0]
    np.testing.assert_allclose(shown, expected, rtol=0, atol=0.02)  # as above


def test_a_variant_of_a_later_edgeloop_is_left_out(bundle, remade, chromium):
    made = remade()
    manifest = json.loads((made.path / MANIFEST).read_bytes())
    manifest["variants"][0]["scheme"] = "int2"
    manifest["variants"][1]["format"] = "coreml"
    (made.path / MANIFEST).write_text(json.dumps(manifest))
    with opened(made, chromium) as page:
        shown = [row.get_attribute("data-variant") for row in page.locator("#variants tr").all()]
        assert shown == [variant.id for variant in bundle.manifest.variants[2:]]
        assert used(page, shown[0])


@pytest.fixture
def other_bundle(bundle, remade):
    """The same model beside answers of a source that gives each sample the next class, under a name full of HTML."""
    with np.load(bundle.path / "reference.npz") as arrays:
        changed = {name: arrays[name] for name in arrays.files}
    changed["out/probabilities"] = np.roll(changed["out/probabilities"], 1, axis=1)
    buffer = io.BytesIO()
    np.savez(buffer, **changed)
    return remade({REFERENCE: buffer.getvalue()}, name="<img src=x onerror=boom()>")


def test_the_page_shows_disagreement_and_takes_names_as_text(other_bundle, chromium):
    with opened(other_bundle, chromium) as page:
        assert page.locator("#agreement").inner_text() == "0 of 16"
        assert page.locator("#samples li.differs").count() == 16
        assert not_used(page, "float32")
        assert page.locator("h1").inner_text() == "<img src=x onerror=boom()>"
        assert page.locator("h1 img").count() == 0
