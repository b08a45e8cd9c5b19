"""What every test may use, and two rules of the house: unit tests load no framework, CI has a browser."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from devices import (  # noqa: F401  fixtures
    arm64_place,
    device_keys,
    new_arm64_device,
    new_ssh_device,
    ssh_device,
    ssh_keys,
    sshd_program,
)

from edgeloop.atomic import new_folder
from edgeloop.processes.file_lock import exclusive

pytest_plugins = ["durations"]
ROOT = Path(__file__).parent.parent
FRAMEWORKS = {"tensorflow", "keras", "tf_keras", "tensorflowjs"}  # seconds to load; a unit test takes milliseconds
MAKE_TIMEOUT_S = 280  # below pytest's own limit of one test
IN_CI = os.environ.get("CI") == "true"


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data sets and third-party models that EDGELOOP_DATA names."""
    folder = os.environ.get("EDGELOOP_DATA")
    if not folder:
        pytest.skip("EDGELOOP_DATA names no folder with data/ and models/")
    return Path(folder)


@pytest.fixture(scope="session")
def device_python() -> Path:
    """The interpreter of the environment without TensorFlow."""
    python = Path(os.environ.get("EDGELOOP_DEVICE_PYTHON", ROOT / ".venv-device" / "bin" / "python"))
    if not python.is_file():
        pytest.skip(f"no device environment at {python}: run make setup")
    return python


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory) -> Path:
    """A folder that all workers of this run share."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def made_once(run_folder) -> Callable[[str, Callable[[Path], None]], Path]:
    """`made_once(name, make)`: the folder `name`, which `make(folder)` filled for all workers of this run."""

    def once(name: str, make: Callable[[Path], None]) -> Path:
        folder = run_folder / name
        with exclusive(run_folder / f"{name}.lock", MAKE_TIMEOUT_S):
            if not folder.is_dir():
                with new_folder(folder) as unfinished:
                    make(unfinished)
        return folder

    return once


@pytest.fixture(scope="session", autouse=True)
def _a_cache_of_its_own(tmp_path_factory, run_folder):
    """What tests convert is neither taken from the user's cache nor left in it; their devices join no fleet of his.
    All workers of a run share one cache: the same conversion is made once."""
    os.environ["EDGELOOP_CACHE"] = str(run_folder / "cache")
    os.environ["EDGELOOP_FLEET"] = str(tmp_path_factory.mktemp("fleet") / "fleet.json")
    os.environ["EDGELOOP_HOME"] = str(tmp_path_factory.mktemp("home"))


def pytest_collection_modifyitems(items):
    """The folder says it: what lies in tests/<folder>/integration/ is an integration test."""
    for item in items:
        if item.path.parent.name == "integration":
            item.add_marker(pytest.mark.integration)


@pytest.fixture(autouse=True)
def _no_framework_in_a_unit_test(request):
    """In a session of unit tests no framework may be loaded; beside integration tests, a unit test may add none."""
    mixed = any(item.get_closest_marker("integration") for item in request.session.items)
    before = FRAMEWORKS & sys.modules.keys() if mixed else set()
    yield
    if request.node.get_closest_marker("integration") is None:
        loaded = (FRAMEWORKS & sys.modules.keys()) - before
        assert not loaded, f"{sorted(loaded)} was imported by a unit test: mark it integration, or import less"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A user's machine may lack a browser, data or an environment; CI may not, or nobody would notice what is never
    tested. What root cannot see (a file that may not be read) is the one exception."""
    report = (yield).get_result()
    if IN_CI and report.skipped and "root reads everything" not in str(report.longrepr):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr[-1]}"


def pytest_report_header() -> str:
    chromium = shutil.which("chromium") or "not on the PATH"
    return f"edgeloop: Chromium {chromium}; EDGELOOP_DATA {os.environ.get('EDGELOOP_DATA', 'unset')}"
