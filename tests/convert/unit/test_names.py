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


@pytest.mark.parametrize(
    ("names", "clean"),
    [
        (["x", "my-in"], ["x", "my_in"]),
        (["/x.1", "495"], ["x_1", "t495"]),  # TensorFlow drops an underscore that a name begins with
        (["é", ""], ["t_0", "t_1"]),
        (["a-b", "a_b", "a_b_0"], ["a_b_0", "a_b_1", "a_b_0_2"]),
    ],
)
def test_names_become_identifiers_and_no_two_are_the_same(names, clean):
    assert identifiers(names) == clean
