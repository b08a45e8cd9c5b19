"""Large bodies and responses go through a process of their own, and come out as small ones do."""

import errno
import json
import os
import threading

import numpy as np
import pytest
from devices import descendants, eventually

from edgeloop.bundle import TensorSpec
from edgeloop.edge.on_device.serving import large_requests
from edgeloop.edge.on_device.serving.large_requests import LargeRequests
from edgeloop.errors import DataError, DeviceError, TargetError
from edgeloop.http.predict_api.request import read_request
from edgeloop.http.predict_api.response import write_predictions

A, B = TensorSpec("a", (None, 2), "float32"), TensorSpec("b/ü", (None,), "int64")
SAMPLES = [{"a": [1.5, -2], "b/ü": 3}, {"a": [0, 1e-3], "b/ü": 4}]
ROWS = json.dumps({"instances": SAMPLES, "signature_name": "s"}).encode()
COLUMNS = json.dumps({"inputs": {"a": [[1.5, -2]], "b/ü": [3]}}).encode()


@pytest.fixture
def large():
    large = LargeRequests()
    yield large
    large.close()


@pytest.mark.parametrize("body", [ROWS, COLUMNS], ids=["rows", "columns"])
def test_what_is_read_there_is_what_is_read_here(large, body):
    there, here = large.read(body, [A, B]), read_request(body, [A, B])
    assert (there.row_format, there.signature) == (here.row_format, here.signature)
    assert list(there.inputs) == list(here.inputs)
    for name, array in here.inputs.items():
        assert there.inputs[name].dtype == array.dtype
        np.testing.assert_array_equal(there.inputs[name], array)


def test_what_is_refused_there_has_the_words_of_here(large):
    body = json.dumps({"instances": [{"a": [1, 2, 3], "b/ü": 3}]}).encode()
    said = []
    for read in (large.read, read_request):
        with pytest.raises(DataError) as error:
            read(body, [A, B])
        said.append(str(error.value))
    assert said[0] == said[1]


@pytest.mark.parametrize("row_format", [True, False])
def test_what_is_written_there_is_what_is_written_here(large, row_format):
    outputs = {"a": np.array([[0.1, 2], [3, 4]], np.float32), "b/ü": np.array([5, 6])}
    here = write_predictions([A, B], outputs, row_format)
    assert large.write([A, B], outputs, row_format) == here
    with pytest.raises(TargetError, match="holds NaN or infinity"):
        large.write([A], {"a": np.array([[np.nan, 1]], np.float32)}, row_format)


def test_what_is_at_work_ends_when_the_service_does(large):
    body = b'{"instances": [' + b"[1, 2]," * 60_000 + b"[1, 2]]}"
    ended = []

    def read() -> None:
        with pytest.raises(DeviceError) as error:
            while True:
                large.read(body, [A])
        ended.append(str(error.value))

    reader = threading.Thread(target=read)
    reader.start()
    assert eventually(lambda: descendants(os.getpid()))
    large.close()
    reader.join(60)
    assert not reader.is_alive() and not descendants(os.getpid())
    assert "given up" in ended[0] or "the service is ending" in ended[0]
    with pytest.raises(DeviceError, match="the service is ending"):
        large.read(ROWS, [A, B])


def test_a_process_that_the_device_cannot_start_is_told_as_the_devices_trouble(large, monkeypatch):
    def refuses(*words, **options):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(large_requests, "owned", refuses)
    with pytest.raises(DeviceError, match=r"no process can be started .*\(Cannot allocate memory\)\. Send fewer"):
        large.read(ROWS, [A, B])
    monkeypatch.undo()
    assert large.read(ROWS, [A, B]).row_format  # and the next one is tried
