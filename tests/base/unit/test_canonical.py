"""Canonical JSON against the vectors RFC 8785 itself prints."""

import json
import struct

import pytest

from edgeloop.canonical import LIMIT_BYTES, canonical_json, read_json
from edgeloop.errors import ModelError

# RFC 8785, Appendix B: the bits of a double, and its one spelling
NUMBERS = [
    ("0000000000000000", "0"),
    ("8000000000000000", "0"),
    ("0000000000000001", "5e-324"),
    ("8000000000000001", "-5e-324"),
    ("7fefffffffffffff", "1.7976931348623157e+308"),
    ("ffefffffffffffff", "-1.7976931348623157e+308"),
    ("4340000000000000", "9007199254740992"),
    ("c340000000000000", "-9007199254740992"),
    ("4430000000000000", "295147905179352830000"),
    ("44b52d02c7e14af5", "9.999999999999997e+22"),
    ("44b52d02c7e14af6", "1e+23"),
    ("44b52d02c7e14af7", "1.0000000000000001e+23"),
    ("444b1ae4d6e2ef4e", "999999999999999700000"),
    ("444b1ae4d6e2ef4f", "999999999999999900000"),
    ("444b1ae4d6e2ef50", "1e+21"),
    ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
    ("3eb0c6f7a0b5ed8d", "0.000001"),
    ("41b3de4355555553", "333333333.3333332"),
    ("41b3de4355555554", "333333333.33333325"),
    ("41b3de4355555555", "333333333.3333333"),
    ("41b3de4355555556", "333333333.3333334"),
    ("41b3de4355555557", "333333333.33333343"),
    ("becbf647612f3696", "-0.0000033333333333333333"),
    ("43143ff3c1cb0959", "1424953923781206.2"),
]


@pytest.mark.parametrize(("bits", "text"), NUMBERS)
def test_a_number_is_spelled_as_appendix_b_spells_it(bits, text):
    (value,) = struct.unpack(">d", bytes.fromhex(bits))
    assert canonical_json(value) == text.encode()


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-7, "1e-7"), (1e-6, "0.000001"), (12e-10, "1.2e-9"), (0.1, "0.1"), (-1.5, "-1.5"), (-0.0, "0"), (0, "0"),
     (100.0, "100"), (123456789.0, "123456789"), (1e20, "1" + "0" * 20), (2**53, "9007199254740992")],
)  # fmt: skip
def test_a_number_is_spelled_as_ecmascript_spells_it(value, text):
    assert canonical_json(value) == text.encode()


def test_the_example_of_section_3_2_2():
    given = r"""{
      "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
      "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
      "literals": [null, true, false]
    }"""
    expected = (
        r"""{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"""
        r""""string":"€$\u000f\nA'B\"\\\\\"/"}"""
    )
    assert canonical_json(json.loads(given)).decode() == expected


def test_keys_are_sorted_by_utf_16_as_in_section_3_2_3():
    given = r"""{"\u20ac": "Euro Sign", "\r": "Carriage Return", "\ufb33": "Hebrew Letter Dalet With Dagesh",
      "1": "One", "\ud83d\ude00": "Emoji: Grinning Face", "\u0080": "Control",
      "\u00f6": "Latin Small Letter O With Diaeresis"}"""
    written = json.loads(canonical_json(json.loads(given)))
    assert list(written.values()) == [
        "Carriage Return",
        "One",
        "Control",
        "Latin Small Letter O With Diaeresis",
        "Euro Sign",
        "Emoji: Grinning Face",  # U+1F600 is D83D DE00 in UTF-16: before FB33, though its code point is higher
        "Hebrew Letter Dalet With Dagesh",
    ]


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), -float("inf"), 2**53 + 1, -(2**53) - 1, "\ud800", {"\udfff": 1}, {1: 2}, b"x", {1, 2}],
    ids=repr,
)
def test_what_has_no_canonical_form_is_a_value_error(value):
    with pytest.raises(ValueError):
        canonical_json([value])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b'{"a": 1, "a": 2}', "a key appears twice"),
        (b'{"a": {"b": 1, "b": 1}}', "a key appears twice"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1e999}', "not JSON compliant"),
        (rb'{"a": "\ud800"}', "surrogates not allowed"),
        (b'{"a": "\xff"}', "can't decode byte 0xff"),
        (b"[1]", "holds a JSON list, expected an object"),
        (b'{"a": 1} x', "Extra data"),
        (b"", "Expecting value"),
        (b'{"a":' + b"[" * 100_000, "is not valid JSON"),
        (b" " * (LIMIT_BYTES + 1), f"more than the limit of {LIMIT_BYTES}"),
    ],
    ids=lambda value: value[:20] if isinstance(value, bytes) else "",
)
def test_json_from_elsewhere_is_refused(data, why):
    with pytest.raises(ModelError, match=why):
        read_json(data, "manifest.json")


def test_what_was_written_is_read_back():
    value = {"b": [1, 2.5, None, True, "ä€😀\n"], "a": {"": -7}}
    assert read_json(canonical_json(value), "x") == value
