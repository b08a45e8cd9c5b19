"""What a tab asks its own origin for, below /api/federate/: JSON, and weights in frames (processes/frames.py).

    join    {client, cores, model}             -> {tab}, or 409 {code, error}; `model` is the SHA-256 of the page's file
    poll    {tab}                              -> {connected, said}, or work as a frame with weights
    poll    {tab, working}                     -> at once {connected, said, wanted}
    reply   a frame {tab, work, base, ...}     -> {counted}
    leave   {tab}                              -> {}

A tab that has no place any more gets 410 {error, final}: it joins again, unless that is final. All are POST: with those
browsers name the page's origin, which the page's server compares with its own.
"""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from edgeloop.errors import ModelError, one_line
from edgeloop.federated.gateway.desk import Answer
from edgeloop.federated.gateway.gateway import Gateway, NotAdmitted
from edgeloop.federated.gateway.place import Place
from edgeloop.http.base_server import BODIES_BYTES
from edgeloop.http.routes import Request, Response, json_response, not_found
from edgeloop.processes.frames import read_frame, write_frame

WAIT_S = 10.0  # of one poll
SMALL_BYTES = 4096  # of a request without weights
HEAD_BYTES = 16384  # of what stands before weights
NUMBERS = {"train": ("loss", "steps", "examples", "seconds"), "evaluate": ("loss", "examples", "accuracy")}


class TabRequests:
    """Answers the requests of tabs: the route `federate` of http/routes.py.

    Raises:
        ModelError: The weights of the model are more than the page's server reads.
    """

    requires_token = True

    def __init__(self, behind: Gateway) -> None:
        self.gateway = behind
        weights = sum(math.prod(weight.shape) for weight in behind.model.manifest.weights)
        reply_bytes = 4 * weights + HEAD_BYTES
        if reply_bytes > BODIES_BYTES:
            raise ModelError(
                f"a tab's reply has {reply_bytes} bytes, and the page's server reads {BODIES_BYTES} at most",
                advice="Train a model with fewer weights in tabs, or this one with: edgeloop federate join",
            )
        self.limits_bytes = {"POST": reply_bytes}
        self._answers = {"join": self._join, "poll": self._poll, "reply": self._reply, "leave": self._leave}

    def answer(self, request: Request) -> Response:
        """Of one request. A poll waits WAIT_S at most."""
        call = self._answers.get(request.path)
        if call is None:
            return not_found(request)
        if request.path != "reply" and len(request.body) > SMALL_BYTES:
            return _refused(f"The request has {len(request.body)} bytes; the limit is {SMALL_BYTES}.", 413)
        try:
            return call(request)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as e:
            return _refused(one_line(f"The gateway cannot read the request: {e}.", 200), HTTPStatus.BAD_REQUEST)

    def _join(self, request: Request) -> Response:
        asked = _object(request.body)
        client, cores = _text(asked, "client"), asked.get("cores", 1)
        if not isinstance(cores, int) or not 1 <= cores <= 4096:
            raise ValueError("cores is no number of CPUs")
        shown, trained = _text(asked, "model"), self.gateway.model.sha256
        if shown != trained:
            words = f"The page has the model {shown[:12]}…, and this server's tabs train {trained[:12]}…."
            advice = "Load the page again. If that does not help, start edgeloop browse again."
            return _refused(f"{words} {advice}", HTTPStatus.CONFLICT, code="model")
        try:
            return json_response({"tab": self.gateway.join(client, cores)})
        except NotAdmitted as e:
            return _refused(str(e), HTTPStatus.CONFLICT, code=e.code)

    def _poll(self, request: Request) -> Response:
        asked = _object(request.body)
        place = self.gateway.place(_text(asked, "tab"))
        if place is None or place.desk.left:
            return _gone(place)
        working = asked.get("working")
        if working:
            return json_response({**_state(place), "wanted": place.desk.hear(str(working))})
        work, deadline = None, time.monotonic() + WAIT_S
        while work is None and not (place.desk.left or request.closing()) and time.monotonic() < deadline:
            work = place.desk.next_work(1.0)
        if place.desk.left:
            return _gone(place)
        if work is None:
            return json_response(_state(place))
        framed = io.BytesIO()
        head = {"work": work.id, "kind": work.kind, "base": work.base, **work.config, **_state(place)}
        write_frame(framed, head, work.row)
        return Response(framed.getvalue(), "application/octet-stream")

    def _reply(self, request: Request) -> Response:
        frame = read_frame(io.BytesIO(request.body))
        if frame is None:
            raise ValueError("it is empty")
        head, row = frame
        place = self.gateway.place(_text(head, "tab"))
        if place is None or place.desk.left:
            return _gone(place)
        failed = head.get("failed")
        numbers = {} if failed else _numbers(head, NUMBERS[_text(head, "kind")])
        answer = Answer(numbers, row, one_line(failed, 200) if failed else "")
        return json_response({"counted": place.desk.give(_text(head, "work"), _text(head, "base"), answer)})

    def _leave(self, request: Request) -> Response:
        place = self.gateway.place(_text(_object(request.body), "tab"))
        if place is not None:
            place.desk.leave("the tab was closed or paused")
        return json_response({})


def _object(body: bytes) -> Mapping[str, Any]:
    found = json.loads(body)
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found


def _text(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 128:
        raise ValueError(f"{name} is no text of 1 to 128 letters")
    return value


def _numbers(found: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for name in names:
        value = found.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise ValueError(f"{name} is no number of 0 or more")
        numbers[name] = float(value)
    if numbers["examples"] < 1:
        raise ValueError("examples is below 1")
    return numbers


def _state(place: Place) -> dict[str, Any]:
    return {"connected": place.connected, "said": place.said}


def _gone(place: Place | None) -> Response:
    if place is None:
        return _refused("The server of this page was started again.", HTTPStatus.GONE, final=False)
    words = place.said if place.refused else f"{place.desk.left[:1].upper()}{place.desk.left[1:]}."
    return _refused(words, HTTPStatus.GONE, final=place.refused)


def _refused(words: str, status: int, **more: object) -> Response:
    return json_response({"error": words, **more}, status)
