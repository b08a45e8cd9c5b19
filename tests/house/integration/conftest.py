"""The wheel and the sdist, each built once from the checkout."""

import pytest
from distributions import build


def _built_page(root):
    if not (root / "browser/edgeloop/browser/static/page/index.html").is_file():
        pytest.skip("the browser page is not built: run make setup")


@pytest.fixture(scope="session")
def wheel(root, tmp_path_factory):
    _built_page(root)
    return build("wheel", root, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def sdist(root, tmp_path_factory):
    _built_page(root)
    return build("sdist", root, tmp_path_factory.mktemp("sdist"))
