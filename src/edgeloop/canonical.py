"""Plain values in, canonical JSON bytes out: the same value always gives the same bytes.

Source: RFC 8785 (JSON Canonicalization Scheme), https://www.rfc-editor.org/rfc/rfc8785
"""

from __future__ import annotations

import json
import math
from typing import Any

from edgeloop.errors import ModelError

SAFE_INTEGER = 2**53  # above it, a JSON number no longer names one integer (RFC 8785, 3.2.2.3)
LIMIT_BYTES = 16 << 20
AGAIN = "Make it again with edgeloop convert."


def canonical_json(value: Any) -> bytes:
    """UTF-8 bytes of `value` (dict, list, tuple, str, int, float, bool, None).

    Raises:
        ValueError: NaN, Infinity, an integer beyond 2^53, a lone surrogate, a key that is no string.
    """
    return _write(value).encode("utf-8")  # a lone surrogate has no UTF-8: UnicodeEncodeError is a ValueError


def read_json(data: bytes, name: str, limit_bytes: int = LIMIT_BYTES) -> dict[str, Any]:
    """Parse a JSON object that arrived from elsewhere.

    Raises:
        ModelError: Too large, not UTF-8 JSON, no object, a repeated key, NaN, Infinity, a lone surrogate.
    """
    if len(data) > limit_bytes:
        raise ModelError(f"{name} has {len(data)} bytes, more than the limit of {limit_bytes}", advice=AGAIN)
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=refuse_constant)
        # Written back once: 1e999 was read as Infinity without a word, and a lone surrogate cannot be printed later.
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (ValueError, RecursionError) as e:
        raise ModelError(f"{name} is not valid JSON ({e})", advice=AGAIN) from e
    if not isinstance(value, dict):
        raise ModelError(f"{name} holds a JSON {type(value).__name__}, expected an object", advice=AGAIN)
    return value


def _write(value: Any) -> str:
    if value is None or isinstance(value, (bool, str)):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int):
        if abs(value) > SAFE_INTEGER:
            raise ValueError(f"{value} is beyond 2^53: JSON readers would round it")
        return str(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(_write(item) for item in value) + "]"
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("a key of a JSON object is text")
        # RFC 8785 sorts by UTF-16 code units, which differs from code points above U+FFFF
        keys = sorted(value, key=lambda key: key.encode("utf-16-be", "surrogatepass"))
        return "{" + ",".join(f"{_write(key)}:{_write(value[key])}" for key in keys) + "}"
    raise ValueError(f"{type(value).__name__} has no JSON form")


def _number(x: float) -> str:
    """The shortest digits that give `x` back, laid out as ECMAScript's Number::toString does."""
    if not math.isfinite(x):
        raise ValueError(f"{x} has no JSON form")
    if x == 0:
        return "0"
    sign = "-" if x < 0 else ""
    mantissa, _, exponent = repr(abs(x)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    point = len(whole) + int(exponent or 0)
    digits = (whole + fraction).lstrip("0")
    point -= len(whole + fraction) - len(digits)
    digits = digits.rstrip("0")
    if 0 < point <= 21:
        if len(digits) <= point:
            return sign + digits.ljust(point, "0")
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    head = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
    return f"{sign}{head}e{'+' if point > 0 else '-'}{abs(point - 1)}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key appears twice")
    return value


def refuse_constant(name: str) -> Any:
    """`parse_constant` of json.loads: NaN and Infinity are no JSON, though Python reads them."""
    raise ValueError(f"{name} is not a JSON number")
