"""The wheel and the sdist, each built once from the checkout for all workers of a run."""

import pytest
from distributions import build


def _built_page(root):
    if not (root / "browser/edgeloop/browser/static/page/index.html").is_file():
        pytest.skip("the browser page is not built: run make setup")


@pytest.fixture(scope="session")
def wheel(root, made_once):
    _built_page(root)
    (made,) = made_once("wheel", lambda folder: build("wheel", root, folder)).iterdir()
    return made


@pytest.fixture(scope="session")
def sdist(root, made_once):
    _built_page(root)
    (made,) = made_once("sdist", lambda folder: build("sdist", root, folder)).iterdir()
    return made
