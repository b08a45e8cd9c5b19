"""What an index shows of README.md, where no relative link leads anywhere."""

import importlib.util

import pytest

README = """See [the guide](docs/a.md#b), [docs/](docs/), [below](#here), [Flower](https://flower.example/).
![The page](docs/page.png)
```
left[0](alone)
```
"""


@pytest.fixture(scope="module")
def hooks(root):
    pytest.importorskip("hatchling")
    spec = importlib.util.spec_from_file_location("hatch_hooks", root / "scripts/hatch_hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_an_address_a_link_becomes_the_name_of_its_file(hooks):
    assert hooks.description(README, "") == (
        """See the guide (`docs/a.md#b`), `docs/`, [below](#here), [Flower](https://flower.example/).
The page (`docs/page.png`)
```
left[0](alone)
```

Files named in brackets are in the source distribution.
"""
    )
    assert hooks.urls("") == {}


def test_with_an_address_every_link_leads_below_it(hooks):
    lines = hooks.description(README, "https://x.example/edgeloop/").splitlines()
    assert lines[0].startswith("See [the guide](https://x.example/edgeloop/docs/a.md#b), [docs/](https://x.example/")
    assert lines[1] == "![The page](https://x.example/edgeloop/docs/page.png)"
    assert lines[3] == "left[0](alone)"
    assert hooks.urls("https://x.example/edgeloop")["Documentation"] == "https://x.example/edgeloop/docs/index.md"
