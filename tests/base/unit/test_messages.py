"""Requests and replies keep their fields through a header, and a reader ignores what it does not know."""

import json
from dataclasses import dataclass, field, fields
from subprocess import PIPE
from typing import ClassVar

import pytest

from edgeloop.edge.on_device.releases import protocol as releases
from edgeloop.errors import DeviceError, OptionsError, TargetError
from edgeloop.leftovers import log_file
from edgeloop.processes.children import owned
from edgeloop.processes.conversation import Conversation
from edgeloop.processes.exit_status import ExitStatus
from edgeloop.processes.messages import EmptyReply, Request, answering, by_name, from_header, one, to_header
from edgeloop.runtime.agent import protocol
from edgeloop.runtime.agent.child_model import ChildModel


@dataclass(frozen=True)
class Point:
    x: int
    y: int = 0


@dataclass(frozen=True)
class Drawing(Request[EmptyReply]):
    OP: ClassVar[str] = "draw"
    REPLY: ClassVar[type] = EmptyReply
    points: dict = field(metadata=by_name(Point))
    origin: Point = field(default=Point(0), metadata=one(Point))
    title: str = ""


def test_a_message_comes_back_as_it_went_through_json():
    drawing = Drawing({"a": Point(1), "b": Point(2, 3)}, Point(4), "t")
    header = to_header(drawing)
    assert header == {
        "points": {"a": {"x": 1, "y": 0}, "b": {"x": 2, "y": 3}},
        "origin": {"x": 4, "y": 0},
        "title": "t",
    }
    assert from_header(Drawing, json.loads(json.dumps(header))) == drawing


def test_fields_that_this_version_does_not_know_are_ignored_everywhere():
    assert from_header(Drawing, {"points": {"a": {"x": 1, "colour": "red"}}, "new": 1}) == Drawing({"a": Point(1)})


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ({}, "Drawing lacks 'points'"),
        ({"points": {"a": {}}}, "Point lacks 'x'"),
        ({"points": 7}, "Drawing has a 'points' of another form"),
        ({"points": {}, "origin": None}, "Point is no object"),
        ([], "Drawing is no object"),
    ],
)
def test_what_is_no_such_message_is_refused_by_name(header, why):
    with pytest.raises(ValueError, match=why):
        from_header(Drawing, header)


def test_an_operation_gets_its_request_and_its_reply_becomes_a_header():
    draw = answering(Drawing, lambda asked, payload: (Point(len(asked.points)), payload * 2))
    assert draw({"points": {"a": {"x": 1}}}, b"ab") == ({"x": 1, "y": 0}, b"abab")


@pytest.mark.parametrize("requests", [protocol.REQUESTS, releases.REQUESTS], ids=["model", "releases"])
def test_every_request_of_a_protocol_has_an_operation_of_its_own_and_a_reply(requests):
    names = [kind.OP for kind in requests]
    assert len(set(names)) == len(names) and all(name.isidentifier() for name in names)
    own = {field.name for kind in requests for message in (kind, kind.REPLY) for field in fields(message)}
    assert not own & {"v", "id", "op", "bytes", "error"}  # of the frame itself (frames.py)


def test_terms_of_a_probation_that_show_nothing_are_refused_where_they_are_read():
    with pytest.raises(OptionsError, match="--probation is 0"):
        from_header(releases.ActivateRequest, {"slot": "tiny", "probation": {"runs": 0}})


@pytest.mark.parametrize(
    ("status", "text", "advice"),
    [
        (ExitStatus(-11, "SIGSEGV"), "signal SIGSEGV", "The runtime crashes on this model"),
        (
            ExitStatus(137, "SIGKILL", "out of memory"),
            "signal SIGKILL; its last words: out of memory",
            "smaller variant",
        ),
        (ExitStatus(3, "", "no such file"), "exit code 3; its last words: no such file", ""),
        (ExitStatus(None), "still running", ""),
    ],
)
def test_how_a_child_ended_is_said_with_its_last_words_and_what_to_do(status, text, advice):
    assert str(status) == text and advice in status.advice


def test_only_where_a_child_has_a_model_at_hand_a_crash_is_laid_to_the_model():
    for kind, advice in ((Conversation, "Try again."), (ChildModel, "The runtime crashes on this model")):
        with (
            log_file() as log,
            owned(["sh", "-c", "read line; kill -SEGV $$"], stdin=PIPE, stdout=PIPE, stderr=log) as child,
            pytest.raises((DeviceError, TargetError), match=r"ended during status \(signal SIGSEGV") as said,
        ):
            kind(child, "pi", 10, log).ask("status")
        assert said.value.advice.startswith(advice)
