"""HTTP requests in, predictions of the current release out, in the shape of TF Serving's REST API.

    POST /v1/predict  (or /v1/models/NAME:predict)    {"instances": [...]} -> {"predictions": [...]}
                                                      {"inputs": ...} -> {"outputs": ...}
    GET  /v1/model    name, release, variant, runtime, inputs and outputs of the model that is loaded
    GET  /healthz     200 while a model is loaded, else 503; with what is wrong

Failures are {"error": one line}: 400 for a wrong request, 500 where the runtime refuses it, 503 for the request that
killed the model. The model runs one request at a time.

Source: https://www.tensorflow.org/tfx/serving/api_rest. Python 3.9 syntax.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from edgeloop.edge.on_device.serving.hot_reload import HotReload, ModelInputs
from edgeloop.edge.on_device.serving.loaded_model import LoadedModel
from edgeloop.errors import DataError, DeviceError, EdgeloopError
from edgeloop.http.base_handler import BaseHandler
from edgeloop.http.base_server import BaseServer
from edgeloop.http.predict_api.request import PredictRequest, parse_request
from edgeloop.http.predict_api.response import format_predictions

BODY_LIMIT_BYTES = 32 << 20
JSON = "application/json"


class PredictServer(BaseServer):
    """Serves what `hot_reload` has loaded. Raises as `BaseServer`."""

    def __init__(self, host: str, port: int, hot_reload: HotReload) -> None:
        self.hot_reload = hot_reload
        super().__init__(host, port, Handler, "--http")


class Handler(BaseHandler):
    requires_host = False  # small clients leave it out, and a browser never does
    server: PredictServer

    def do_GET(self) -> None:
        model = self.server.hot_reload.current()
        if self.path == "/healthz":
            self.respond_json(*health(self.server.hot_reload))
        elif self.path == "/v1/model":
            self.respond_json(*((200, describe(model)) if model else health(self.server.hot_reload)))
        else:
            self.respond_json(404, {"error": f"{self.path} does not exist. Use /v1/predict, /v1/model or /healthz."})

    def do_POST(self) -> None:
        model = self.server.hot_reload.current()
        paths = ("/v1/predict", f"/v1/models/{model.release.manifest.name}:predict" if model else "")
        if self.path not in paths:
            self.refuse(404, f"{self.path} does not exist. Post to /v1/predict.")
            return
        body = self.read_body(BODY_LIMIT_BYTES)
        if body is None:
            return
        try:
            predictions, version = self._predict(parse_request(body))
            self.respond_json(200, predictions, X_Edgeloop_Release=str(version))
        except DataError as e:
            self.respond_json(400, {"error": str(e)})
        except DeviceError as e:
            self.respond_json(503, {"error": str(e)})
        except EdgeloopError as e:
            self.respond_json(500, {"error": str(e)})

    def _predict(self, request: PredictRequest) -> tuple[dict[str, Any], int]:
        """Predictions, and the version of the release that made them."""

        def make_inputs(model: LoadedModel) -> ModelInputs:
            served = model.release.signature
            if request.signature not in (None, served):
                raise DataError(
                    f"signature {request.signature!r} is not served", advice=f"Ask for {served!r}, or for none."
                )
            return request.inputs(model.inputs), True

        model, outputs, _, _ = self.server.hot_reload.predict(make_inputs)
        return format_predictions(model.outputs, outputs, request.row_format), model.release.manifest.version

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


def health(hot_reload: HotReload) -> tuple[int, dict[str, Any]]:
    """Status code and document of /healthz."""
    model = hot_reload.current()
    wrong = {"restarts": hot_reload.restarts, "trouble": hot_reload.trouble}
    if model is None:
        status = "loading" if hot_reload.error is None else "failed"
        return 503, {"status": status, "error": str(hot_reload.error or "the model is being loaded"), **wrong}
    status = "ok" if hot_reload.trouble is None else "an older release answers"
    return 200, {
        "status": status,
        "release": model.release.manifest.version,
        "variant": model.release.variant.id,
        **wrong,
    }
