"""Names as every format, and TensorFlow's scopes, take them."""

import pytest

from edgeloop.convert.sources.names import arguments, identifiers, scope


@pytest.mark.parametrize(
    "name, expected",
    [("/x.1", "x_1"), ("495", "t495"), ("größe", "gr__e"), ("my input", "my_input"), ("_h", "h")],
)
def test_a_tensor_gets_a_name_that_python_takes_as_a_parameter(name, expected):
    assert identifiers([name]) == [expected]


def test_an_input_is_no_word_of_python_and_an_output_may_be_one():
    assert arguments(["class", "class_", "x"]) == ["class__0", "class__1", "x"]
    assert identifiers(["class"]) == ["class"]


@pytest.mark.parametrize(
    "name, expected", [("conv2d/a.b-c>d", "conv2d/a.b-c>d"), ("my net", "my_net"), ("_net", "net"), (".h", ".h")]
)
def test_a_scope_keeps_its_name_where_tensorflow_takes_it(name, expected):
    assert scope(name) == expected
