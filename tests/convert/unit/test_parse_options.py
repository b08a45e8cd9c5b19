"""Words of the command line: what an input is fixed to."""

import pytest

from edgeloop.convert.parse_options import fixed_input
from edgeloop.errors import OptionsError


@pytest.mark.parametrize(
    ("given", "expected"),
    [("sr=16000", ("sr", (16000.0,))), ("size=480,640", ("size", (480.0, 640.0))), ("a=b=-0.5", ("a=b", (-0.5,)))],
)
def test_an_input_is_fixed_to_one_number_or_several(given, expected):
    assert fixed_input(given) == expected


@pytest.mark.parametrize("given", ["sr", "=1", "sr=", "sr=fast", "sr=1,,2", "sr=nan"])
def test_what_is_no_number_is_refused(given):
    with pytest.raises(OptionsError, match="Write NAME=VALUE with a number"):
        fixed_input(given)
