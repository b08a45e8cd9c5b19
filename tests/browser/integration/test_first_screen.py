"""The first screen in Chromium: every way to give an input, its answer, and how the page looks."""

import contextlib
import gzip
import io
import json
import os
import re
import wave

import numpy as np
import page_bundles
import pytest

from edgeloop.browser.assets import PAGE, need_assets
from edgeloop.browser.chromium import FLAGS, find_chromium
from edgeloop.browser.server import serve
from edgeloop.errors import MissingExtra

playwright = pytest.importorskip("playwright.sync_api")
pytest.importorskip("sklearn")  # draws and trains the digits

IN_CI = os.environ.get("CI") == "true"
WRITE_IMAGES = os.environ.get("EDGELOOP_WRITE_IMAGES") == "1"
TIMEOUT_MS = 60_000
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
CAMERA = (
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)  # a green picture that moves, and a beep
MAKERS = (
    page_bundles.digits,
    page_bundles.photos,
    page_bundles.tables,
    page_bundles.sounds,
    page_bundles.tokens,
    page_bundles.calls,
)


@pytest.fixture(scope="module")
def browser():
    """One Chromium for all tests of the file."""
    try:
        need_assets(PAGE)
        program = find_chromium()
    except MissingExtra as e:
        if IN_CI:
            raise
        pytest.skip(str(e))
    flags = [*FLAGS, *CAMERA, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(program), args=flags)
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    return {make.__name__: make(folder / make.__name__) for make in MAKERS}


@contextlib.contextmanager
def opened(browser, bundle, viewport=DESKTOP, **context):
    """The page of a bundle, ready; an exception of its own script fails the test."""
    failures = []
    with serve(bundle.path) as served:
        context = browser.new_context(viewport=viewport, **context)
        try:
            page = context.new_page()
            page.set_default_timeout(TIMEOUT_MS)
            page.on("pageerror", lambda error: failures.append(str(error)))
            page.goto(served.url)
            page.wait_for_selector("body[data-state=ready]")
            yield page
        finally:
            context.close()
    assert failures == []


def expect(locator):
    return playwright.expect(locator)


def stroke(page, *corners):
    """Draw one stroke into the pad through corners in shares of it."""
    box = page.locator("#pad").bounding_box()
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in corners]
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point, steps=8)
    page.mouse.up()


ZERO = [(0.5 + 0.22 * np.cos(a), 0.5 + 0.35 * np.sin(a)) for a in np.linspace(0, 2 * np.pi, 24)]
ONE = [(0.38, 0.3), (0.52, 0.12), (0.52, 0.88)]
FOUR = [(0.55, 0.1), (0.2, 0.6), (0.8, 0.6)], [(0.62, 0.4), (0.62, 0.92)]
SEVEN = [(0.25, 0.15), (0.75, 0.15), (0.42, 0.9)]


def test_a_drawing_by_pointer_gets_the_digit_that_was_drawn(browser, bundles):
    with opened(browser, bundles["digits"]) as page:
        for digit, strokes in {"0": [ZERO], "4": FOUR, "7": [SEVEN]}.items():
            for corners in strokes:
                stroke(page, *corners)
            expect(page.locator("#guess")).to_have_text(digit)
            expect(page.locator("#bars .best span").first).to_have_text(digit)
            page.locator("#clear").click()
            expect(page.locator("#guess")).to_have_text("–")
        assert page.locator("#time").inner_text().endswith(" ms")
        assert page.locator("#badge").inner_text().startswith("✓ agrees (")


def test_the_camera_is_asked_live_and_ends_with_its_tab(browser, bundles):
    with opened(browser, bundles["photos"]) as page:
        page.locator("#tab-camera").click()
        # until then the answer is that of a sample
        page.wait_for_function("() => document.querySelector('video').srcObject")
        expect(page.locator("#guess")).to_have_text("green")  # the fake camera's ground
        track = page.evaluate_handle("document.querySelector('video').srcObject.getTracks()[0]")
        assert track.evaluate("track => track.readyState") == "live"
        page.locator("#tab-samples").click()
        assert track.evaluate("track => track.readyState") == "ended"
        # left while the browser asks for the permission, and chosen again: no start is left running
        page.evaluate("""() => {
            const media = navigator.mediaDevices, ask = media.getUserMedia.bind(media);
            window.streams = [];
            media.getUserMedia = async (wanted) => {
                const stream = await ask(wanted);
                window.streams.push(stream);
                return stream;
            };
            for (const id of ['camera', 'samples', 'camera', 'samples']) document.getElementById(`tab-${id}`).click();
        }""")
        page.wait_for_function(
            "() => streams.length === 2 && streams.every((s) => s.getTracks().every((t) => t.readyState === 'ended'))"
        )


PICTURE = """async ([color, kind, name]) => {
    const canvas = new OffscreenCanvas(90, 60);
    const context = canvas.getContext('2d');
    context.fillStyle = color;
    context.fillRect(0, 0, 90, 60);
    const data = new DataTransfer();
    data.items.add(new File([await canvas.convertToBlob()], name, {type: 'image/png'}));
    document.dispatchEvent(kind === 'paste' ? new ClipboardEvent('paste', {clipboardData: data, cancelable: true})
                                            : new DragEvent('drop', {dataTransfer: data, cancelable: true}));
}"""


def test_a_picture_is_pasted_dragged_or_chosen(browser, bundles, tmp_path):
    with opened(browser, bundles["photos"]) as page:
        expect(page.locator("#guess")).to_have_text("red")  # the first sample
        page.evaluate(PICTURE, ["#0000ff", "paste", "image.png"])
        expect(page.locator("#guess")).to_have_text("blue")
        assert page.locator("#tab-file").get_attribute("aria-selected") == "true"
        page.evaluate(PICTURE, ["#00ff00", "drop", "image.png"])
        expect(page.locator("#guess")).to_have_text("green")
        hostile = tmp_path / "<img src=x onerror=boom()>.png"
        hostile.write_bytes(b"no picture")
        page.locator("#file").set_input_files(str(hostile))
        expect(page.locator("#source-file [role=status]")).to_contain_text("<img src=x onerror=boom()>.png is no image")
        pixel = page.evaluate("document.getElementById('seen').getContext('2d').getImageData(20, 20, 1, 1).data.join()")
        assert pixel == "0,255,0,255", "what the model sees is the picture"


def test_dark_ink_on_paper_is_inverted_for_a_model_of_light_ink(browser, bundles):
    with opened(browser, bundles["digits"]) as page:
        page.evaluate(PICTURE, ["#ffffff", "paste", "paper.png"])
        seen = "document.getElementById('seen').getContext('2d').getImageData(3, 3, 1, 1).data[0]"
        page.wait_for_function(f"() => {seen} === 0")
        assert page.get_by_label("Invert light and dark").is_checked()
        page.get_by_label("Invert light and dark").uncheck()
        page.wait_for_function(f"() => {seen} === 255")


def values(page):
    """Name, value and the source's value of each line."""
    lines = [line.locator("span").all_inner_texts() for line in page.locator("#bars li").all()]
    return [(name, float(value), beside) for name, value, beside in lines]


def test_a_table_of_two_inputs_gets_the_values_computed_by_hand(browser, bundles):
    with opened(browser, bundles["tables"]) as page:
        # the first sample: [2, 100, 1] @ W = [198, 70], [0.5, 3] @ V = [1, 2], and b = [0.5, -1]
        expect(page.locator("#bars li").first).to_contain_text("199.5")
        assert values(page) == [("y [0]", 199.5, ""), ("y [1]", 71.0, "")]
        assert page.locator("legend").all_inner_texts() == ["house", "place"]
        page.get_by_label("rooms, 1 to 4 in the samples").fill("3")  # one room more: + [1, 10]
        expect(page.locator("#bars li").first).to_contain_text("200.5")
        assert values(page)[1] == ("y [1]", 81.0, "")
        page.get_by_label("rooms, 1 to 4 in the samples").fill("")
        expect(page.locator("#guess")).to_have_text("–")
        page.locator("#tab-samples").click()
        page.get_by_role("button", name="Sample 2").click()
        expect(page.locator("#bars li").first).to_contain_text("298.5")
        assert values(page) == [("y [0]", 298.5, "source 298.5"), ("y [1]", 115.0, "source 115")]


def sine(frequency_hz, rate_hz, seconds=1.0):
    """The bytes of a .wav file with 16 bits and two channels."""
    t = np.arange(int(rate_hz * seconds)) / rate_hz
    one = (20000 * np.sin(2 * np.pi * frequency_hz * t)).astype("<i2")
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(np.repeat(one, 2).tobytes())
    return out.getvalue()


def test_a_sound_is_resampled_to_the_rate_of_the_manifest(browser, bundles):
    with opened(browser, bundles["sounds"]) as page:
        expect(page.locator("#guess")).to_have_text("a")
        page.locator("#tab-audio").click()
        sound = {"name": "tone.wav", "mimeType": "audio/wav", "buffer": sine(880, 44100)}
        page.locator("#sound").set_input_files(sound)
        expect(page.locator("#guess")).to_have_text("a'")
        expect(page.locator("#source-audio [role=status]")).to_have_text("1.0 s of sound at 8000 Hz.")
        page.get_by_role("button", name="Record").click()  # it stops itself after half a second
        expect(page.get_by_role("button", name="Stop")).to_be_visible()
        expect(page.get_by_role("button", name="Record")).to_be_visible()
        expect(page.locator("#source-audio [role=status]")).to_contain_text("s of sound at 8000 Hz.")


def test_pasted_json_is_an_input_and_an_error_in_it_is_named(browser, bundles):
    with opened(browser, bundles["tokens"]) as page:
        page.locator("#tab-json").click()
        field = page.get_by_label("One sample as JSON")
        assert json.loads(field.input_value()) == {"ids": [0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4]}
        field.fill(json.dumps([0] * 11 + [6]))
        expect(page.locator("#share")).to_have_text("78.9%")  # 6 * 11 / 50 = 1.32 against 0: 1 / (1 + e^-1.32) = 0.789
        field.fill("[1, 2]")
        expect(page.locator("#source-json .bad")).to_have_text("ids has the shape [2]. Expected [12]")
        expect(page.locator("#guess")).to_have_text("–")


def test_a_model_without_a_batch_axis_takes_a_call_and_what_it_refuses_is_told_until_the_next_answer(browser, bundles):
    with opened(browser, bundles["calls"]) as page:
        page.locator("#tab-json").click()
        field = page.get_by_label("One sample as JSON")
        assert json.loads(field.input_value()) == {"house": [[2, 100, 1]], "place": [[0.5, 3]]}
        # 2 + 200 - 4 + 4 - 3 + 0.5 and 20 + 50 + 0 + 2 + 0 - 1
        expect(page.locator("#guess")).to_have_text("199.5 · 71")
        field.fill('{"house": [[2, 100, 1], [2, 100, 1]], "place": [[0.5, 3], [0.5, 3], [0.5, 3]]}')
        refused = page.locator("#share [role=alert]")
        expect(refused).to_have_text("the inputs have different batch sizes: 2 and 3 times the batch of the file")
        field.fill('{"house": [[0, 0, 0]], "place": [[0, 0]]}')
        expect(page.locator("#guess")).to_have_text("0.5 · -1")
        expect(refused).to_have_count(0)
        assert page.locator("#problem").is_hidden()


def test_tabs_move_by_the_arrow_keys_and_buttons_open_panels(browser, bundles):
    with opened(browser, bundles["digits"]) as page:
        page.locator("#tab-samples").focus()
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.id") == "tab-draw"
        assert page.locator("#tab-draw").get_attribute("aria-selected") == "true"
        page.locator("#fold-variants").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#panel-variants tr[data-variant=float32]")).to_be_visible()
        assert page.locator("#fold-variants").get_attribute("aria-expanded") == "true"
        page.keyboard.press("Enter")
        expect(page.locator("#panel-variants")).to_be_hidden()


def test_an_engine_that_this_browser_lacks_is_greyed_with_the_reason(browser, bundles):
    with opened(browser, bundles["digits"]) as page:
        greyed = page.locator("#engine option:disabled").all_inner_texts()
        assert any(text.startswith("LiteRT.js, WebGPU: ") for text in greyed), "this Chromium has no GPU"
        assert all(re.fullmatch(r"[^:]+: \w.+", text) for text in greyed), greyed
        assert page.locator("#engine").input_value() == "litertjs-wasm"
        page.locator("#fold-browser").click()
        facts = page.locator("#panel-browser div > dt").all_inner_texts()
        assert facts[:3] == ["Cross-origin isolated", "Processors", "Threads in use"]
        assert page.locator("#panel-browser dd").first.inner_text() == "yes: engines may use threads"


HOSTILE = "<img src=x onerror=boom()>"


def test_no_script_in_a_name_runs(browser, tmp_path):
    made = page_bundles.digits(tmp_path / "hostile", name=HOSTILE)
    signature = made.manifest.signatures["infer"]
    (output,) = signature.outputs
    labels = (f"{HOSTILE}1", "<script>boom()</script>", "javascript:boom()", *map(str, range(3, 10)))
    changed = page_bundles.dataclasses.replace(
        made.manifest,
        source={**made.manifest.source, "file": HOSTILE},
        signatures={
            "infer": page_bundles.dataclasses.replace(
                signature, outputs=(page_bundles.dataclasses.replace(output, labels=labels),)
            )
        },
        variants=(page_bundles.dataclasses.replace(made.manifest.variants[0], notes=(HOSTILE,)),),
    )
    (made.path / "manifest.json").write_bytes(changed.to_bytes())
    with opened(browser, made) as page:
        page.locator("#tab-samples").click()
        expect(page.locator("#guess")).to_have_text(labels[0])
        for panel in page.locator("#folds button").all():
            panel.click()
        expect(page.locator("#panel-variants .note")).to_have_text(HOSTILE)
        assert page.locator("h1").inner_text() == HOSTILE
        assert page.locator("img[src=x], main script").count() == 0
        assert page.evaluate("typeof boom") == "undefined"


@pytest.mark.soak  # test_delivery_in_chromium.py and test_runtimes.py damage other files
def test_a_corrupted_file_gives_a_red_message_and_no_blank_page(browser, tmp_path):
    made = page_bundles.digits(tmp_path / "corrupted")
    file = made.path / "float32.tflite"
    with serve(made.path) as served:  # which checked the file; it breaks after that
        file.write_bytes(b"\xff" * file.stat().st_size)
        page = browser.new_page()
        try:
            page.goto(served.url)
            expect(page.locator("#badge")).to_have_text("✗ cannot run", timeout=TIMEOUT_MS)
            assert page.locator("#reason").inner_text().startswith("float32 is not used with LiteRT.js, WebAssembly: ")
            stroke(page, *SEVEN)
            expect(page.locator("#guess")).to_have_text("–")
            assert page.locator("#try").is_visible()
            red = page.locator("#reason").evaluate("element => getComputedStyle(element).color")
            assert int(re.findall(r"\d+", red)[0]) > 150, red
        finally:
            page.close()


@pytest.mark.soak  # test_delivery_in_chromium.py asks the same of the golden bundle
def test_without_javascript_the_page_says_so(browser, bundles):
    context = browser.new_context(java_script_enabled=False)
    try:
        with serve(bundles["digits"].path) as served:
            page = context.new_page()
            page.goto(served.url)
            box = page.locator("noscript p").bounding_box()
            assert box and box["height"] > 20, "the words are laid out"
            assert "needs JavaScript" in page.locator("noscript p").text_content()
    finally:
        context.close()


def bottom(page, selector):
    return page.locator(selector).evaluate("element => element.getBoundingClientRect().bottom + scrollY")


@pytest.mark.parametrize(
    "name",
    [
        "digits",
        "tables",
        *(pytest.param(name, marks=pytest.mark.soak) for name in ("photos", "sounds", "tokens")),
    ],
)
def test_answer_and_pickers_are_in_sight_on_a_phone_and_a_desktop(browser, bundles, name):
    with opened(browser, bundles[name], PHONE) as page:
        for size in (PHONE, DESKTOP):
            page.set_viewport_size(size)
            for shown in ("#guess", "#badge", "#engine", "#variant"):
                assert page.locator(shown).is_visible()
                assert bottom(page, shown) <= size["height"], (shown, size)
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]


@pytest.fixture(scope="session")
def axe(root):
    file = root / "browser/web/node_modules/axe-core/axe.min.js"
    if not file.is_file():
        pytest.skip("axe-core is not installed: run make setup")
    return file.read_text()


OPENED = "() => [...document.querySelectorAll('.panel-body')].every(body => body.children.length)"
AXE = "async () => (await axe.run(document, {resultTypes: ['violations']})).violations"


def serious(page, axe):
    """What axe-core finds that hinders a person, as `rule: elements`."""
    page.evaluate(axe)
    return [
        f"{found['id']}: {[node['html'][:150] for node in found['nodes']]}"
        for found in page.evaluate(AXE)
        if found["impact"] in ("serious", "critical")
    ]


SOAK = pytest.mark.soak


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("digits", "light"),
        ("tables", "dark"),
        *(pytest.param(make.__name__, scheme, marks=SOAK) for make in MAKERS for scheme in ("light", "dark")),
    ],
)
def test_axe_finds_no_serious_violation(browser, bundles, axe, name, scheme):
    with opened(browser, bundles[name], PHONE if scheme == "dark" else DESKTOP, color_scheme=scheme) as page:
        tabs = page.locator("[role=tab]:not([aria-disabled=true])").all()
        for tab in tabs:
            tab.click()
            assert serious(page, axe) == []
        tabs[-1].click()
        for button in page.locator("#folds button").all():
            button.click()
        page.wait_for_function(OPENED)
        assert serious(page, axe) == []


def test_what_loads_first_is_below_100_kb():
    need_assets(PAGE)
    html = PAGE.read_text()
    first = re.findall(r'(?:src|href)="\./([^"]+\.(?:js|css|svg))"', html)
    assert len(first) >= 3, "the script, its style and the icon"
    sent = [(PAGE.parent / f"{name}.gz").stat().st_size for name in first]
    assert len(gzip.compress(PAGE.read_bytes())) + sum(sent) < 100_000


IMAGES = {  # file: bundle, viewport, scheme, what is done before
    "page-phone.png": ("digits", PHONE, "light", "draw"),
    "page-dark.png": ("digits", DESKTOP, "dark", "draw"),
    "page-tables.png": ("tables", DESKTOP, "light", "nothing"),
    "page-photos.png": ("photos", PHONE, "dark", "nothing"),
}


PANELS = ["Race", "Variants", "Proof", "Train here", "This browser", "Use it in your page"]


@pytest.mark.parametrize("file", [pytest.param(file, marks=[SOAK] * (file != "page-phone.png")) for file in IMAGES])
def test_the_documentations_pictures_of_the_page(browser, bundles, root, tmp_path, file):
    """EDGELOOP_WRITE_IMAGES=1 writes them into docs/images."""
    name, viewport, scheme, action = IMAGES[file]
    with opened(browser, bundles[name], viewport, color_scheme=scheme, reduced_motion="reduce") as page:
        if action == "draw":
            stroke(page, *SEVEN)
        expect(page.locator("#guess")).not_to_have_text("–")
        expect(page.locator("#folds button")).to_have_text(PANELS)
        height = min(viewport["height"], bottom(page, "#folds") + 16)
        taken = (root / "docs/images" if WRITE_IMAGES else tmp_path) / file
        page.screenshot(path=taken, clip={"x": 0, "y": 0, "width": viewport["width"], "height": height})
        assert bottom(page, "#badge") <= viewport["height"]
    assert taken.stat().st_size > 5_000
    assert (root / "docs/images" / file).stat().st_size < 200_000
