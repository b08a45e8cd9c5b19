"""Which runtimes there are, where, and who may pick which; no runtime is loaded."""

from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest

from edgeloop.bundle import Format
from edgeloop.errors import DeviceError, MissingExtra
from edgeloop.runtime import runners
from edgeloop.runtime.client import survey
from edgeloop.runtime.device import Device, parse_device
from edgeloop.runtime_table import RUNTIMES, Runtime, those_of

FAR = Device("ssh://far", "python3")
LITERT, TFLITE_RUNTIME, ONNXRUNTIME, _ = runners.AGENT_RUNNERS.values()


@pytest.fixture
def other(monkeypatch):
    """A runner of a folder above, as an installation with that folder announces it."""
    point = EntryPoint("other", "edgeloop.runtime.runners:AGENT_RUNNERS", runners.GROUP)
    monkeypatch.setattr(runners, "entry_points", lambda group: [point] if group == runners.GROUP else [])
    runner = SimpleNamespace(name="other", comparison=False)
    monkeypatch.setattr(EntryPoint, "load", lambda self: runner)
    return runner


def test_what_is_for_comparison_alone_is_there_for_who_names_it_and_nobody_else(other):
    assert list(runners.runners()) == ["litert", "tflite-runtime", "onnxruntime", "other"]  # in order of preference
    assert list(runners.runners(("litert",))) == list(runners.runners())
    assert runners.runners(("tensorflow",)) == {**runners.AGENT_RUNNERS, "other": other}


@pytest.mark.parametrize("name", ["tensorflow", "litert"])
def test_a_runtime_of_the_table_is_run_under_its_name(name):
    runner = runners.AGENT_RUNNERS[name]
    assert (runner.name, runner.formats) == (name, {Format.TFLITE})
    assert (runner.comparison, runner.proves) == (name == "tensorflow", name == "litert")


def test_the_best_runtime_of_a_format_comes_first_and_none_for_comparison_at_all():
    assert [runtime.name for runtime in those_of(Format.TFLITE)] == ["litert", "tflite-runtime"]
    assert [runtime.name for runtime in those_of(Format.ONNX)] == ["onnxruntime"]
    assert those_of(Format.TFJS) == ()  # the browser's, through its entry point


def test_a_device_is_asked_once_for_all_runtimes(monkeypatch):
    asked = []
    monkeypatch.setattr(runners, "survey", lambda device: asked.append(device) or {"litert": "2.3.0"})
    runners._survey.cache_clear()
    assert LITERT.lacks(FAR) == ""
    assert TFLITE_RUNTIME.lacks(FAR) == "tflite-runtime is not installed on ssh://far"
    assert not ONNXRUNTIME.on(FAR)
    assert asked == [FAR]


def test_a_device_that_cannot_be_reached_is_asked_once_too(monkeypatch):
    asked = []

    def fail(device):
        asked.append(device)
        raise DeviceError("cannot reach far: no route to host.")

    monkeypatch.setattr(runners, "survey", fail)
    runners._survey.cache_clear()
    for runner in (LITERT, ONNXRUNTIME):
        assert runner.lacks(FAR) == "cannot reach far: no route to host"
    assert len(asked) == 1


def test_a_runtime_that_is_nowhere_comes_with_the_line_that_installs_it(monkeypatch, tmp_path):
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.touch()
    monkeypatch.setenv("EDGELOOP_DEVICE_PYTHON", str(python))
    monkeypatch.setattr(runners, "survey", lambda device: {})
    runners._survey.cache_clear()
    nowhere = Runtime("nowhere", frozenset(), "no_such_module", "nowhere", install="pip install nowhere")
    with pytest.raises(MissingExtra, match=r"nowhere is installed neither here nor .* Run: pip install nowhere"):
        runners.AgentRunner(nowhere).device()


def test_a_survey_answers_with_versions_and_loads_nothing():
    """Of this interpreter, in a process of its own: metadata tells, so what is installed is what has a version."""
    found = survey(parse_device("local"), 30)
    assert set(found) <= set(RUNTIMES) and all(found.values())
