"""HTTP requests in, predictions of the current release out, in the shape of TF Serving's REST API.

    POST /v1/predict            {"instances": [...]} -> {"predictions": [...]}; {"inputs": ...} -> {"outputs": ...}
    GET  /v1/model              name, release, variant, runtime, inputs and outputs of the model that is loaded
    GET  /healthz               200 while a model is loaded and answers, else 503; with what is wrong
    POST /v1/models/NAME:predict, /v1/models/NAME/versions/N:predict    as TF Serving has them: N is the release
    GET  /v1/models/NAME, /v1/models/NAME/versions/N                    TF Serving's ModelStatus

Failures are {"error": one line}: 400 for a wrong request, 500 where the runtime refuses it, 503 for the request that
killed the model. A request is read and checked beside the others, and the model computes one at a time, in the order
in which they came; one of many samples takes several turns.

Source: https://www.tensorflow.org/tfx/serving/api_rest. Python 3.9 syntax.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from edgeloop.bundle import TensorSpec
from edgeloop.edge.on_device.serving.hot_reload import HotReload, ModelInputs
from edgeloop.edge.on_device.serving.large_requests import LARGE_BYTES, LARGE_VALUES, LargeRequests
from edgeloop.edge.on_device.serving.loaded_model import LoadedModel
from edgeloop.errors import DataError, DeviceError, EdgeloopError
from edgeloop.http.base_handler import BaseHandler
from edgeloop.http.base_server import BaseServer
from edgeloop.http.predict_api.request import PredictRequest, read_request
from edgeloop.http.predict_api.response import check_response_size, write_predictions

BODY_LIMIT_BYTES = 32 << 20
STALLED_S = 10.0  # the next in line has waited so long: the service is not well
ENDING_S = 2.0  # after `close`, for a request to be read and to have its turns
JSON = "application/json"


class PredictServer(BaseServer):
    """Serves what `hot_reload` has loaded. Raises as `BaseServer`."""

    def __init__(self, host: str, port: int, hot_reload: HotReload) -> None:
        self.hot_reload = hot_reload
        self._ends_s = math.inf
        self._large = LargeRequests()
        super().__init__(host, port, Handler, "--http")

    def close(self, timeout_s: float) -> None:
        """As `BaseServer.close`; a request of many samples is given up after ENDING_S."""
        self._ends_s = time.monotonic() + ENDING_S
        last = threading.Timer(ENDING_S, self._large.close)
        last.daemon = True
        last.start()
        super().close(timeout_s)
        self._large.close()

    def read(self, body: bytes, specs: Sequence[TensorSpec]) -> PredictRequest:
        """As `read_request`; a large one is read beside the others."""
        if len(body) > LARGE_BYTES:
            return self._large.read(body, specs)
        return read_request(body, specs, self.check_time)

    def write(self, specs: Sequence[TensorSpec], outputs: dict[str, np.ndarray], row_format: bool) -> bytes:
        """As `write_predictions`; a large one is written beside the others."""
        if sum(array.size for array in outputs.values()) > LARGE_VALUES:
            return self._large.write(specs, outputs, row_format)
        return write_predictions(specs, outputs, row_format)

    def check_time(self) -> None:
        """Raises DeviceError once the service ends."""
        if time.monotonic() > self._ends_s:
            raise DeviceError("the service is ending", advice="Send the request again later.")


class Handler(BaseHandler):
    requires_host = False  # small clients leave it out, and a browser never does
    too_long = "Send fewer samples at a time."
    server: PredictServer

    def do_GET(self) -> None:
        model = self.server.hot_reload.current()
        if self.path == "/healthz":
            self.respond_json(*health(self.server.hot_reload))
        elif self.path == "/v1/model":
            self.respond_json(*((200, describe(model)) if model else health(self.server.hot_reload)))
        elif model and self.path in model_paths(model):
            self.respond_json(200, model_status(model))
        else:
            self.respond_json(404, {"error": f"{self.path} does not exist. Use /v1/predict, /v1/model or /healthz."})

    def do_POST(self) -> None:
        model = self.server.hot_reload.current()
        paths = [f"{path}:predict" for path in model_paths(model)] if model else []
        if self.path not in ("/v1/predict", *paths):
            self.refuse(404, f"{self.path} does not exist. Post to /v1/predict.")
            return
        body = self.read_body(BODY_LIMIT_BYTES)
        if body is None:
            return
        try:
            response, version = self._predict(body)
            self.respond(200, JSON, response, X_Edgeloop_Release=str(version))
        except DataError as e:
            self.respond_json(400, {"error": str(e)})
        except DeviceError as e:
            self.respond_json(503, {"error": str(e)})
        except EdgeloopError as e:
            self.respond_json(500, {"error": str(e)})

    def _predict(self, body: bytes) -> tuple[bytes, int]:
        """The response, and the version of the release that made it."""
        hot_reload = self.server.hot_reload
        specs = hot_reload.model().inputs
        request = self.server.read(body, specs)

        def make_inputs(model: LoadedModel) -> ModelInputs:
            served = model.release.signature
            if request.signature not in (None, served):
                raise DataError(
                    f"signature {request.signature!r} is not served", advice=f"Ask for {served!r}, or for none."
                )
            # a release that took over while this one waited may have other inputs
            inputs = request.inputs if model.inputs == specs else self.server.read(body, model.inputs).inputs
            check_response_size(model.outputs, len(next(iter(inputs.values()))))
            return inputs, True

        model, outputs, _, _ = hot_reload.predict(make_inputs, self.server.check_time)
        return self.server.write(model.outputs, outputs, request.row_format), model.release.manifest.version

    def respond_json(self, status: int, document: dict[str, Any], **headers: str) -> None:
        self.respond(status, JSON, json.dumps(document, allow_nan=False).encode(), **headers)

    @staticmethod
    def error_body(reason: str) -> tuple[str, bytes]:
        return JSON, json.dumps({"error": reason}).encode()


def describe(model: LoadedModel) -> dict[str, Any]:
    """What is loaded, as JSON values."""
    release = model.release
    return {
        "name": release.manifest.name,
        "release": release.manifest.version,
        "variant": release.variant.id,
        "scheme": release.variant.scheme.value,
        "runtime": release.runtime,
        "version": model.process.version,
        "threads": release.threads,
        "inputs": [asdict(spec) for spec in model.inputs],
        "outputs": [asdict(spec) for spec in model.outputs],
    }


def model_paths(model: LoadedModel) -> tuple[str, str]:
    """Where TF Serving has this model, and this version of it."""
    manifest = model.release.manifest
    return f"/v1/models/{manifest.name}", f"/v1/models/{manifest.name}/versions/{manifest.version}"


def model_status(model: LoadedModel) -> dict[str, Any]:
    """TF Serving's response to GET /v1/models/NAME."""
    status = {"error_code": "OK", "error_message": ""}
    version = str(model.release.manifest.version)  # an int64, which JSON of protobuf writes as text
    return {"model_version_status": [{"version": version, "state": "AVAILABLE", "status": status}]}


def health(hot_reload: HotReload) -> tuple[int, dict[str, Any]]:
    """Status code and document of /healthz."""
    model = hot_reload.current()
    wrong = {"restarts": hot_reload.restarts, "trouble": hot_reload.trouble}
    if model is None:
        status = "loading" if hot_reload.error is None else "failed"
        return 503, {"status": status, "error": str(hot_reload.error or "the model is being loaded"), **wrong}
    busy_since_s = hot_reload.busy_since_s
    queue, stalled = hot_reload.queue, hot_reload.queue.longest_wait_s > STALLED_S
    status = "stalled" if stalled else "ok" if hot_reload.trouble is None else "an older release answers"
    return 503 if stalled else 200, {
        "status": status,
        "busy_s": round(time.monotonic() - busy_since_s, 3) if busy_since_s else 0.0,
        "waiting": queue.waiting,
        "longest_wait_s": round(queue.longest_wait_s, 3),
        "release": model.release.manifest.version,
        "variant": model.release.variant.id,
        **wrong,
    }
