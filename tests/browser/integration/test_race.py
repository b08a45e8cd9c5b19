"""Races and parity badges in Chromium, and `bench` on the device `browser`: one small net in two formats."""

import contextlib
import dataclasses
import json
import shutil

import numpy as np
import pytest

from edgeloop.browser.assets import PAGE, need_assets
from edgeloop.browser.chromium import find_chromium, open_page
from edgeloop.browser.server import serve
from edgeloop.bundle import MANIFEST, Format, Scheme, file_entries
from edgeloop.edge.measure.bench import bench
from edgeloop.edge.measure.bench_plan import BenchOptions
from edgeloop.edge.measure.bench_targets import find_targets
from edgeloop.edge.measure.latency_tables import overview
from edgeloop.errors import MissingExtra, OptionsError, TargetError
from edgeloop.runtime.device import BROWSER, parse_device
from edgeloop.runtime.page_engines import PAGE_ENGINES

READY = "body[data-state=ready]"
DONE = "#race-copy:not([disabled])"
RACE_MS = 60_000  # three engines and two variants take less: what the page promises


@pytest.fixture(scope="module")
def made(made_once):
    """bundle/: float32 and int8, as .tflite and ONNX; bias.npy: of the last layer, as float32.tflite stores it."""

    def make(folder):
        keras = pytest.importorskip("keras")
        from edgeloop.convert.convert import convert
        from edgeloop.convert.options import ConvertOptions

        keras.utils.set_random_seed(5)
        last = keras.layers.Dense(4, activation="softmax", bias_initializer="random_normal", name="p")
        layers = [keras.Input((6, 6, 1), name="image"), keras.layers.Conv2D(4, 3, activation="relu")]
        keras.Sequential([*layers, keras.layers.Flatten(), last], name="small").save(folder / "small.keras")
        np.save(folder / "bias.npy", last.get_weights()[1])
        np.savez(folder / "c.npz", x=np.random.default_rng(0).random((32, 6, 6, 1), np.float32))
        options = ConvertOptions(
            calibration=folder / "c.npz",
            to=(Format.TFLITE, Format.ONNX),
            schemes=(Scheme.FLOAT32, Scheme.INT8),
        )
        convert(folder / "small.keras", folder / "bundle", options)

    return made_once("race", make)


@pytest.fixture(scope="module")
def browser(made):
    """One Chromium for the file; its first page shows the bundle."""
    try:
        need_assets(PAGE)
        chromium = find_chromium()
    except MissingExtra as e:
        pytest.skip(str(e))
    with serve(made / "bundle") as served, open_page(served.url, chromium) as page:
        page.wait_for_selector(READY)
        yield page


@contextlib.contextmanager
def another_page(browser, folder):
    with serve(folder) as served:
        page = browser.context.browser.new_page()
        try:
            page.goto(served.url)
            page.wait_for_selector(READY)
            yield page
        finally:
            page.close()


def start(page):
    if page.get_attribute("#fold-race", "aria-expanded") == "false":
        page.click("#fold-race")
    page.click("#race-start")


def result(page):
    page.wait_for_selector(DONE, timeout=RACE_MS)
    return json.loads(page.input_value("#race-json"))


def test_engines_and_the_native_runtime_race_on_the_same_variants(browser):
    start(browser)
    found = result(browser)
    rows = {(row["engine"], row["variant"]): row for row in found["race"]}
    assert {("litertjs-wasm", "float32"), ("litertjs-wasm", "int8"), ("native", "float32"), ("native", "int8")} <= set(
        rows
    )
    assert found["end"] == "complete" and found["duration_s"] < RACE_MS / 1e3
    for (engine, variant), row in rows.items():
        assert "error" not in row, row
        assert row["runs"] == len(row["wall_ms"]) == 100
        assert 0 < row["min_ms"] <= row["median_ms"] <= row["p90_ms"] == sorted(row["wall_ms"])[90]
        assert row["cold"]["first_run_ms"] > 0 and row["cold"]["compile_ms"] > 0
        if engine == "native":
            assert row["about"].startswith(("litert ", "onnxruntime "))
        else:
            assert (
                row["parity"]["passed"] and row["parity"]["checks"] == 2
            )  # at load, and after 50 runs; the third is not due
            assert row["cold"]["download_ms"] > 0
        if engine != "native" and ("native", variant) in rows:
            assert row["over_native"] == pytest.approx(row["median_ms"] / rows["native", variant]["median_ms"])
    assert rows["litertjs-wasm", "int8"]["heap_bytes"] >= 1 << 20
    assert browser.locator("#panel-race tbody tr").count() == len(rows)
    assert "wrong" not in browser.inner_text("#panel-race table")


def test_stop_ends_a_race_and_keeps_what_was_measured(browser):
    start(browser)
    browser.wait_for_selector("#panel-race tbody tr")
    browser.click("#race-stop")
    found = result(browser)
    assert found["end"] == "stopped"
    assert any(len(row["wall_ms"]) < 100 for row in found["race"])
    assert browser.is_enabled("#race-start") and browser.is_disabled("#race-stop")


def test_float32_stands_beside_int8_in_the_proof(browser):
    browser.click("#fold-proof")
    browser.click("#sides")
    browser.wait_for_selector("#panel-proof table")
    lines = [row.split("\t") for row in browser.inner_text("#panel-proof table").splitlines()]
    assert [line[0] for line in lines] == ["Variant", "float32", "int8"]
    assert lines[1][2:4] == ["16 of 16", "16 of 16"]  # float32 rounds otherwise than the source by 1e-7 alone
    assert float(lines[1][1]) < 1e-6 < float(lines[2][1])


@pytest.fixture(scope="module")
def wrong(made, tmp_path_factory):
    """The bundle with another bias in float32.tflite, and the manifest made to fit: a file that no hash gives away."""
    folder = tmp_path_factory.mktemp("wrong") / "bundle"
    shutil.copytree(made / "bundle", folder)
    bias = np.load(made / "bias.npy")
    file = folder / "float32.tflite"
    assert file.read_bytes().count(bias.tobytes()) == 1
    file.write_bytes(file.read_bytes().replace(bias.tobytes(), (bias + np.float32([3, 0, 0, 0])).tobytes()))
    manifest = json.loads((folder / MANIFEST).read_bytes())
    manifest["files"] = {name: dataclasses.asdict(entry) for name, entry in file_entries(folder).items()}
    (folder / MANIFEST).write_text(json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False))
    return folder


def test_an_engine_with_a_wrong_weight_is_red_and_says_by_how_much(browser, wrong):
    with another_page(browser, wrong) as page:
        page.select_option("#variant", "float32")
        page.wait_for_selector("#badge.bad")
        assert "✗ differs (0." in page.inner_text("#badge")
        start(page)
        found = result(page)
        rows = {(row["engine"], row["variant"]): row for row in found["race"]}
        parity = rows["litertjs-wasm", "float32"]["parity"]
        # e^3 on one of four logits near 0 moves its share from about 1/4 to about 20 / 23
        assert parity["failed_at"] == 1 and 0.3 < parity["max_abs"] < 0.9
        assert rows["litertjs-wasm", "int8"]["parity"]["passed"]
        assert page.locator("#panel-race tr.wrong").count() == 1
        assert f"✗ wrong by {parity['max_abs']:.2f}" in page.inner_text("#panel-race tr.wrong")


def test_the_names_of_engines_are_those_of_the_page(browser):
    assert [one["id"] for one in browser.evaluate("() => edgeloop.engines()")] == list(PAGE_ENGINES)


def test_bench_measures_in_the_browser_as_on_any_device(made):
    local = parse_device("local")
    options = BenchOptions(devices=(local, BROWSER), runtimes=("litert", "litertjs-wasm"), runs=64, warmup=2)
    found = bench(find_targets(made / "bundle"), options)
    rows = {(r.variant, r.runtime, r.device): r for r in found.records}
    assert set(rows) == {
        (variant, *where)
        for variant in ("float32", "int8")
        for where in (("litert", "local"), ("litertjs-wasm", "browser"))
    }
    inside = rows["int8", "litertjs-wasm", "browser"]
    assert inside.runtime_version.split()[:3:2] == ["2.5.3", "Chromium"]
    assert len(inside.wall_ms) == len(inside.started_s) == 64 and min(inside.wall_ms) > 0
    assert list(inside.started_s) == sorted(inside.started_s)
    assert inside.input_shapes == {"image": (1, 6, 6, 1)} and inside.batch == 1
    assert inside.load_ms > 0 and inside.first_ms > 0 and inside.rss_peak_bytes > 50e6  # Chromium's renderer
    assert inside.cpu_ms == () and inside.cpu_p50_ms is None and inside.contended == "unknown"
    assert {ratio.cpu is None for ratio in found.ratios if ratio.of.device == "browser"} == {True}
    title = overview(found)[0].title  # each runtime is on one device, so the title tells, and no column
    assert "litert 2" in title and " on local" in title and "Chromium" in title and " on browser" in title


def test_threads_that_the_page_has_not_are_refused(made, browser):
    options = BenchOptions(devices=(BROWSER,), runtimes=("litertjs-wasm",), threads=4000)
    with pytest.raises(TargetError, match=r"this page runs models with \d+ threads, not 4000\. Pass --threads"):
        bench(find_targets(made / "bundle" / "int8.tflite"), options)
    with pytest.raises(OptionsError, match="none of these runtimes runs these files on browser"):
        bench(find_targets(made / "bundle"), BenchOptions(devices=(BROWSER,), runtimes=("litert",)))
