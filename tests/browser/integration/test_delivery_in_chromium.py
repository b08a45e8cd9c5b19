"""The page in Chromium as its server and its service worker deliver it: reloads, offline, damage, other hosts."""

import contextlib
import functools
import http.server
import json
import os
import re
import shutil
import threading

import numpy as np
import page_bundles
import pytest

from edgeloop.browser import page_handler
from edgeloop.browser.assets import PAGE, need_assets
from edgeloop.browser.chromium import FLAGS, find_chromium
from edgeloop.browser.export import export
from edgeloop.browser.server import serve
from edgeloop.bundle import MANIFEST, file_entries, read_bundle
from edgeloop.errors import MissingExtra

WAIT_MS = 60_000
RELOAD_BYTES = 50_000  # issue 15: what a reload may transfer


@pytest.fixture(scope="module")
def browser():
    """One Chromium for the file; each test has a context, and with it caches and workers, of its own."""
    playwright = pytest.importorskip("playwright.sync_api")
    try:
        need_assets(PAGE)
        program = find_chromium()
    except MissingExtra as e:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(e))
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as driver:
        yield driver.chromium.launch(executable_path=str(program), args=[*FLAGS, *root])


@pytest.fixture
def tab(browser):
    """A page of an empty profile."""
    context = browser.new_context()
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    yield page
    context.close()


@pytest.fixture
def bundle(root, tmp_path):
    """A copy of the golden bundle: x @ w and a softmax over the labels a, b and c."""
    return shutil.copytree(root / "tests" / "golden" / "bundle-1", tmp_path / "bundle")


@pytest.fixture
def sent(monkeypatch):
    """Bytes that servers of this process have sent, in a list of one."""
    total = [0]

    class CountingHandler(page_handler.PageHandler):
        def setup(self):
            super().setup()
            self.connection_file, self.wfile = self.wfile, self

        def write(self, data):
            total[0] += len(data)
            return self.connection_file.write(data)

        def flush(self):
            self.connection_file.flush()

        @property
        def closed(self):
            return self.connection_file.closed

        def close(self):
            self.connection_file.close()

    monkeypatch.setattr(page_handler, "PageHandler", CountingHandler)
    return total


def ready(page, state="ready"):
    page.wait_for_selector(f"body[data-state={state}]")
    return page


def open_ready(page, url):
    page.goto(url)
    return ready(page)


def kept_offline(page):
    """Wait until the service worker has kept the page, the engine and the variant that is open."""
    page.evaluate("navigator.serviceWorker.ready.then(() => undefined)")
    page.wait_for_function(
        """async () => {
          const kept = [];
          for (const name of await caches.keys())
            for (const { url } of await (await caches.open(name)).keys()) kept.push(url);
          return kept.some((url) => url.endsWith(".wasm")) && kept.some((url) => url.endsWith("float32.tflite"));
        }""",
    )


def test_a_reload_transfers_little_and_everything_comes_from_the_pages_origin(bundle, tab, sent):
    asked = []
    with serve(bundle, mounts={}) as served:
        tab.context.on("request", lambda request: asked.append(request.url))
        devtools = tab.context.new_cdp_session(tab)
        devtools.send("Network.enable")
        devtools.on("Network.requestWillBeSent", lambda event: asked.append(event["request"]["url"]))
        open_ready(tab, served.url)
        assert sent[0] > 2e6, "the control: the engine came"
        first = list(asked)
        kept_offline(tab)
        sent[0] = 0
        tab.reload()
        ready(tab)
        assert 0 < sent[0] < RELOAD_BYTES
        assert any(url.endswith(".wasm") for url in first)
        assert {url for url in asked if not url.startswith((served.url, "data:", "blob:" + served.url))} == set()


@pytest.mark.soak  # a unit test reads the same header
def test_chromium_takes_brotli_from_loopback(bundle, tab):
    with serve(bundle, mounts={}) as served:
        with tab.expect_response("**/assets/index-*.js") as answer:
            tab.goto(served.url)
        assert answer.value.headers["content-encoding"] == "br"


def test_the_page_opens_without_its_server_isolated_and_says_so(bundle, tab):
    with serve(bundle, mounts={}) as served:
        open_ready(tab, served.url)
        assert tab.locator("#gone").count() == 0
        kept_offline(tab)
        url = served.url
    tab.goto(url)
    ready(tab)
    assert tab.evaluate("crossOriginIsolated") is True
    assert tab.locator("#badge").inner_text() != ""
    assert "The server of this page does not answer" in tab.locator("#gone").inner_text()
    # what was never loaded is an error of that variant, in words
    tab.locator("#variant").select_option("int8")
    tab.wait_for_function("() => document.getElementById('reason').textContent.includes('does not answer')")


def test_a_page_whose_server_was_killed_works_on(bundle, tab):
    with serve(bundle, mounts={}) as served:
        open_ready(tab, served.url)
    tab.locator("#variant").select_option("int8")
    tab.wait_for_selector("#gone")
    assert "Start edgeloop browse again" in tab.locator("#gone").inner_text()
    tab.locator("#variant").select_option("float32")
    ready(tab)


def test_the_panel_for_a_phone_shows_the_address_and_its_code(bundle, tab):
    pytest.importorskip("segno")
    with serve(bundle, host="0.0.0.0", mounts={}) as served:
        open_ready(tab, f"http://127.0.0.1:{served.port}/{served.url.rpartition('/')[2]}")
        assert "token" not in tab.url
        tab.get_by_role("button", name="Show it on a phone").click()
        assert tab.locator("#panels code").inner_text() == served.url
        tab.wait_for_function("() => document.querySelector('#panels img').naturalWidth > 100")


@pytest.mark.parametrize("variant", ["float32", pytest.param("int8", marks=pytest.mark.soak)])
def test_a_snippet_runs_as_it_is_pasted(bundle, tab, root, tmp_path, variant):
    snippet = copied_snippet(bundle, tab, variant, f"./{variant}.tflite")
    site = tmp_path / "own"
    site.mkdir()
    x = [0.5, -0.25, 1.0, 2.0]  # in place of the zeros
    filled = re.sub(r"/\* your own values.*?\*/ new Float32Array\(4\)", f"new Float32Array({x})", snippet)
    assert filled != snippet
    (site / "page.html").write_text(filled)
    shutil.copy(bundle / f"{variant}.tflite", site)
    (site / "node_modules").symlink_to(root / "browser" / "web" / "node_modules")
    with plain_server(site) as url:
        tab.goto(url + "page.html")
        tab.wait_for_function("() => document.getElementById('result').textContent")
        shown = json.loads(tab.locator("#result").inner_text())
    expected = answer_of(bundle / f"{variant}.tflite", x)
    assert (shown["name"], shown["labels"]) == ("p", ["a", "b", "c"])
    # the same file on another runtime: float32 rounding of a sum of 4 terms, or one step of int8 (1/256)
    np.testing.assert_allclose(shown["values"], expected, rtol=0, atol=1e-6 if variant == "float32" else 1 / 256)


def copied_snippet(bundle, tab, variant, entry):
    """What the button copies of a variant's snippet: the text that is shown."""
    with serve(bundle, mounts={}) as served:
        tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
        open_ready(tab, served.url)
        tab.locator("#variant").select_option(variant)
        tab.get_by_role("button", name="Use it in your page").click()
        tab.wait_for_function("v => document.querySelector('.snippet')?.textContent.includes(v)", arg=entry)
        tab.get_by_role("button", name="Copy", exact=True).click()
        tab.wait_for_selector("text=Copied.")
        copied = tab.evaluate("navigator.clipboard.readText()")
        assert copied == tab.locator(".snippet code").text_content()
    return copied


def test_a_tfjs_snippet_runs_as_it_is_pasted(tab, root, tmp_path):
    # [1, 2] @ [[1, 2, 3], [4, 5, 6]] by hand
    bundle = page_bundles.tfjs_product(tmp_path / "bundle", np.array([[1, 2, 3], [4, 5, 6]], np.float32)).path
    snippet = copied_snippet(bundle, tab, "tfjs", "./tfjs/model.json")
    filled = re.sub(r"/\* your own values.*?\*/ new Float32Array\(2\)", "new Float32Array([1, 2])", snippet)
    assert filled != snippet
    site = tmp_path / "own"
    shutil.copytree(bundle / "tfjs", site / "tfjs")
    (site / "page.html").write_text(filled)
    (site / "node_modules").symlink_to(root / "browser" / "web" / "node_modules")
    with plain_server(site) as url:
        tab.goto(url + "page.html")
        tab.wait_for_function("() => document.getElementById('result').textContent")
        assert json.loads(tab.locator("#result").inner_text()) == {"name": "y", "values": [9, 12, 15]}


def answer_of(file, x):
    """LiteRT in Python."""
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    interpreter = litert.Interpreter(str(file))
    run = interpreter.get_signature_runner()
    return run(x=np.array([x], np.float32))["p"][0]


def test_chromium_would_install_the_page(bundle, tab):
    with serve(bundle, mounts={}) as served:
        open_ready(tab, served.url)
        kept_offline(tab)
        devtools = tab.context.new_cdp_session(tab)
        errors = devtools.send("Page.getInstallabilityErrors")["installabilityErrors"]
        # a test's profile keeps nothing, as a private window does, which alone Chromium does not install from
        assert [error["errorId"] for error in errors if error["errorId"] != "in-incognito"] == []
        manifest = devtools.send("Page.getAppManifest")
        assert manifest["errors"] == []
        assert json.loads(manifest["data"])["display"] == "standalone"


@pytest.mark.soak
def test_another_release_of_the_page_replaces_the_kept_one(bundle, tab, tmp_path, monkeypatch):
    from edgeloop.browser import server

    released = shutil.copytree(PAGE.parent, tmp_path / "page")
    monkeypatch.setattr(server, "PAGE", released / "index.html")
    with serve(bundle, mounts={}) as served:
        open_ready(tab, served.url)
        kept_offline(tab)
        before = tab.evaluate("caches.keys()")
        port = served.port
    for packed in ("sw.js.gz", "sw.js.br"):
        (released / packed).unlink()
    listed = json.loads((released / "files.json").read_text())
    (released / "sw.js").write_text(worker_of(tab, served.url).replace(release_of(before), "0123456789abcdef"))
    listed["files"]["sw.js"] = {"bytes": (released / "sw.js").stat().st_size, "sha256": "4" * 64, "forms": []}
    (released / "files.json").write_text(json.dumps(listed))
    with serve(bundle, port, mounts={}) as served:
        open_ready(tab, served.url)  # the new worker is fetched, and waits for the tab of the old one
        tab.evaluate("navigator.serviceWorker.getRegistration().then((found) => found.update())")
        tab.wait_for_function("() => navigator.serviceWorker.getRegistration().then((found) => Boolean(found.waiting))")
        context = tab.context
        tab.close()
        again = context.new_page()
        open_ready(again, served.url)
        again.wait_for_function(
            "() => caches.keys().then((names) => names.length === 1 && names[0].endsWith('0123456789abcdef'))"
        )


def release_of(names):
    (name,) = names
    return name.rpartition(" ")[2]


def worker_of(page, url):
    """The service worker's source, as the page's own cache has it."""
    return page.evaluate("url => fetch(url + 'sw.js').then((answer) => answer.text())", url)


def test_a_damaged_file_is_a_red_badge_with_words(bundle, tab):
    with serve(bundle, mounts={}) as served:
        model = (bundle / "float32.tflite").read_bytes()
        (bundle / "float32.tflite").write_bytes(model[:-1] + bytes([model[-1] ^ 1]))  # after the server's own check
        open_ready(tab, served.url)
        assert "float32.tflite is damaged" in tab.locator("#reason").inner_text()
        tab.locator("#variant").select_option("int8")
        tab.wait_for_function(
            "() => document.body.dataset.state === 'ready' && document.getElementById('reason').hidden"
        )


def test_damaged_reference_inputs_are_said_and_not_a_blank_page(bundle, tab):
    with serve(bundle, mounts={}) as served:
        (bundle / "reference.npz").write_bytes(b"PK")
        tab.goto(served.url)
        ready(tab, "error")
        assert "reference.npz is damaged" in tab.locator("#problem").inner_text()


def test_a_model_of_fifty_megabytes_opens_with_its_progress(bundle, tab, sent):
    model = (bundle / "float32.tflite").read_bytes()
    (bundle / "float32.tflite").write_bytes(model + bytes(50_000_000))  # a flatbuffer may have a tail
    manifest = json.loads((bundle / MANIFEST).read_bytes())
    entry = file_entries(bundle)["float32.tflite"]
    manifest["files"]["float32.tflite"] = {"bytes": entry.bytes, "sha256": entry.sha256}
    manifest.pop("proof_sha256", None)
    (bundle / "proof.json").unlink()
    (bundle / MANIFEST).write_text(json.dumps(manifest, sort_keys=True, separators=(",", ":")))
    assert read_bundle(bundle)
    tab.add_init_script(
        """window.lines = new Set();
        new MutationObserver(() => {
          const line = document.querySelector(".download");
          if (line) window.lines.add(line.textContent);
        }).observe(document, { subtree: true, childList: true, characterData: true });"""
    )
    with serve(bundle, mounts={}) as served:
        open_ready(tab, served.url)
        lines = tab.evaluate("[...lines]")
    assert any(line.endswith(" of 50.0 MB") for line in lines)
    assert tab.locator(".download").count() == 0
    assert tab.locator("#reason").is_hidden()


def test_without_javascript_and_without_webassembly_the_page_says_what_it_needs(bundle, browser, monkeypatch):
    with serve(bundle, mounts={}) as served:
        with contextlib.closing(browser.new_context(java_script_enabled=False)) as context:
            page = context.new_page()
            page.goto(served.url)
            assert "needs JavaScript" in page.locator("body").inner_text()
        policy = page_handler.HEADERS["Content-Security-Policy"].replace(" 'wasm-unsafe-eval'", "")
        headers = {**page_handler.HEADERS, "Content-Security-Policy": policy}
        monkeypatch.setattr(page_handler.PageHandler, "response_headers", headers)
        with contextlib.closing(browser.new_context()) as context:
            page = context.new_page()
            page.goto(served.url)
            ready(page, "error")
            assert "does not run WebAssembly here" in page.locator("#problem").inner_text()


@pytest.mark.parametrize("below", [pytest.param("", marks=pytest.mark.soak), "models/linear/"])
def test_an_export_works_on_a_plain_static_server_also_below_a_path(bundle, tab, tmp_path, below):
    export(bundle, tmp_path / "www" / below)
    with plain_server(tmp_path / "www") as url:
        open_ready(tab, url + below)
        assert tab.evaluate("crossOriginIsolated") is False
        assert tab.locator("#reason").is_hidden()


@contextlib.contextmanager
def plain_server(folder):
    """`python -m http.server` in a folder; its address with a slash."""
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as plain:
        threading.Thread(target=plain.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{plain.server_port}/"
        finally:
            plain.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Requests are no news."""
