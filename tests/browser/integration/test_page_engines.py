"""Every engine of the page against the source model's own answers, in one Chromium; WebGPU on a software adapter."""

import contextlib
import dataclasses
import os
import shutil

import numpy as np
import pytest

from edgeloop.browser.agent import _array, _plain
from edgeloop.browser.assets import PAGE, need_assets
from edgeloop.browser.chromium import FLAGS, find_chromium
from edgeloop.browser.server import serve
from edgeloop.bundle import MANIFEST, Format, Scheme, file_entries, read_bundle
from edgeloop.errors import MissingExtra
from edgeloop.runtime.parity.compare import RunContext, compare, floor_of, reason
from edgeloop.runtime.parity.quantization import from_io, to_io
from edgeloop.runtime.parity.reference import read_reference
from edgeloop.runtime.runners import AGENT_RUNNERS

playwright = pytest.importorskip("playwright.sync_api")

IN_CI = os.environ.get("CI") == "true"
WEBGL = ("--enable-unsafe-swiftshader",)
WEBGPU = (*WEBGL, "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")
NO_ADAPTER = "No available adapters."  # Chromium says so itself where a page asks for WebGPU
PAIRS = [
    *(("litertjs-wasm", id) for id in ("float32", "float16", "dynamic", "int8", "int8-io")),
    ("tfjs-wasm", "tfjs"),
    ("tfjs-webgl", "tfjs"),
    ("ort-wasm", "onnx"),
    ("ort-wasm", "onnx-int8"),
]
GPU_PAIRS = [
    ("litertjs-webgpu", "float32"),
    ("litertjs-webgpu", "int8"),
    ("tfjs-webgpu", "tfjs"),
    ("ort-webgpu", "onnx"),
]
OUT_OF_MEMORY = """() => {
  const fail = async () => {
    throw new RangeError("WebAssembly.instantiate(): Out of memory: Cannot allocate Wasm memory for new instance");
  };
  WebAssembly.instantiate = WebAssembly.instantiateStreaming = fail;
}"""
NO_GPU = "delete Navigator.prototype.gpu; HTMLCanvasElement.prototype.getContext = () => null;"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Two inputs and two outputs, whose names are in no alphabetical order, in every form that an engine takes."""
    keras = pytest.importorskip("keras")
    from edgeloop.convert.convert import convert
    from edgeloop.convert.forms.recipes import Io
    from edgeloop.convert.options import ConvertOptions

    keras.utils.set_random_seed(3)
    k = keras.layers
    picture, context = keras.Input((8, 8, 1), name="picture"), keras.Input((3,), name="context")
    seen = k.Flatten()(k.Conv2D(4, 3, strides=2, activation="relu")(picture))
    both = k.Concatenate()([seen, context])
    outputs = {
        "place": k.Dense(2, name="place")(both),
        "kind": k.Dense(4, activation="softmax", name="kind")(both),
    }
    folder = tmp_path_factory.mktemp("engines")
    keras.Model([picture, context], outputs).save(folder / "m.keras")
    random = np.random.default_rng(3)
    arrays = {"picture": random.random((32, 8, 8, 1), np.float32), "context": random.random((32, 3), np.float32)}
    np.savez(folder / "calibration.npz", **arrays)
    options = ConvertOptions(
        to=(Format.TFLITE, Format.TFJS, Format.ONNX),
        schemes=(Scheme.FLOAT32, Scheme.FLOAT16, Scheme.DYNAMIC, Scheme.INT8),
        calibration=folder / "calibration.npz",
        io=(Io.FLOAT32, Io.INT8),
    )
    return convert(folder / "m.keras", folder / "bundle", options).bundle


@pytest.fixture(scope="module")
def driver():
    with playwright.sync_playwright() as driver:
        yield driver


@contextlib.contextmanager
def chromium(driver, *flags):
    try:
        need_assets(PAGE)
        program = find_chromium()
    except MissingExtra as e:
        if IN_CI:
            raise
        pytest.skip(str(e))
    ours = [flag for flag in FLAGS if flag != "--disable-gpu"]
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    browser = driver.chromium.launch(executable_path=str(program), args=[*ours, *flags, *root])
    try:
        yield browser
    finally:
        browser.close()


class Tab:
    """The page of a bundle for programs, and what it said and asked for."""

    def __init__(self, browser, url, before=""):
        self.url, self.query, self.said, self.asked = url, "", [], []
        self.page = browser.new_page()
        self.page.set_default_timeout(120_000)
        self.page.on("console", lambda line: self.said.append(f"{line.type}: {line.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"exception: {error}"))
        self.page.on("request", lambda request: self.asked.append(request.url))
        if before:
            self.page.add_init_script(before)

    def goto(self):
        self.page.goto(f"{self.url}{self.query}#engine")
        self.page.wait_for_function("() => window.edgeloop")
        return self

    def engines(self):
        return {engine["id"]: engine for engine in self.page.evaluate("() => edgeloop.engines()")}

    def open(self, engine, variant):
        return self.page.evaluate("pair => edgeloop.open(...pair)", [engine, variant])

    def run(self, engine, variant, inputs, warmup=0, runs=1):
        """Real numbers in; real numbers out, and the record of the run."""
        given = {name: _plain(array) for name, array in inputs.items()}
        record = self.page.evaluate("all => edgeloop.runModel(...all)", [engine, variant, given, warmup, runs])
        return {name: _array(value) for name, value in record["outputs"].items()}, record

    def close(self, engine, variant):
        self.page.evaluate("pair => edgeloop.close(...pair)", [engine, variant])


@contextlib.contextmanager
def tab_of(browser, bundle, before=""):
    with serve(bundle.path) as served:
        tab = Tab(browser, served.url, before)
        try:
            yield tab
        finally:
            tab.page.close()


@pytest.fixture(scope="module")
def browser(driver):
    with chromium(driver, *WEBGL) as browser:
        yield browser


@pytest.fixture(scope="module")
def tab(browser, bundle):
    with tab_of(browser, bundle) as tab:
        yield tab.goto()


def check_parity(tab, bundle, engine, variant):
    """All reference inputs at once, then three of them, which a free batch answers alike."""
    inputs, expected = read_reference(bundle)
    opened = tab.open(engine, variant)
    assert opened["batch"] == 1
    got, record = tab.run(engine, variant, inputs, warmup=1, runs=2)
    where = RunContext(variant, engine)
    rows = compare(where, floor_of(bundle.variant(variant).scheme), expected, got)
    assert [reason(row) for row in rows if not row.passed] == []
    assert {value.dtype for value in got.values()} == {np.dtype(np.float32)}
    assert len(record["wall_ms"]) == 2
    phases = ("download_ms", "init_ms", "compile_ms", "first_run_ms")
    assert [record["cold"][phase] >= 0 for phase in phases] == [True] * 4
    three, _ = tab.run(engine, variant, {name: array[:3] for name, array in inputs.items()})
    for name, value in three.items():
        # another batch may add the same 40 products in another order: 40 * 2^-24 at unit scale, or a step of int8
        step = 0 if bundle.variant(variant).scheme is Scheme.FLOAT32 else 2e-2
        np.testing.assert_allclose(value, got[name][:3], rtol=0, atol=max(step, 3e-6))
    tab.close(engine, variant)
    return got


@pytest.mark.parametrize(("engine", "variant"), PAIRS)
def test_an_engine_answers_as_the_source_model_does(tab, bundle, engine, variant):
    check_parity(tab, bundle, engine, variant)


def test_int8_io_in_the_page_stores_what_litert_in_python_stores(tab, bundle):
    inputs, _ = read_reference(bundle)
    variant = bundle.variant("int8-io")
    with AGENT_RUNNERS["litert"].open(bundle.path, variant.entry) as session:
        expected = from_io(session.infer(to_io(inputs, variant.io), "infer"), variant.io)
    tab.open("litertjs-wasm", "int8-io")
    got, _ = tab.run("litertjs-wasm", "int8-io", inputs)
    tab.close("litertjs-wasm", "int8-io")
    for name, value in expected.items():  # XNNPACK's kernels may round a half the other way: one step
        np.testing.assert_allclose(got[name], value, rtol=0, atol=1.01 * variant.io[name].scale)


def test_what_an_engine_cannot_run_it_refuses_with_the_reason(tab):
    engines = tab.engines()
    assert engines["ort-wasm"]["missing"] is None
    assert engines["ort-wasm"]["refuses"]["tfjs"] == "ONNX Runtime Web runs .onnx files, not tfjs"
    assert engines["tfjs-webgl"]["refuses"] == {
        id: None if id == "tfjs" else engines["tfjs-wasm"]["refuses"][id] for id in engines["tfjs-wasm"]["refuses"]
    }
    assert engines["litertjs-webgpu"]["missing"] == "WebGPU found no graphics adapter that it can use."
    with pytest.raises(playwright.Error, match=r"TF\.js runs graph models \(tfjs\), not onnx"):
        tab.open("tfjs-wasm", "onnx")


def test_a_closed_model_runs_no_more_and_opens_again(tab, bundle):
    inputs, _ = read_reference(bundle)
    for engine, variant in (("litertjs-wasm", "float32"), ("tfjs-wasm", "tfjs"), ("ort-wasm", "onnx")):
        tab.open(engine, variant)
        first, _ = tab.run(engine, variant, inputs)
        tab.close(engine, variant)
        with pytest.raises(playwright.Error, match=f"variant {variant} is not open in {engine}"):
            tab.run(engine, variant, inputs)
        tab.open(engine, variant)
        again, _ = tab.run(engine, variant, inputs)
        tab.close(engine, variant)
        for name, value in first.items():
            np.testing.assert_array_equal(again[name], value)


def test_engines_of_one_page_take_turns(tab, bundle):
    """The backend of TF.js is global: models of two of them run alternately, as a race does it."""
    inputs, expected = read_reference(bundle)
    pairs = (("tfjs-wasm", "tfjs"), ("tfjs-webgl", "tfjs"), ("ort-wasm", "onnx"), ("litertjs-wasm", "float32"))
    for pair in pairs:
        tab.open(*pair)
    for _ in range(2):
        for pair in pairs:
            got, _ = tab.run(*pair, inputs)
            for name, value in expected.items():
                np.testing.assert_allclose(got[name], value, rtol=0, atol=1e-5)  # float32's threshold
    for pair in pairs:
        tab.close(*pair)


def test_the_console_stayed_clean_and_nothing_left_the_origin(tab):
    """Of all the tests above too."""
    tab.open("litertjs-wasm", "int8")
    tab.close("litertjs-wasm", "int8")
    assert [line for line in tab.said if NO_ADAPTER not in line] == []
    assert [url for url in tab.asked if not url.startswith((tab.url, f"blob:{tab.url}"))] == []
    assert any(url.endswith(".wasm") for url in tab.asked)


def test_the_capabilities_are_what_this_chromium_has(tab):
    found = tab.page.evaluate("() => edgeloop.capabilities()")
    assert (found["isolated"], found["wasm"], found["simd"]) == (True, True, True)
    assert "SwiftShader" in found["webgl"]["name"]
    assert found["webgl"]["software"] is True
    assert found["processors"] == tab.page.evaluate("() => navigator.hardwareConcurrency")
    # https://www.w3.org/TR/hr-time-3/#dfn-coarsen-time: 5 us where the page is isolated
    assert 0.004 < found["timer_resolution_ms"] < 0.1


def test_without_webgl_and_webgpu_the_reason_is_named(browser, bundle):
    with tab_of(browser, bundle, NO_GPU) as tab:
        engines = tab.goto().engines()
        assert engines["tfjs-webgl"]["missing"] == "This browser has no WebGL 2, or it is switched off."
        assert engines["ort-webgpu"]["missing"] == "This browser has no WebGPU."
        assert engines["ort-wasm"]["missing"] is None
        with pytest.raises(playwright.Error, match="This browser has no WebGPU"):
            tab.open("ort-webgpu", "onnx")


def test_blocked_webassembly_is_named_before_anything_is_loaded(browser, bundle):
    def block(route):
        answer = route.fetch()
        policy = answer.headers["content-security-policy"].replace("'wasm-unsafe-eval'", "")
        route.fulfill(response=answer, headers={**answer.headers, "content-security-policy": policy})

    with tab_of(browser, bundle) as tab:
        tab.page.route(tab.url, block)
        tab.goto()
        for engine, found in tab.engines().items():
            blocked = "WebAssembly is blocked on this page" in (found["missing"] or "")
            assert blocked == (engine not in ("tfjs-webgl", "tfjs-webgpu"))
        assert not any(".wasm" in url for url in tab.asked)


@pytest.mark.parametrize(("engine", "variant"), [("litertjs-wasm", "float32"), ("ort-wasm", "onnx")])
def test_too_little_memory_is_said_in_plain_words(browser, bundle, engine, variant):
    words = r"the memory of this browser is not enough for .*Close other tabs"
    with tab_of(browser, bundle, f"({OUT_OF_MEMORY})()") as tab, pytest.raises(playwright.Error, match=words):
        tab.goto().open(engine, variant)


@pytest.fixture
def changed(bundle, tmp_path):
    """A copy of the bundle with another model.json of TF.js, and a manifest that lists it."""

    def make(old, new):
        folder = tmp_path / "changed"
        shutil.copytree(bundle.path, folder)
        (folder / "proof.json").unlink()
        file = folder / "tfjs" / "model.json"
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))
        manifest = dataclasses.replace(bundle.manifest, files=file_entries(folder), proof_sha256=None)
        (folder / MANIFEST).write_bytes(manifest.to_bytes())
        return read_bundle(folder)

    return make


def test_an_operator_that_tfjs_does_not_know_is_named(browser, bundle, changed):
    inputs, _ = read_reference(bundle)
    with tab_of(browser, changed('"op":"Softmax"', '"op":"Softmoux"')) as tab:
        tab.goto().open("tfjs-wasm", "tfjs")
        with pytest.raises(playwright.Error, match=r"TF\.js on WebAssembly does not know the operator Softmoux"):
            tab.run("tfjs-wasm", "tfjs", inputs)


def test_two_threads_answer_as_one_does(browser, bundle):
    inputs, expected = read_reference(bundle)
    with tab_of(browser, bundle) as tab:
        tab.query = "?threads=2"
        tab.goto()
        assert tab.page.evaluate("() => edgeloop.capabilities()")["threads"] == {
            "litertjs": 2,
            "onnxruntime": 2,
            "tfjs": 1,
        }
        for engine, variant in (("litertjs-wasm", "float32"), ("ort-wasm", "onnx")):
            tab.open(engine, variant)
            got, _ = tab.run(engine, variant, inputs)
            for name, value in expected.items():
                np.testing.assert_allclose(got[name], value, rtol=0, atol=1e-5)  # float32's threshold
        assert any("litert_wasm_threaded" in url for url in tab.asked)
        assert [line for line in tab.said if NO_ADAPTER not in line] == []


@pytest.mark.soak
def test_webgpu_engines_answer_as_the_source_model_does(driver, bundle):
    with chromium(driver, *WEBGPU) as browser, tab_of(browser, bundle) as tab:
        tab.goto()
        adapter = tab.page.evaluate("() => edgeloop.capabilities()")["webgpu"]
        assert adapter["software"] is True
        for engine, variant in GPU_PAIRS:
            check_parity(tab, bundle, engine, variant)
        assert [line for line in tab.said if line.startswith(("error", "exception"))] == []
