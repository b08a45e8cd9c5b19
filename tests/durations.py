"""How long each test took, kept in durations.json; by that, which files two workers start with.

`make durations` measures again. The tests of a file stay on one worker, in order: they share what their module made.
Files go out the longest first, so that the workers end together.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path

import pytest

FILE = Path(__file__).with_name("durations.json")
KEPT_S = 1.0  # tests below it count in their file's total alone
UNKNOWN_S = 100.0  # of a file that was not measured yet: it goes out early, as it may be long
OPTION = "--keep-durations"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(OPTION, action="store_true", help=f"write how long each test took to {FILE.name}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On a worker, the longest file first."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        seconds = json.loads(FILE.read_text())["files"] if FILE.exists() else {}
        items.sort(key=lambda item: (-seconds.get(_file(item.nodeid), UNKNOWN_S), _file(item.nodeid)))  # stable


def _file(test: str) -> str:
    return test.partition("::")[0]


class Durations:
    """Adds up set-up, call and tear-down of every test, whichever worker ran it."""

    def __init__(self) -> None:
        self.of_test: dict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.of_test[report.nodeid] += report.duration

    def pytest_sessionfinish(self) -> None:
        of_file: dict[str, float] = defaultdict(float)
        for test, seconds in self.of_test.items():
            of_file[_file(test)] += seconds
        slow = sorted((item for item in self.of_test.items() if item[1] >= KEPT_S), key=lambda item: -item[1])
        document = {
            "files": {name: round(seconds, 1) for name, seconds in sorted(of_file.items(), key=lambda item: -item[1])},
            "tests": {name: round(seconds, 1) for name, seconds in slow},
        }
        FILE.write_text(json.dumps(document, indent=1) + "\n")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption(OPTION) and "PYTEST_XDIST_WORKER" not in os.environ:
        config.pluginmanager.register(Durations())
