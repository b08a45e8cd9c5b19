"""Which Chromium, which Node, which file: found in a stated order, or named with the line that brings them."""

import contextlib
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeloop.browser import chromium, runners
from edgeloop.browser.agent import PageAgent, _array, _plain
from edgeloop.browser.runners import LITERTJS, TFJS
from edgeloop.bundle import Format
from edgeloop.errors import MissingExtra, TargetError
from edgeloop.runtime.agent.protocol import PrepareRequest


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A machine without browsers and without Node."""
    monkeypatch.setattr(chromium, "PROGRAMS", ("chromium", "google-chrome"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path / "downloaded"))
    monkeypatch.delenv(chromium.NAMED, raising=False)
    monkeypatch.setattr(runners.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    return tmp_path


def test_without_a_chromium_both_ways_to_get_one_are_named(bare):
    with pytest.raises(MissingExtra, match=r"apt-get install chromium.*playwright install chromium.*EDGELOOP_CHROMIUM"):
        chromium.find_chromium()


def test_the_named_chromium_comes_first_then_the_systems_then_the_downloaded(bare, monkeypatch):
    downloaded = program(bare / "downloaded" / "chromium-1200" / "chrome-linux64" / "chrome")
    assert chromium.find_chromium() == downloaded
    system = program(bare / "bin" / "google-chrome")
    assert chromium.find_chromium() == system
    named = program(bare / "mine")
    monkeypatch.setenv(chromium.NAMED, str(named))
    assert chromium.find_chromium() == named


def test_a_named_chromium_that_is_not_there_is_not_replaced_by_another(bare, monkeypatch):
    program(bare / "bin" / "chromium")
    monkeypatch.setenv(chromium.NAMED, str(bare / "none"))
    with pytest.raises(MissingExtra, match="none"):
        chromium.find_chromium()


def test_node_stands_beside_this_python_or_on_the_path_or_is_named(bare):
    with pytest.raises(MissingExtra, match=r"edgeloop\[browser\]"):
        runners.find_node()
    system = program(bare / "bin" / "node")
    assert runners.find_node() == system
    beside = program(bare / "node")
    assert runners.find_node() == beside


@pytest.mark.parametrize("entry", ["../secret.tflite", "link.tflite", "none.tflite", "folder"])
def test_a_model_outside_its_folder_is_not_served(tmp_path, monkeypatch, entry):
    monkeypatch.setattr(runners, "find_chromium", lambda: Path("chromium"))
    monkeypatch.setattr(runners, "need", lambda module, extra: None)
    (tmp_path / "secret.tflite").write_bytes(b"secret")
    (tmp_path / "models" / "folder").mkdir(parents=True)
    (tmp_path / "models" / "link.tflite").symlink_to(tmp_path / "secret.tflite")
    with pytest.raises(TargetError, match="not a file inside"):
        LITERTJS.open(tmp_path / "models", entry).__enter__()


def test_the_runners_have_the_names_and_formats_they_are_found_by():
    assert (TFJS.name, TFJS.formats) == ("tfjs", {Format.TFJS})
    assert (LITERTJS.name, LITERTJS.formats) == ("litertjs", {Format.TFLITE})


@pytest.mark.parametrize("dtype", ["float32", "int32", "uint8", ">f4", "int64"])
def test_an_array_comes_back_from_the_page_as_it_went(dtype):
    array = np.arange(6).astype(dtype).reshape(3, 2).T  # not contiguous
    back = _array(_plain(array))
    assert back.dtype == array.dtype.newbyteorder("<")
    np.testing.assert_array_equal(back, array)


class FakePage:
    """A page whose every call fails with these words."""

    def __init__(self, words: str, closed: bool = False):
        self.words, self.closed = words, closed

    def evaluate(self, function, argument):
        raise pytest.importorskip("playwright.sync_api").Error(self.words)

    def is_closed(self) -> bool:
        return self.closed


def test_an_event_and_not_a_word_tells_that_the_page_died(tmp_path):
    agent = PageAgent(tmp_path, "http://localhost/", 1.0, contextlib.ExitStack())
    agent.page = FakePage("the file crashed.tflite is damaged")
    with pytest.raises(RuntimeError, match=r"crashed\.tflite is damaged"):
        agent.prepare(PrepareRequest(path="crashed.tflite"), b"")
    agent._note_crash(agent.page)
    with pytest.raises(SystemExit, match="Chromium's page died"):
        agent.prepare(PrepareRequest(path="m.tflite"), b"")
    other = PageAgent(tmp_path, "http://localhost/", 1.0, contextlib.ExitStack())
    other.page = FakePage("Target closed", closed=True)
    with pytest.raises(SystemExit, match="Chromium's page died"):
        other.prepare(PrepareRequest(path="m.tflite"), b"")
