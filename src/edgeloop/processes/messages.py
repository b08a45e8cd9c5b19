"""Requests and replies of a conversation: frozen dataclasses that both ends import, and their form in a frame's header.

A reader ignores fields it does not know, so that an older end talks to a newer one. Python 3.9 syntax, the standard
library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, ClassVar, Generic, TypeVar

from edgeloop.processes.frames import Header, Operation

Message = TypeVar("Message")
Reply = TypeVar("Reply")


@dataclass(frozen=True)
class Request(Generic[Reply]):
    """What one end asks. `OP` names it in the frame; `REPLY` is the class of the answer."""

    OP: ClassVar[str] = ""
    REPLY: ClassVar[type] = dict


@dataclass(frozen=True)
class EmptyReply:
    """A reply that says no more than that it was done."""


def one(kind: type) -> Mapping[str, Any]:
    """The metadata of a field that holds a message of `kind`."""
    return {"read": lambda value: from_header(kind, value)}


def one_or_none(kind: type) -> Mapping[str, Any]:
    """The metadata of a field that holds a message of `kind`, or nothing."""
    return {"read": lambda value: None if value is None else from_header(kind, value)}


def by_name(kind: type) -> Mapping[str, Any]:
    """The metadata of a field that holds messages of `kind` by name."""
    return {"read": lambda value: {name: from_header(kind, each) for name, each in value.items()}}


def to_header(message: Any) -> dict[str, Any]:
    """Field by field; messages in fields become objects too."""
    return {field.name: _plain(getattr(message, field.name)) for field in fields(message)}


def from_header(kind: type[Message], header: Mapping[str, Any]) -> Message:
    """The message of `kind` in a header.

    Raises:
        ValueError: A field without a default is not there, or one has another form.
    """
    if not isinstance(header, Mapping):
        raise ValueError(f"{kind.__name__} is no object")
    found = {}
    for field in fields(kind):  # type: ignore[arg-type]  # a message is a dataclass
        if field.name in header:
            found[field.name] = _read(kind, field.name, field.metadata.get("read"), header[field.name])
        elif field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{kind.__name__} lacks {field.name!r}")
    return kind(**found)


def answering(kind: type[Request], operation: Callable[[Any, bytes], Any]) -> Operation:
    """`operation(request, payload) -> reply, or (reply, payload)`, as `frames.serve` calls it."""

    def answer(header: Header, payload: bytes) -> tuple[Mapping[str, Any], bytes]:
        said = operation(from_header(kind, header), payload)
        reply, data = said if isinstance(said, tuple) else (said, b"")
        return to_header(reply), data

    return answer


def _read(kind: type, name: str, read: Callable[[Any], Any] | None, value: Any) -> Any:
    try:
        return value if read is None else read(value)
    except (AttributeError, TypeError) as e:
        raise ValueError(f"{kind.__name__} has a {name!r} of another form") from e


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return to_header(value)
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return value
