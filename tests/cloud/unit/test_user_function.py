"""Functions of the user by name: whatever is wrong with their module is one line."""

import pytest

from edgeloop.cloud.input.user_function import function_of
from edgeloop.errors import OptionsError


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        (":net", "", "lacks the name of a module"),
        ("own_module:", "", "lacks the name of a function"),
        ("own_module:net", "def net(:", "cannot be imported .SyntaxError: invalid syntax"),
        ("own_module:net", "net = missing", "NameError: name 'missing' is not defined"),
        ("own_module:net", "raise SystemExit(3)", "cannot be imported .SystemExit: 3"),
        ("own_module:net", "", "AttributeError: .* has no attribute 'net'"),
        ("own_module:net", "net = 3", "is of type int, expected a function"),
    ],
)
def test_what_is_wrong_with_a_function_of_the_user_is_named(tmp_path, monkeypatch, name, code, said):
    (tmp_path / "own_module.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "own_module", raising=False)
    with pytest.raises(OptionsError, match=said):
        function_of(name)
