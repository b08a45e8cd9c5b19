"""A predict request is read sample by sample, and the model's turns are fair. No model, no server."""

import base64
import io
import json
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from devices import eventually

from edgeloop.bundle import TensorSpec
from edgeloop.edge.on_device.serving import hot_reload
from edgeloop.edge.on_device.serving.hot_reload import HotReload, _next_size
from edgeloop.edge.on_device.serving.loaded_model import LoadedModel
from edgeloop.edge.on_device.serving.request_queue import RequestQueue
from edgeloop.edge.on_device.serving.served_release import ServeRequest
from edgeloop.errors import DataError, DeviceError
from edgeloop.http.predict_api import request
from edgeloop.http.predict_api.request import read_request
from edgeloop.http.predict_api.response import check_response_size

X = TensorSpec("x", (None, 2), "float32")
N = TensorSpec("n", (None, 1), "int8")
FREE = TensorSpec("f", (None, None, 2), "float32")


def read(document, *specs):
    text = document if isinstance(document, bytes) else json.dumps(document, indent=3).encode()
    return read_request(text, specs or (X,))


def npy(array):
    packed = io.BytesIO()
    np.save(packed, array)
    return {"npy": base64.b64encode(packed.getvalue()).decode()}


@pytest.mark.parametrize(
    "value", [[[1, 2], [3, 4]], [{"x": [1, 2]}, {"x": [3, 4]}], [npy(np.array([1, 2])), [3, 4]]], ids=str
)
def test_instances_are_samples(value):
    found = read({"instances": value, "signature_name": "infer"})
    assert (found.inputs["x"].tolist(), found.inputs["x"].dtype) == ([[1.0, 2.0], [3.0, 4.0]], np.float32)
    assert (found.row_format, found.signature) == (True, "infer")


@pytest.mark.parametrize("value", [[[1, 2], [3, 4]], {"x": [[1, 2], [3, 4]]}, npy(np.array([[1, 2], [3, 4]]))], ids=str)
def test_inputs_are_whole_tensors(value):
    found = read({"signature_name": None, "inputs": value})
    assert (found.inputs["x"].tolist(), found.row_format, found.signature) == ([[1.0, 2.0], [3.0, 4.0]], False, None)


def test_several_inputs_come_by_name_in_any_order():
    rows = {"instances": [{"n": [5], "x": [1, 2]}, {"x": [3, 4], "n": [6]}]}
    columns = {"inputs": {"n": [[5], [6]], "x": [[1, 2], [3, 4]]}}
    for document in (rows, columns):
        found = read(document, X, N).inputs
        assert (found["x"].tolist(), found["n"].tolist()) == ([[1, 2], [3, 4]], [[5], [6]])


def test_a_free_size_is_the_same_in_all_samples():
    assert read({"instances": [[[1, 2]] * 3] * 2}, FREE).inputs["f"].shape == (2, 3, 2)
    with pytest.raises(DataError, match=r"differ in shape \(\[1, 2\] and \[2, 2\]\)"):
        read({"instances": [[[1, 2]], [[1, 2]] * 2]}, FREE)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{}", "neither"),
        (b"[1]", "neither"),
        (b'{"instances": [[1, 2]], "inputs": [[1, 2]]}', "both"),
        (b'{"instances": []}', "is not a list or is empty"),
        (b'{"instances": 3}', "is not a list or is empty"),
        (b'{"instances": [[1, 2], [1]]}', r"a sample of input 'x' has shape \[1\]. Expected \[2\]"),
        (b'{"instances": [[1, 2]}', "is not JSON"),
        (b'{"instances": [[1, 2]]} x', "is not JSON"),
        (b'{"instances": [[1, 2] [3, 4]]}', "is not JSON"),
        (b'{"instances": [[1, NaN]]}', "is not JSON"),
        (b'{"instances": [[1, 1e999]]}', "other than finite numbers"),
        (b"{instances: [[1, 2]]}", "is not JSON"),
        (b'{"instances": [' + b"[" * 3000, "is not JSON"),
        (b'{"instances": [[' + b"1, " * 3000 + b"1]]}", "is longer than 4224 characters"),  # 4096 + 2 * 64
        (b'{"inputs": [[' + b"1, " * 3000 + b"1]]}", "is longer than 4224 characters"),
        (b'{"inputs": {"y": [[1, 2]]}}', r"found the inputs \['y'\]. Expected 'x'"),
        (b'{"inputs": {}}', r"found the inputs \[\]. Expected 'x'"),
        (b'{"inputs": []}', r"shape \[0, 2\]"),
        (b'{"inputs": [1, 2]}', r"a sample of input 'x' has shape \[\]"),
        (b"\xff", "is not JSON"),
    ],
)
def test_what_does_not_fit_is_refused(body, words):
    with pytest.raises(DataError, match=words):
        read(body)


def test_columns_of_different_length_are_refused():
    with pytest.raises(DataError, match="as many samples of each input"):
        read({"inputs": {"x": [[1, 2], [3, 4]], "n": [[5]]}}, X, N)


def test_the_first_misfit_ends_the_reading():
    seen = []
    with pytest.raises(DataError, match="a sample of input 'x' has shape"):
        read_request(b'{"instances": [' + b"1," * 1_000_000 + b"1]}", [X], lambda: seen.append(1))
    assert len(seen) == 1


def test_a_request_has_so_many_samples_and_its_response_so_many_numbers(monkeypatch):
    monkeypatch.setattr(request, "SAMPLES", 3)
    assert len(read({"instances": [[1, 2]] * 3}).inputs["x"]) == 3
    for form in ("instances", "inputs"):
        with pytest.raises(DataError, match="more than 3 samples"):
            read({form: [[1, 2]] * 4})
    wide = TensorSpec("w", (None, 1 << 12), "float32")
    check_response_size([wide], 1 << 10)
    with pytest.raises(DataError, match="would hold 4198400 numbers"):  # (2^10 + 1) * 2^12
        check_response_size([wide], (1 << 10) + 1)


def test_the_time_a_request_may_take_ends_its_reading():
    def late():
        raise DeviceError("the service is ending", advice="Later.")

    with pytest.raises(DeviceError, match="is ending"):
        read_request(b'{"instances": [[1, 2]]}', [X], late)


def test_the_queue_serves_in_the_order_of_arrival():
    queue, order = RequestQueue(), []

    def wait(number):
        with queue:
            order.append(number)

    with queue:
        threads = []
        for number in range(5):
            threads.append(threading.Thread(target=wait, args=(number,)))
            threads[-1].start()
            while queue.waiting <= number:
                time.sleep(0.001)
        assert order == [] and queue.longest_wait_s > 0
    for thread in threads:
        thread.join(60)
    assert order == [0, 1, 2, 3, 4] and (queue.waiting, queue.longest_wait_s) == (0, 0.0)


@pytest.mark.parametrize(
    ("size", "ms", "batch", "then"),
    [(8, 40, None, 4), (8, 1000, None, 1), (8, 1, None, 160), (8, 40, 1, 4), (8, 10, 3, 15), (8, 1000, 32, 32)],
)
def test_a_turn_takes_about_20_ms(size, ms, batch, then):
    assert _next_size(size, ms, batch) == then


def test_samples_are_cut_only_where_every_tensor_has_a_batch_axis():
    def samples(batch, *shapes):
        specs = [TensorSpec(str(i), shape, "float32") for i, shape in enumerate(shapes)]
        model = LoadedModel(("", 0), None, None, None, "infer", specs[:1], specs[1:], batch)
        return model.samples({"0": np.zeros((7, 2))})

    assert samples(None, (None, 2), (None, 3)) == samples(1, (None, 2), (None,)) == 7
    assert samples(4, (4, 2), (4, 3)) == 7
    assert samples(None, (None, 2), (10, 4)) is None
    assert samples(None, (None, 2), ()) is None
    assert samples(None, (None, 2), (1, 100, 4)) is None  # boxes of all samples together, as of some detectors


@pytest.fixture
def doubling(monkeypatch):
    """A service whose model doubles x, 4 ms a sample; `sizes` and `firsts` of its calls; `now` names the release."""
    state = SimpleNamespace(now="one", sizes=[], firsts=[], before_call=lambda x: None)

    def run(inputs):
        state.before_call(inputs["x"])
        state.sizes.append(len(inputs["x"]))
        state.firsts.append(inputs["x"][0])
        time.sleep(0.004 * len(inputs["x"]))
        return {"y": inputs["x"] * 2}

    def load(wanted, timeout_s):
        manifest = SimpleNamespace(version=state.now, name="m")
        release = SimpleNamespace(manifest=manifest, variant=SimpleNamespace(id="v"), runtime="r")
        process, close = SimpleNamespace(dead=False, version="1"), SimpleNamespace(close=lambda: None)
        return SimpleNamespace(
            key=(state.now, 0),
            release=release,
            process=process,
            run=run,
            close=close,
            samples=lambda inputs: len(inputs["x"]),
            batch=None,
        )

    monkeypatch.setattr(hot_reload, "release_key", lambda path: (state.now, 0))
    monkeypatch.setattr(hot_reload, "load_model", load)
    monkeypatch.setattr(hot_reload, "POLL_S", 0.01)
    state.service = service = HotReload(ServeRequest(), 60.0, lambda line: None)
    service.start()
    state.predict = lambda count, **more: service.predict(lambda model: ({"x": np.arange(float(count))}, True), **more)
    yield state
    service.close()


def test_a_request_of_many_samples_lets_others_in_between(doubling):
    whole, waits = [], iter(range(3))

    def until_another_waits(x):
        if (len(x) > 1 or x[0]) and next(waits, None) is not None:  # it is of the large request
            assert eventually(lambda: doubling.service.queue.waiting)

    doubling.before_call = until_another_waits
    thread = threading.Thread(target=lambda: whole.append(doubling.predict(60)))
    thread.start()
    assert eventually(lambda: doubling.service.busy_since_s)
    for _ in range(3):
        doubling.predict(1)
    thread.join(60)
    _, outputs, batched, ms = whole[0]
    np.testing.assert_array_equal(outputs["y"], 2 * np.arange(60.0))
    assert batched and ms >= 60 * 4
    assert doubling.sizes[0] == 8 and max(doubling.sizes[1:]) <= 8
    small = [(size, first) == (1, 0) for size, first in zip(doubling.sizes, doubling.firsts, strict=True)]
    assert small[:6] == [False, True] * 3  # each came after the turn during which it was asked


def test_a_release_that_takes_over_computes_all_of_a_request(doubling):
    def replace():
        doubling.now = "two"
        assert eventually(lambda: doubling.service.current().release.manifest.version == "two")

    model, outputs, _, _ = doubling.predict(40, before_more=replace)
    assert model.release.manifest.version == "two"
    np.testing.assert_array_equal(outputs["y"], 2 * np.arange(40.0))


def test_what_is_raised_between_two_turns_ends_the_request(doubling):
    def late():
        raise DeviceError("the service is ending", advice="Later.")

    with pytest.raises(DeviceError, match="is ending"):
        doubling.predict(40, before_more=late)
    assert doubling.sizes == [8]
