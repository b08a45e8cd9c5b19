"""The public Python names: each is there, says what it raises, and costs nothing before it is used."""

import inspect
import subprocess
import sys
import types
import typing

import pytest

from edgeloop import api, errors

FUNCTIONS = [name for name in api.__all__ if name[0].islower()]
TYPES = [name for name in api.__all__ if name[0].isupper()]
KNOWN = {name for name, value in vars(errors).items() if isinstance(value, type)}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_says_what_it_does_what_it_raises_and_shows_one_call(name):
    function = getattr(api, name)
    assert isinstance(function, types.FunctionType)
    text = inspect.getdoc(function)
    assert "Raises:" in text and ">>> " in text, text
    assert f"{name}(" in text.partition("Example:")[2], "the example calls it by its public name"
    raised = text.partition("Raises:")[2].partition("Example:")[0]
    named = {word.strip() for line in raised.splitlines() if ":" in line for word in line.partition(":")[0].split(",")}
    assert named & KNOWN, raised
    hints = set(typing.get_type_hints(function)) if name != "browse" else set(function.__wrapped__.__annotations__)
    assert "return" in hints


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "browse"])
def test_what_a_public_function_returns_can_be_imported_too(name):
    returned = typing.get_type_hints(getattr(api, name))["return"]
    own = [t for t in (returned, *typing.get_args(returned)) if getattr(t, "__module__", "").startswith("edgeloop.")]
    assert [t.__name__ for t in own if getattr(api, t.__name__, None) is not t] == []


@pytest.mark.parametrize("name", TYPES)
def test_a_public_type_has_a_docstring_of_its_own(name):
    text = inspect.getdoc(getattr(api, name))
    assert text and not text.startswith(f"{name}("), "dataclass writes that one where there is none"


def test_dir_lists_the_public_names_and_nothing_else():
    assert dir(api) == sorted(api.__all__)
    assert len(set(api.__all__)) == len(api.__all__)


def test_the_docstring_lists_every_function():
    table = api.__doc__.partition("Functions")[2].partition("Errors")[0]
    assert [line.split()[0] for line in table.splitlines()[1:] if line.strip()] != []
    assert {line.split()[0] for line in table.splitlines()[1:] if line.strip()} == set(FUNCTIONS)


def test_an_unknown_name_is_an_attribute_error_that_names_the_known_ones():
    with pytest.raises(AttributeError, match=r"no attribute 'covert'\. It has: Bench, BenchOptions, "):
        api.covert  # noqa: B018


def test_importing_the_module_loads_none_of_the_folders():
    program = (
        "import sys\nfrom edgeloop import api\n"
        "print(*sorted(name for name in sys.modules if name == 'numpy' or name.startswith('edgeloop')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["edgeloop", "edgeloop.api"], done.stderr


def test_every_portion_of_the_namespace_tells_type_checkers_that_it_is_typed(root):
    portions = ["src/edgeloop", *(f"{p.parent.name}/edgeloop/{p.parent.name}" for p in root.glob("[!s]*/edgeloop"))]
    assert len(portions) == 6
    assert [portion for portion in portions if not (root / portion / "py.typed").is_file()] == []
