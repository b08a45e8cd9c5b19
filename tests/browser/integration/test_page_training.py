"""A tab that trains: its weights against LiteRT in Python, what a user sees and saves, and rounds of a federation."""

import base64
import json
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from edgeloop.browser.assets import PAGE, need_assets
from edgeloop.browser.chromium import find_chromium, open_page
from edgeloop.browser.server import serve, serve_files
from edgeloop.errors import MissingExtra
from edgeloop.runtime.agent.trainer import Trainer
from edgeloop.runtime.device import Device

pytest.importorskip("playwright")
PAGE_MS = 120_000
BATCH, COUNT, CLASSES = 4, 10, 3  # the last batch of an epoch is half full
TRAIN = "([url, inputs, labels, orders]) => edgeloop.train(url, null, inputs, labels, 0.1, orders)"


@pytest.fixture(scope="module")
def chromium():
    try:
        need_assets(PAGE)
        return find_chromium()
    except MissingExtra as e:
        pytest.skip(str(e))


def net(keras, kind):
    layers = keras.layers
    hidden = [layers.Flatten(), layers.Dense(8, activation="relu")]
    if kind == "conv":
        hidden = [layers.Conv2D(4, 3, padding="same", activation="relu"), layers.MaxPooling2D(), layers.Flatten()]
    image = keras.Input((8, 8, 1), name="image")
    keras.utils.set_random_seed(1)
    return keras.Sequential([image, *hidden, layers.Dense(CLASSES, activation="softmax")])


@pytest.fixture(scope="module")
def trainable_files(tmp_path_factory, bundle):
    """The trainable files of a dense net and of the bundle's convolutional net."""
    keras = pytest.importorskip("keras")
    from edgeloop.convert.training.trainable import TrainableOptions, to_trainable

    dense = tmp_path_factory.mktemp("trainable") / "dense.tflite"
    dense.write_bytes(to_trainable(net(keras, "dense"), TrainableOptions(batch=BATCH)))
    return {"dense.tflite": dense, "conv.tflite": bundle.path / "trainable.tflite"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The convolutional net with a trainable variant, and reference images that are easy to tell apart."""
    keras = pytest.importorskip("keras")
    from edgeloop.bundle import Format, Scheme
    from edgeloop.convert.convert import convert
    from edgeloop.convert.options import ConvertOptions
    from edgeloop.convert.training.trainable import TrainableOptions

    folder = tmp_path_factory.mktemp("training")
    net(keras, "conv").save(folder / "m.keras")
    np.savez(folder / "c.npz", x=images(16)[0])
    options = ConvertOptions(
        to=(Format.TFLITE,),
        schemes=(Scheme.FLOAT32,),
        calibration=folder / "c.npz",
        trainable=TrainableOptions(batch=BATCH),
    )
    return convert(folder / "m.keras", folder / "bundle", options).bundle


def images(count):
    """Class k has its bright rows at the top, in the middle or at the bottom."""
    y = np.arange(count) % CLASSES
    x = 0.2 * np.random.default_rng(0).random((count, 8, 8, 1), np.float32)
    for i, label in enumerate(y):
        x[i, 3 * label : 3 * label + 2] += 0.8
    return x.astype(np.float32), y.astype(np.int32)


def by_hand(file, x, y, orders):
    """LiteRT's weights after the same batches in the same order."""
    trainer = Trainer(file.read_bytes(), "litert")
    for order in orders:
        steps = -(-len(order) // BATCH)
        for rows in np.resize(order, (steps, BATCH)):
            trainer._call["train"](image=x[rows], y=y[rows], lr=np.float32(0.1))
    return trainer.get_weights()


@pytest.fixture(scope="module")
def trained(chromium, trainable_files):
    """What the page made of both files, in one opening: {kind: (weights, losses)}, with the orders of the samples."""
    x, y = images(COUNT)
    random = np.random.default_rng(4)
    orders = [random.permutation(COUNT).tolist() for _ in range(4)]
    data = {"image": {"shape": list(x.shape), "dtype": "float32", "data": base64.b64encode(x.tobytes()).decode()}}
    made = {}
    with serve_files(trainable_files) as served, open_page(served.url + "#engine", chromium) as page:
        for kind in ("dense", "conv"):
            answer = page.evaluate(TRAIN, [f"{served.url}bundle/{kind}.tflite", data, y.tolist(), orders])
            weights = {
                name: np.frombuffer(base64.b64decode(one["data"]), "<f4").reshape(one["shape"])
                for name, one in answer["weights"].items()
            }
            made[kind] = weights, answer["losses"]
    return made, orders


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_twelve_steps_in_the_page_end_at_the_weights_of_litert_in_python(trained, trainable_files, kind):
    made, orders = trained
    weights, losses = made[kind]
    x, y = images(COUNT)
    expected = by_hand(trainable_files[f"{kind}.tflite"], x, y, orders)
    assert list(weights) == list(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(weights[name], array, rtol=0, atol=1e-5)
    begun = Trainer(trainable_files[f"{kind}.tflite"].read_bytes(), "litert").get_weights()
    assert max(np.abs(begun[name] - array).max() for name, array in expected.items()) > 1e-2, "it trained"
    assert losses[-1] < losses[0]


# the sample is chosen, and its answer has come: what would be added is what the model saw
SAME = """i => document.querySelectorAll("#sources .samples button")[i].ariaPressed === "true" &&
    document.getElementById("seen").toDataURL() === document.getElementById("train-preview").toDataURL()"""


def expect(locator):
    from playwright.sync_api import expect

    return expect(locator)


def opened(page, url, sample_count=15):
    """Open the page, label its samples by their class, and open "Train here"."""
    page.set_default_timeout(PAGE_MS)
    page.goto(url)
    page.wait_for_selector("body[data-state=ready]", timeout=PAGE_MS)
    page.locator("#fold-train").click()
    page.get_by_role("tab", name="Samples").click()
    samples = page.locator("#sources .samples button")
    for i in range(sample_count):
        samples.nth(i).click()
        page.wait_for_function(SAME, arg=i)
        page.locator("#train-class").select_option(str(i % CLASSES))
        page.locator("#train-add").click()
        expect(page.locator("#train-counts")).to_contain_text(counted(i + 1), timeout=PAGE_MS)


def counted(count):
    """Of `count` images in turns of the classes: the fifth of each class is held out."""
    held = sum(1 for i in range(count) if i // CLASSES % 5 == 4)
    return f"{count - held} to train on, {held} held out"


def test_a_user_trains_uses_and_exports_a_personal_model(bundle, chromium, tmp_path):
    with serve(bundle.path, mounts={}) as served, open_page("about:blank", chromium) as page:
        asked = []
        page.on("request", lambda request: asked.append((request.method, request.url, request.post_data_buffer)))
        opened(page, served.url)
        page.locator("#train-epochs").fill("30")
        page.locator("#train-rate").fill("0.3")
        page.locator("#train-start").click()
        expect(page.locator("#train-result")).to_contain_text("Accuracy on 3 held-out images", timeout=PAGE_MS)
        assert page.locator("#train-result").inner_text().endswith("100.0% after.")
        with page.expect_download() as download:
            page.locator("#train-export").click()
        download.value.save_as(tmp_path / "w.npz")
        page.locator("#train-use").check()
        expect(page.locator("#badge")).to_contain_text("trained in this tab")
        page.locator("#train-reset").click()
        with page.expect_download() as again:
            page.locator("#train-export").click()
        again.value.save_as(tmp_path / "file.npz")
        page.locator("#train-import").set_input_files(tmp_path / "w.npz")
        expect(page.locator("#panel-train [role=status]").first).to_have_text("Imported.")
        page.reload()  # images and weights are kept
        page.wait_for_selector("body[data-state=ready]", timeout=PAGE_MS)
        page.locator("#fold-train").click()
        expect(page.locator("#train-counts")).to_contain_text(counted(15))
        with page.expect_download() as kept:
            page.locator("#train-export").click()
        kept.value.save_as(tmp_path / "kept.npz")
    trained, file, kept = ({**np.load(tmp_path / f"{name}.npz")} for name in ("w", "file", "kept"))
    trainer = Trainer((bundle.path / "trainable.tflite").read_bytes(), "litert")
    assert list(trained) == list(trainer.weights)
    for name, array in trainer.get_weights().items():
        np.testing.assert_array_equal(file[name], array)
        np.testing.assert_array_equal(kept[name], trained[name])
    trainer.set_weights(trained)
    x, y = images(CLASSES)
    assert trainer.evaluate({"image": x}, y).accuracy == 1
    assert {method for method, _, _ in asked} == {"GET"}, "nothing is sent"
    assert [url for _, url, _ in asked if not url.startswith((served.url, "blob:"))] == []


TRAINED = "#federate-sent [data-kind=train] td"


class Rounds(threading.Thread):
    """`federate run` with this network, in a thread; `result` is its records, or what it raised."""

    def __init__(self, bundle, options, network, on_round=lambda record, weights: None):
        super().__init__(daemon=True)
        self.made, self.arguments = queue.Queue(), (bundle, options, on_round, network)
        self.start()

    def run(self):
        from edgeloop.federated.rounds.run_rounds import run_rounds

        try:
            self.made.put(run_rounds(*self.arguments))
        except BaseException as e:
            self.made.put(e)

    def result(self):
        found = self.made.get(timeout=240)
        if isinstance(found, BaseException):
            raise found
        return found


@pytest.fixture
def device(tmp_path, device_python):
    pytest.importorskip("flwr")
    x, y = images(12)
    np.savez(tmp_path / "d.npz", x=x, y=y)
    return Device("device", device_python)


def take_part(page):
    page.locator("#federate-agree").check()
    page.locator("#federate-start").click()
    expect(page.locator("#federate-status")).to_contain_text("Connected", timeout=PAGE_MS)


def test_two_tabs_and_a_python_device_make_a_round_and_no_image_leaves_a_tab(bundle, chromium, device, tmp_path):
    from edgeloop.federated.network.network import network
    from edgeloop.federated.rounds.options import RoundsOptions

    shard = tmp_path / "d.npz"
    options = RoundsOptions(shards=(shard,), out=tmp_path / "run", rounds=1, devices=(device,), epochs=2)
    with network((device,), (shard,)) as running:
        running.submit()
        given = {"federate": f"127.0.0.1:{running.port}", "key": (), "tabs": 2, "root-certificate": None}
        with (
            serve(bundle.path, options={**given, "insecure": True}) as served,
            open_page("about:blank", chromium) as shown,
        ):
            sent, browser = [], shown.context.browser
            user = browser.new_context()
            first, twice = user.new_page(), user.new_page()
            first.on("request", lambda request: sent.append((request.url, request.post_data_buffer)))
            opened(first, served.url, sample_count=4)
            take_part(first)
            opened(twice, served.url, sample_count=0)
            twice.locator("#federate-agree").check()
            twice.locator("#federate-start").click()
            expect(twice.locator("#federate-status")).to_contain_text("Another tab of this browser takes part already")
            twice.close()
            second = browser.new_context().new_page()
            opened(second, served.url, sample_count=3)
            take_part(second)
            rounds = Rounds(bundle.path, options, running)
            for page, examples in ((first, "4"), (second, "3")):
                expect(page.locator(f"{TRAINED} >> text=/^counted$/")).to_have_count(1, timeout=PAGE_MS)
                assert page.locator(TRAINED).nth(3).inner_text() == examples
                assert page.locator("#federate-sent [data-kind=join] td").last.inner_text() == "admitted"
            (record,) = rounds.result()
            norms = [float(page.locator(TRAINED).nth(4).inner_text()) for page in (first, second)]
            first.locator("#federate-pause").click()
            expect(first.locator("#federate-status")).to_contain_text("takes no part")
    assert sorted(client.examples for client in record.clients) == [3, 4, 12]
    found = {client.examples: client.norm for client in record.clients}
    assert norms == pytest.approx([found[4], found[3]], rel=1e-2)  # shown to three digits
    trainer = Trainer((bundle.path / "trainable.tflite").read_bytes(), "litert")
    size = 4 * sum(int(np.prod(shape)) for shape in trainer.weights.values())
    bodies = {url.rpartition("/")[2]: body for url, body in sent if body}
    assert set(bodies) == {"join", "poll", "reply", "leave"}
    head, _, row = bodies["reply"].partition(b"\n")
    assert set(json.loads(head)) == {
        "tab", "work", "base", "kind", "loss", "steps", "examples", "seconds", "v", "bytes"
    }  # fmt: skip
    assert len(row) == size
    x = np.load(bundle.path / "reference.npz")["in/image"]
    rows = [image[row].tobytes() for image in x for row in range(8) if image[row].any()]
    for _, body in sent:
        assert not any(part in (body or b"") for part in rows), "an image left the tab"


@pytest.mark.faults
def test_a_gateway_that_dies_amid_a_round_costs_its_tabs_alone(bundle, chromium, device, tmp_path):
    from edgeloop.federated.network.network import network
    from edgeloop.federated.rounds.options import RoundsOptions

    shard, killed = tmp_path / "d.npz", threading.Event()
    options = RoundsOptions(
        shards=(shard,), out=tmp_path / "run", rounds=2, devices=(device,), quorum=0.5, round_timeout_s=20
    )
    with network((device,), (shard,)) as running:
        running.submit()
        command = [sys.executable, "-m", "edgeloop", "browse", bundle.path, "--no-open", "--insecure", "--tabs", "1"]
        command += ["--federate", f"127.0.0.1:{running.port}"]
        with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True) as gateway:
            try:
                url = gateway.stderr.readline().split(": ")[1].split()[0]
                with open_page("about:blank", chromium) as page:
                    opened(page, url, sample_count=3)
                    take_part(page)

                    def kill(record, weights):
                        if record.round == 1:
                            gateway.send_signal(signal.SIGKILL)
                            killed.set()

                    rounds = Rounds(bundle.path, options, running, kill)
                    records = rounds.result()
                    expect(page.locator("#federate-status")).to_contain_text("cannot be reached")
            finally:
                gateway.kill()
    assert killed.is_set()
    assert [len(record.clients) for record in records] == [2, 1]
    assert Path(tmp_path / "run" / "bundle" / "manifest.json").is_file()
